//! tailscaled's LocalAPI, as far as logging a node in takes: HTTP over its Unix socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::{PATIENCE, wait_for};

/// Logs the node behind `socket` in with `key` and waits until it is Running. The key travels in
/// the body of `start` only.
pub fn login(socket: &Path, key: &str, prefs: &Value) {
    wait_for("tailscaled's socket", || UnixStream::connect(socket).ok());
    post(socket, "start", &json!({"AuthKey": key, "UpdatePrefs": prefs}));
    post(socket, "login-interactive", &Value::Null);
    wait_for("the state Running", || {
        let status = status(socket);
        (status["BackendState"] == "Running").then_some(())
    });
}

/// `ipnstate.Status`.
pub fn status(socket: &Path) -> Value {
    let (code, body) = exchange(socket, "GET", "status", "");
    assert_eq!(code, 200, "LocalAPI status: {body}");
    serde_json::from_str(&body).expect("LocalAPI status is JSON")
}

fn post(socket: &Path, name: &str, body: &Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (code, answer) = exchange(socket, "POST", name, &body);
    assert_eq!(code, 204, "LocalAPI {name}: {answer}");
}

/// One exchange. HTTP/1.0: the answer is neither chunked nor followed by another.
fn exchange(socket: &Path, method: &str, name: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("tailscaled's socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let request = format!(
        "{method} /localapi/v0/{name} HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("LocalAPI");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("LocalAPI");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).expect("an HTTP status");
    (code, body.to_owned())
}
