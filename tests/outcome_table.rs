//! Every outcome on every wire, against the table people and scripts rely on, written out; and that of
//! docs/requirements.md.

use std::collections::BTreeSet;

use tailrace::outcome::{Level, Outcome};

type Expected =
    (&'static str, Option<u8>, Option<u8>, Option<u16>, Option<&'static str>, Level, Option<u32>);

/// Label, SOCKS5 reply, SOCKS4 reply, HTTP status, `Proxy-Status` token, level, `Retry-After`.
#[rustfmt::skip]
const TABLE: &[Expected] = {
    use Level::{Error, Info, Warn};
    const NO: Option<u8> = Some(0x5b);
    &[
        ("ok", Some(0), Some(0x5a), Some(200), None, Info, None),
        ("fin_fin", None, None, None, None, Info, None),
        ("client_rst", None, None, None, None, Info, None),
        ("upstream_rst", None, None, None, None, Info, None),
        ("idle", None, None, None, None, Info, None),
        ("half_close_idle", None, None, None, None, Info, None),
        ("drained", None, None, None, None, Info, None),
        ("client_gone", None, None, None, None, Info, None),
        ("bad_request", Some(1), NO, Some(400), Some("http_request_error"), Info, None),
        ("head_too_large", Some(1), NO, Some(431), Some("http_request_error"), Info, None),
        ("head_timeout", Some(1), NO, Some(408), Some("http_request_error"), Info, None),
        ("unsupported_cmd", Some(7), NO, None, None, Info, None),
        ("unsupported_atyp", Some(8), NO, None, None, Info, None),
        ("no_auth_method", None, NO, None, None, Info, None),
        ("denied", Some(2), NO, Some(403), Some("http_request_denied"), Warn, None),
        ("sni_mismatch", None, None, None, Some("http_request_denied"), Warn, None),
        ("loop", Some(2), NO, Some(508), Some("proxy_loop_detected"), Warn, None),
        ("dns_error", Some(4), NO, Some(502), Some("dns_error"), Info, None),
        ("dns_timeout", Some(4), NO, Some(504), Some("dns_timeout"), Info, None),
        ("refused", Some(5), NO, Some(502), Some("connection_refused"), Info, None),
        ("unreachable", Some(3), NO, Some(502), Some("destination_ip_unroutable"), Info, None),
        ("unreachable", Some(4), NO, Some(502), Some("destination_ip_unroutable"), Info, None),
        ("upstream_failed", Some(1), NO, Some(502), Some("destination_unavailable"), Info, None),
        ("connect_timeout", Some(6), NO, Some(504), Some("connection_timeout"), Info, None),
        ("upstream_protocol", Some(1), NO, Some(502), Some("proxy_internal_error"), Error, None),
        ("internal", Some(1), NO, Some(500), Some("proxy_internal_error"), Error, None),
        ("upstream_down", Some(1), NO, Some(503), Some("destination_unavailable"), Warn, Some(1)),
        ("overloaded", Some(1), NO, Some(503), Some("connection_limit_reached"), Warn, Some(1)),
        ("draining", Some(1), NO, Some(503), Some("destination_unavailable"), Warn, Some(1)),
    ]
};

fn shown(outcome: Outcome) -> Expected {
    let row = outcome.row();
    let again = outcome.retry_after();
    (row.label, row.socks5, row.socks4, row.http, row.token, row.level, again)
}

#[test]
fn every_outcome_is_its_row() {
    let ours: Vec<Expected> = Outcome::ALL.into_iter().map(shown).collect();
    for (ours, expected) in ours.iter().zip(TABLE) {
        assert_eq!(ours, expected);
    }
    assert_eq!(ours.len(), TABLE.len());
}

/// A row as docs/requirements.md writes it.
fn written((label, socks5, socks4, http, token, level, _): &Expected) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let byte = |byte: &Option<u8>| or_none(byte.map(|byte| format!("{byte:02X}")));
    let (http, token) = (http.map(|status| status.to_string()), token.map(|t| format!("`{t}`")));
    let level = format!("{level:?}").to_lowercase();
    let (http, token) = (or_none(http), or_none(token));
    format!("| `{label}` | {} | {} | {http} | {token} | {level} |", byte(socks5), byte(socks4))
}

#[test]
fn the_page_has_the_same_rows() {
    let page = include_str!("../docs/requirements.md");
    let outcomes = page.split("\n| outcome |").nth(1).unwrap_or_default();
    let outcomes = outcomes.split("\n\n").next().unwrap_or_default();
    let rows: Vec<&str> = outcomes.lines().skip(2).collect();
    assert_eq!(rows, TABLE.iter().map(written).collect::<Vec<_>>());
}

#[test]
fn labels_are_words_a_metric_takes_and_only_unreachable_has_two_rows() {
    let mut seen = BTreeSet::new();
    for outcome in Outcome::ALL {
        let label = outcome.label();
        assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
        assert!(seen.insert(label) || label == "unreachable", "{label} twice");
    }
}

#[test]
fn no_failure_is_ever_told_as_success() {
    for outcome in Outcome::ALL.into_iter().filter(|o| *o != Outcome::Ok) {
        let row = outcome.row();
        assert_ne!(row.socks5, Some(0), "{}", row.label);
        assert_ne!(row.socks4, Some(0x5a), "{}", row.label);
        assert!(row.http.is_none_or(|status| status >= 400), "{}", row.label);
    }
}
