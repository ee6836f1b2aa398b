//! What everyday clients send, by those clients themselves, and the same bytes through Squid and tinyproxy as
//! witnesses of what is usual. Every case of it byte by byte: `tests/client_input/lenient_http.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "http_clients/other_proxies.rs"]
mod other_proxies;
#[path = "http_clients/programs.rs"]
mod programs;

use std::process::Command;

use tailrace_rig::{HttpOrigin, HttpRequest, skip};

/// Whether this program can be started; if not, the test is skipped by name.
#[track_caller]
fn there(program: &str, ask: &str, package: &str) -> bool {
    let there = Command::new(program).arg(ask).output().is_ok();
    if !there {
        skip(&format!("needs {program} (Debian: {package})"));
    }
    there
}

/// What a proxy made of a request, as far as proxies agree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    line: String,
    authorization: Option<String>,
}

impl Made {
    /// Of bytes that are no text each is a character.
    fn of(request: &HttpRequest) -> Made {
        let raw = &request.head.raw;
        assert!(request.head.all("authorization").len() < 2, "{}", raw.escape_ascii());
        let end = raw.windows(2).position(|end| end == b"\r\n").unwrap();
        Made {
            line: raw[..end].iter().map(|byte| char::from(*byte)).collect(),
            authorization: request.head.get("authorization").map(str::to_owned),
        }
    }

    fn last(origin: &HttpOrigin) -> Made {
        Made::of(origin.requests().last().unwrap())
    }
}
