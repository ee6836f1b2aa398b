//! Through the gateway as any client: CONNECT to its proxy port, under the label `doctor`.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::find;
use crate::target::Target;

/// For a name to be found and a far side to answer, with the longest of the default limits.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer's head, and of a refusal as a whole.
const MAX_ANSWER: usize = 16 << 10;
/// `doctor:`, in base64 (RFC 7617): the user name labels the access line.
const LABEL: &str = "ZG9jdG9yOg==";

/// A tunnel to the target.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) stream: TcpStream,
    /// What the far side said before anything was said to it.
    pub(super) early: Vec<u8>,
    /// From asking to the answer.
    pub(super) took: Duration,
}

/// Why there is none: the gateway's outcome and sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: String,
    pub(super) message: String,
}

/// Asks the proxy for a tunnel.
pub(super) fn connect(proxy: SocketAddr, target: &Target) -> Result<Open, Refusal> {
    ask(proxy, target).unwrap_or_else(|error| {
        let message = format!("the proxy at {proxy} does not answer ({error}): see listen.proxy");
        Err(Refusal { error: "no_proxy".to_owned(), message })
    })
}

fn ask(proxy: SocketAddr, target: &Target) -> io::Result<Result<Open, Refusal>> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {LABEL}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut said = Vec::new();
    while !said.windows(4).any(|four| four == b"\r\n\r\n") {
        more(&mut stream, &mut said)?;
    }
    let took = started.elapsed();
    if said.starts_with(b"HTTP/1.1 200 ") {
        let end = said.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        return Ok(Ok(Open { stream, early: said.split_off(end), took }));
    }
    let room = MAX_ANSWER.saturating_sub(said.len()) as u64;
    stream.take(room).read_to_end(&mut said)?;
    Ok(Err(refusal(&said)))
}

fn more(stream: &mut TcpStream, said: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 1024];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if said.len() > MAX_ANSWER => Err(io::ErrorKind::InvalidData.into()),
        length => {
            said.extend_from_slice(&piece[..length]);
            Ok(())
        }
    }
}

fn refusal(said: &[u8]) -> Refusal {
    let body = find::parse(said).map(|answer| answer.body).unwrap_or_default();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let part = |name: &str, otherwise: &str| body[name].as_str().unwrap_or(otherwise).to_owned();
    Refusal {
        error: part("error", "unknown"),
        message: part("message", "the proxy gave no reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why() {
        let body = r#"{"error":"refused","message":"nobody listens: see there","id":"1"}"#;
        let said = format!("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n{body}\n");
        let Refusal { error, message } = refusal(said.as_bytes());
        assert_eq!([error.as_str(), message.as_str()], ["refused", "nobody listens: see there"]);
        assert_eq!(refusal(b"HTTP/1.1 407 No\r\n\r\n").error, "unknown");
    }
}
