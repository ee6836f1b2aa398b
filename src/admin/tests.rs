//! The admin listener over real sockets: what it serves, whom it refuses, what it bounds.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Explaining, Readiness, View};
use crate::api::{ConnectionAnswer, ExplainAnswer, StatusAnswer, samples};
use crate::labels::ReadinessPart;

struct Fixed;

impl View for Fixed {
    fn metrics(&self) -> String {
        "one 1\n".to_owned()
    }

    fn readiness(&self) -> Readiness {
        Readiness::NotReady {
            error: "auth_failed",
            message: "the key has expired".to_owned(),
            pending: vec![ReadinessPart::Tailnet],
        }
    }

    fn status(&self, peers: bool) -> StatusAnswer {
        let mut status = samples::status();
        if let (false, Some(tailnet)) = (peers, &mut status.tailnet) {
            tailnet.peers = None;
        }
        status
    }

    fn explain(&self, target: &str) -> Explaining {
        let target = target.to_owned();
        Box::pin(async move {
            tokio::task::yield_now().await;
            if target == "bad" {
                Err("no such host".to_owned())
            } else {
                Ok(ExplainAnswer { target, ..samples::explanation() })
            }
        })
    }

    fn connections(&self) -> Vec<ConnectionAnswer> {
        Vec::new()
    }

    fn tick(&self) {}
}

fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    super::serve(listener, Vec::new(), Arc::new(Fixed)).unwrap();
    address
}

/// What comes back for these bytes, up to FIN.
fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    say(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

#[test]
fn a7_a_megabyte_of_head_is_431_and_the_answer_arrives() {
    let address = start();
    let field =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(say(address, field.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = "X: y\r\n".repeat(101);
    let many = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    assert!(say(address, many.as_bytes()).starts_with("HTTP/1.1 431 "));
}

#[test]
fn a8_other_paths_are_404() {
    let address = start();
    let long = format!("/{}", "a".repeat(15_000));
    for path in [
        "/",
        "/../",
        "//",
        "//metrics",
        "/metrics/",
        "/%2e",
        "/%6detrics",
        "/METRICS",
        "/./metrics",
        &long,
    ] {
        assert!(get(address, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert!(get(address, "/metrics?name=one").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a2_every_other_method_is_405_and_head_has_no_body() {
    let address = start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "RELOAD", "get"] {
        let answer = say(
            address,
            format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
        );
        assert!(
            answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"),
            "{answer}"
        );
    }
    let connect = say(address, b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(connect.starts_with("HTTP/1.1 405 "), "{connect}");
    let head = say(address, b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn readiness_says_what_is_missing() {
    let answer = get(start(), "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let said =
        json!({"error": "auth_failed", "message": "the key has expired", "pending": ["tailnet"]});
    assert_eq!(body(&answer), said);
}

#[test]
fn the_api_knows_its_parameters_and_no_others() {
    let address = start();
    let ok = |path: &str| {
        let answer = get(address, path);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        body(&answer)
    };
    assert!(ok("/api/v1/status")["tailnet"]["peers"].is_null());
    assert!(ok("/api/v1/status?peers=true")["tailnet"]["peers"].is_array());
    assert_eq!(ok("/api/v1/explain?target=a.example%3A443")["target"], "a.example:443");
    for path in [
        "/api/v1/status?peers=yes",
        "/api/v1/status?peer=true",
        "/api/v1/connections?a",
        "/api/v1/explain",
        "/api/v1/explain?target=bad",
        "/api/v1/explain?target=%zz",
        "/api/v1/explain?target=a&json=1",
    ] {
        let answer = get(address, path);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        let said = body(&answer);
        assert!(said["error"] == "bad_request" && said["message"].is_string(), "{path}: {said}");
    }
    assert!(get(address, "/api/v1/explain/?target=a").starts_with("HTTP/1.1 404 "));
    let head = say(address, b"HEAD /api/v1/explain?target=a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}
