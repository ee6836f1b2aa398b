//! Records from birth to line: one each, counted once, whatever happens to them.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{AccessLog, Stage, Telemetry};
use crate::config::{Log, LogFormat, LogTo};
use crate::labels::{AcceptErrno, DnsResult, DnsRoute, HostFrom, Inbound, PolicyMode, Verdict};
use crate::outcome::Outcome;
use crate::target::{Host, Target};

const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 4000);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 1055);

fn telemetry() -> Arc<Telemetry> {
    Telemetry::new(AccessLog::without_output())
}

fn value(telemetry: &Telemetry, series: &str) -> f64 {
    let text = telemetry.metrics_text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().unwrap()
}

fn series(telemetry: &Telemetry) -> BTreeSet<String> {
    let text = telemetry.metrics_text();
    let name = |line: &str| line.rsplit_once(' ').unwrap().0.to_owned();
    text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(name).collect()
}

fn target() -> Target {
    Target { host: Host::parse(b"db.corp.example").unwrap(), port: 5432.try_into().unwrap() }
}

#[test]
fn a_forgotten_record_and_a_forgotten_connection_count_as_internal() {
    let telemetry = telemetry();
    let mut forgetful = telemetry.begin_connection(CLIENT.into(), SERVER.into());
    forgetful.set_inbound(Inbound::Socks5);
    drop(forgetful.begin_target());
    drop(forgetful);
    drop(telemetry.begin_connection(CLIENT.into(), SERVER.into()));
    let of = |inbound| {
        value(
            &telemetry,
            &format!("tailrace_connections_total{{inbound=\"{inbound}\",outcome=\"internal\"}}"),
        )
    };
    assert_eq!((of("socks5"), of("unknown")), (1.0, 1.0));
    assert_eq!(telemetry.counters().targets, 2);
}

#[test]
fn a_connection_has_a_line_of_its_own_only_without_targets() {
    let telemetry = telemetry();
    let mut busy = telemetry.begin_connection(CLIENT.into(), SERVER.into());
    busy.begin_target().finish(Outcome::Ok);
    busy.begin_target().finish(Outcome::Denied);
    busy.finish(Outcome::ClientGone);
    telemetry.begin_connection(CLIENT.into(), SERVER.into()).finish(Outcome::HeadTimeout);
    let outcomes: Vec<_> = telemetry.counters().outcomes.into_iter().collect();
    assert_eq!(outcomes, [("denied".into(), 1), ("head_timeout".into(), 1), ("ok".into(), 1)]);
}

#[test]
fn the_gauge_follows_the_kind_and_returns_to_0() {
    let telemetry = telemetry();
    let active = |inbound| {
        value(&telemetry, &format!("tailrace_connections_active{{inbound=\"{inbound}\"}}"))
    };
    let mut connection = telemetry.begin_connection(CLIENT.into(), SERVER.into());
    assert_eq!((active("unknown"), active("connect")), (1.0, 0.0));
    connection.set_inbound(Inbound::Connect);
    assert_eq!(
        (active("unknown"), active("connect"), telemetry.active_connections()),
        (0.0, 1.0, 1)
    );
    connection.finish(Outcome::ClientGone);
    assert_eq!(
        (active("unknown"), active("connect"), telemetry.active_connections()),
        (0.0, 0.0, 0)
    );
}

#[test]
fn a4_no_value_makes_a_series() {
    let telemetry = telemetry();
    let before = series(&telemetry);
    for n in 0..100 {
        let mut connection = telemetry.begin_connection(CLIENT.into(), SERVER.into());
        connection.set_inbound(Inbound::Http);
        let mut record = connection.begin_target();
        record.set_asked_text(&format!("a\"}} 1\nfake_metric {n}"));
        record.set_verdict(PolicyMode::Enforce, Verdict::Deny, Some("x".repeat(n)));
        record.mark_connected();
        record.finish(Outcome::Denied);
        telemetry.record_dns(DnsRoute::Cache, DnsResult::Refused, Duration::from_millis(1));
        telemetry.count_accept_error(AcceptErrno::Other);
    }
    assert_eq!(series(&telemetry), before);
    assert!(before.len() > 300, "every series is there from the start: {}", before.len());
}

#[test]
fn the_live_table_shows_what_is_known() {
    let telemetry = telemetry();
    let mut connection = telemetry.begin_connection(CLIENT.into(), SERVER.into());
    connection.set_inbound(Inbound::Socks5);
    let mut record = connection.begin_target();
    telemetry
        .live_connections()
        .for_each(|live| assert_eq!((live.target(), live.verdict()), (None, None)));
    record.set_target(&target(), HostFrom::Client);
    record.set_verdict(PolicyMode::Log, Verdict::WouldDeny, None);
    record.set_resolved(DnsRoute::System, Some(([10, 0, 0, 1], 5432).into()));
    record.set_stage(Stage::Dial);
    let rows = telemetry.connection_rows();
    let row = serde_json::to_value(&rows[0]).unwrap();
    assert_eq!(row["id"], record.id());
    assert_eq!(
        (&row["inbound"], &row["host"], &row["stage"]),
        (&"socks5".into(), &"db.corp.example".into(), &"dial".into())
    );
    assert_eq!((&row["address"], &row["verdict"]), (&"10.0.0.1".into(), &"would_deny".into()));
    let mut seen = 0;
    telemetry.live_connections().for_each(|live| {
        seen += 1;
        assert_eq!((live.target(), live.verdict()), (Some(target()), Some(Verdict::WouldDeny)));
        assert!(std::ptr::eq(live.cut(), record.live_connection().cut()));
    });
    assert_eq!(seen, 1);
}

