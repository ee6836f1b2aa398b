//! The exact refusal of every inbound for every outcome: the table of docs/requirements.md, written a second
//! time.

use std::net::SocketAddr;

use super::client::{self, Answer, Inbound};
use super::raw_connection::{ConnectionEnd, RawConnection};

/// SOCKS5 REP, HTTP status and Proxy-Status token of an outcome.
#[rustfmt::skip]
fn row(outcome: &str) -> (u8, u16, &'static str) {
    match outcome {
        "bad_request" => (0x01, 400, "http_request_error"),
        "head_too_large" => (0x01, 431, "http_request_error"),
        "head_timeout" => (0x01, 408, "http_request_error"),
        "denied" => (0x02, 403, "http_request_denied"),
        "loop" => (0x02, 508, "proxy_loop_detected"),
        "dns_error" => (0x04, 502, "dns_error"),
        "dns_timeout" => (0x04, 504, "dns_timeout"),
        "refused" => (0x05, 502, "connection_refused"),
        "unreachable" => (0x03, 502, "destination_ip_unroutable"),
        "upstream_failed" => (0x01, 502, "destination_unavailable"),
        "connect_timeout" => (0x06, 504, "connection_timeout"),
        "upstream_protocol" => (0x01, 502, "proxy_internal_error"),
        "internal" => (0x01, 500, "proxy_internal_error"),
        "upstream_down" => (0x01, 503, "destination_unavailable"),
        "overloaded" => (0x01, 503, "connection_limit_reached"),
        "draining" => (0x01, 503, "destination_unavailable"),
        other => panic!("rig: no refusal for {other}"),
    }
}

/// Asks for `target` and asserts the exact refusal of `outcome`, then FIN and not a byte more (I7).
#[track_caller]
pub fn assert_refused(proxy: SocketAddr, inbound: Inbound, target: &str, outcome: &str) {
    assert_raw_refused(proxy, inbound, &client::request(inbound, target), outcome);
}

/// The same for a request of the caller's making.
#[track_caller]
pub fn assert_raw_refused(proxy: SocketAddr, inbound: Inbound, request: &[u8], outcome: &str) {
    let (mut wire, answer) = client::ask_raw(proxy, inbound, request);
    assert_says(&answer, outcome);
    wire.expect_end(ConnectionEnd::Fin);
}

/// Asserts that a raw HTTP request gets the refusal of `outcome`.
#[track_caller]
pub fn assert_http_refused(proxy: SocketAddr, request: &[u8], outcome: &str) {
    let mut wire = RawConnection::dial(proxy);
    wire.send(request);
    assert_says(&Answer::Http(wire.read_answer()), outcome);
    wire.expect_end(ConnectionEnd::Fin);
}

/// Asserts that an answer is exactly the refusal of `outcome`.
#[track_caller]
pub fn assert_says(answer: &Answer, outcome: &str) {
    let (rep, status, token) = row(outcome);
    match answer {
        Answer::Socks4(raw) => {
            assert_eq!(raw[..2], [0, 0x5b], "{outcome}: SOCKS4 reply {raw:02x?}")
        }
        Answer::Socks5(reply) => {
            assert_eq!(reply.raw[..3], [5, rep, 0], "{outcome}: SOCKS5 reply {:02x?}", reply.raw);
        }
        Answer::Http(answer) => {
            let head = &answer.head;
            assert!(
                head.start.starts_with(&format!("HTTP/1.1 {status} ")),
                "{outcome}: {:?}",
                head.start
            );
            assert_eq!(
                head.get("proxy-status"),
                Some(format!("tailrace; error={token}").as_str()),
                "{outcome}"
            );
            assert_eq!(head.get("connection"), Some("close"), "{outcome}");
            let retry = (status == 503).then_some("1");
            assert_eq!(head.get("retry-after"), retry, "{outcome}: Retry-After");
            assert_body(&answer.json(), outcome);
        }
    }
}

#[track_caller]
fn assert_body(body: &serde_json::Value, outcome: &str) {
    assert_eq!(body["error"], outcome, "{body}");
    assert!(
        body["message"].as_str().is_some_and(|m| m.len() > 10),
        "a sentence a person can act on: {body}"
    );
    assert!(!body["id"].is_null(), "the id of the access line: {body}");
}
