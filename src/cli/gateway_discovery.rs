//! How a command finds the running gateway, and asks its admin listener.
//!
//! `run_dir/gateway.json` first, then the settings' own addresses.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::args::Settings;
use super::{exit, line_output};
use crate::api::{ErrorAnswer, StatusAnswer};
use crate::config::{self, GatewayLocation, Loaded, Problems, ProcessEnvironment, SettingFlag};
use crate::http_client::response_head::ResponseHead;
use crate::lifecycle::run_dir::{self, Listening};

/// For one question to the admin listener, which ends each within ten seconds.
const PATIENCE: Duration = Duration::from_secs(11);
/// More than any answer but `/metrics` of a busy gateway.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Where the gateway is, or would be.
pub(super) type Found = Listening;

/// The sources of one command's settings.
pub(super) struct Given {
    file: Option<PathBuf>,
    flags: Vec<SettingFlag>,
    environment: ProcessEnvironment,
}

impl Given {
    pub(super) fn new(settings: &Settings) -> Self {
        let flags = settings.set.iter().map(|text| SettingFlag::from_assignment(text)).collect();
        let environment = ProcessEnvironment::of_process();
        Self { file: settings.config.clone(), flags, environment }
    }

    /// The settings, or everything that is wrong with them.
    pub(super) fn load(&self) -> Result<Loaded, Problems> {
        config::load(self.file.as_deref(), &self.environment, &self.flags)
    }

    /// What finding a gateway needs, though the rest may be wrong or missing.
    fn whereabouts(&self) -> Result<GatewayLocation, Problems> {
        let (written, _) = config::read(self.file.as_deref(), &self.environment, &self.flags);
        config::gateway_location(&written, &self.environment)
    }
}

/// Says everything that is wrong with the settings, and how a command ends then.
pub(super) fn misconfigured(problems: &Problems) -> ExitCode {
    line_output::error(problems);
    ExitCode::from(exit::CONFIG)
}

/// Finds the gateway: what it published, else where the settings put it.
pub(super) fn gateway(settings: &Settings) -> Result<Found, Problems> {
    let asked = Given::new(settings).whereabouts()?;
    Ok(published(&asked).unwrap_or_else(|| set(asked)))
}

/// The same with every address as bound: a command of another user cannot read what was published, and
/// asks the gateway at the address of the settings.
pub(super) fn listening(settings: &Settings) -> Result<Found, Problems> {
    let asked = Given::new(settings).whereabouts()?;
    Ok(published(&asked).unwrap_or_else(|| {
        let found = set(asked);
        match object::<StatusAnswer>(&found, "/api/v1/status") {
            Ok(status) => status.listeners,
            Err(_) => found,
        }
    }))
}

fn published(asked: &GatewayLocation) -> Option<Found> {
    run_dir::read(&asked.run_dir).map(|published| published.listening)
}

fn set(asked: GatewayLocation) -> Found {
    let GatewayLocation { proxy, admin, forwards, dns, .. } = asked;
    Found { proxy, tproxy: Vec::new(), admin, forward: forwards, dns: None, dns_clients: dns }
}

/// An answer of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks the admin listener one question.
///
/// # Errors
/// No gateway there, none that answers in time, or one that speaks no HTTP.
pub(super) fn get(admin: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

/// Why the gateway gave no object.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// There is none, or none that can be understood: why.
    Nobody(String),
    /// It does not take the question: its own sentence.
    Refused(String),
}

/// Asks the admin listener one question of its API.
pub(super) fn object<T: DeserializeOwned>(found: &Found, path: &str) -> Result<T, Unanswered> {
    let answer = get(found.admin, path).map_err(|error| Unanswered::Nobody(error.to_string()))?;
    match answer.status {
        200 => serde_json::from_str(&answer.body).map_err(|error| {
            Unanswered::Nobody(format!("its answer is none of this version's ({error})"))
        }),
        400 => Err(match serde_json::from_str(&answer.body) {
            Ok(ErrorAnswer { message, .. }) => Unanswered::Refused(message),
            Err(_) => Unanswered::Nobody("it answered 400".to_owned()),
        }),
        status => Err(Unanswered::Nobody(format!("it answered {status}"))),
    }
}

/// Says why the gateway gave no object, and how a command ends then.
pub(super) fn unanswered(found: &Found, why: &Unanswered) -> ExitCode {
    match why {
        Unanswered::Nobody(why) => {
            line_output::error(format_args!(
                "tailrace: no gateway answers at {}: {why}; start one with `tailrace up`, or name its settings with --config",
                found.admin
            ));
            ExitCode::from(exit::NO_GATEWAY)
        }
        Unanswered::Refused(message) => {
            line_output::error(format_args!("tailrace: {}", super::display_text::plain(message)));
            ExitCode::from(exit::USAGE)
        }
    }
}

/// `text` as a value in a query (RFC 3986 section 2.3: what is unreserved stays).
pub(super) fn in_a_query(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match unreserved(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Reads an HTTP answer that has come to its end.
pub(super) fn parse(text: &[u8]) -> Option<Answer> {
    let head = ResponseHead::parse(text).ok()?;
    let body = std::str::from_utf8(&text[head.length..]).ok()?;
    Some(Answer { status: head.status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_strangers_are_not() {
        let answer = parse(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "{}"));
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n\r\n"), None);
    }

    #[test]
    fn a_target_arrives_whole() {
        assert_eq!(in_a_query("db.corp.example:5432"), "db.corp.example%3A5432");
        assert_eq!(in_a_query("[::1]&x=ü"), "%5B%3A%3A1%5D%26x%3D%C3%BC");
    }
}