#[test]
fn the_line_has_the_keys_of_the_contract_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let settings = Log { to: LogTo::File(path.clone()), format: LogFormat::Json, ..Log::default() };
    let (log, writer) = super::log::open_log(&settings).unwrap();
    let telemetry = Telemetry::new(log);
    let mut connection = telemetry.begin_connection(CLIENT.into(), SERVER.into());
    connection.set_inbound(Inbound::Connect);
    let mut record = connection.begin_target();
    let id = record.id().to_owned();
    record.set_target(&target(), HostFrom::Client);
    record.set_label("investigation-42");
    record.finish(Outcome::Refused);
    let mut second = connection.begin_target();
    second.set_asked_text("evil\0.corp.example\x1b[2J");
    second.finish(Outcome::BadRequest);
    assert!(writer.close_with(&telemetry.counters(), Duration::from_secs(10)));
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    let keys = "ts id inbound client process host host_from port address resolved_by route policy \
                outcome error bytes_up bytes_down connect_ms duration_ms upstream stage label";
    let mut at = 0;
    for key in keys.split(' ') {
        at += first[at..].find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}: {first}"));
    }
    let first: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(first.as_object().unwrap().len(), keys.split_whitespace().count());
    assert_eq!(
        (&first["id"], &first["host"], &first["port"]),
        (&id.into(), &"db.corp.example".into(), &5432.into())
    );
    assert_eq!(
        (&first["policy"]["mode"], &first["process"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let second: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(second["host"], "evil\0.corp.example\u{1b}[2J");
    assert_ne!(second["id"], first["id"]);
    let last: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&last["message"], &last["totals"]["targets"]), (&"totals".into(), &2.into()));
    assert_eq!(lines.next(), None);
}

#[test]
fn text_lines_are_safe_for_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let settings = Log { to: LogTo::File(path.clone()), format: LogFormat::Text, ..Log::default() };
    let (log, writer) = super::log::open_log(&settings).unwrap();
    let telemetry = Telemetry::new(log);
    let mut connection = telemetry.begin_connection(CLIENT.into(), SERVER.into());
    let mut record = connection.begin_target();
    record.set_asked_text("x\n\u{1b}[2J\u{202e}");
    record.finish(Outcome::BadRequest);
    assert!(writer.close_with(&telemetry.counters(), Duration::from_secs(10)));
    let text = std::fs::read(path).unwrap();
    assert!(text.iter().all(|b| (b' '..=b'~').contains(b) || *b == b'\n'));
    assert_eq!(text.iter().filter(|b| **b == b'\n').count(), 2);
}

#[test]
fn access_lines_obey_level_and_switch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let to = LogTo::File(path.clone());
    let quiet = Log { to: to.clone(), filter: tracing::Level::WARN.into(), ..Log::default() };
    let (log, writer) = super::log::open_log(&quiet).unwrap();
    let telemetry = Telemetry::new(log.clone());
    telemetry.begin_connection(CLIENT.into(), SERVER.into()).finish(Outcome::HeadTimeout);
    telemetry.begin_connection(CLIENT.into(), SERVER.into()).finish(Outcome::Overloaded);
    log.reload(&Log { to, access: false, ..Log::default() }).unwrap();
    telemetry.begin_connection(CLIENT.into(), SERVER.into()).finish(Outcome::Overloaded);
    assert!(writer.close_with(&telemetry.counters(), Duration::from_secs(10)));
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.matches("\"outcome\"").count(), 1, "{text}");
}

#[tokio::test]
async fn r17_a_panic_ends_its_own_connection_as_internal() {
    let telemetry = telemetry();
    let (unlucky, lucky) = (Arc::clone(&telemetry), Arc::clone(&telemetry));
    let unlucky = tokio::spawn(async move {
        let mut connection = unlucky.begin_connection(CLIENT.into(), SERVER.into());
        let _record = connection.begin_target();
        panic!("made by a test");
    });
    assert!(unlucky.await.unwrap_err().is_panic());
    let lucky = tokio::spawn(async move {
        lucky.begin_connection(CLIENT.into(), SERVER.into()).finish(Outcome::Ok)
    });
    lucky.await.unwrap();
    let outcomes: Vec<_> = telemetry.counters().outcomes.into_iter().collect();
    assert_eq!(
        (outcomes, telemetry.active_connections()),
        (vec![("internal".into(), 1), ("ok".into(), 1)], 0)
    );
}
