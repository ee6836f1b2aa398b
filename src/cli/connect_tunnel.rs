//! Through the gateway as any client: CONNECT to its proxy port, which says in words why it refuses.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::gateway_discovery;
use crate::api::ErrorAnswer;
use crate::http_client::response_head::{ResponseHead, ResponseHeadError};
use crate::outcome::Outcome;
use crate::target::Target;

/// For the proxy itself, which is on this host or near, to take a connection.
const NEAR: Duration = Duration::from_secs(10);
/// Bytes of a refusal, its head and what it says.
const MAX_ANSWER: usize = 16 << 10;

/// A tunnel to the target.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) stream: TcpStream,
    /// What the far side said before anything was said to it.
    pub(super) early: Vec<u8>,
    /// From asking to the answer.
    pub(super) took: Duration,
}

/// Why there is none: the gateway's sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// How the target ended; `None` where no gateway said it.
    pub(super) outcome: Option<Outcome>,
    pub(super) message: String,
}

impl Refusal {
    /// The outcome's name, for people.
    pub(super) fn error(&self) -> &'static str {
        self.outcome.map_or("unknown", Outcome::label)
    }
}

/// Asks the proxy for a tunnel. The answer may take `patience`; none: as long as the gateway's own
/// limits let it. The `label` names the work in the access line.
///
/// # Errors
/// There is no gateway, or none that answers as one.
pub(super) fn open(
    proxy: SocketAddr,
    target: &Target,
    label: Option<&str>,
    patience: Option<Duration>,
) -> io::Result<Result<Open, Refusal>> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&proxy, NEAR)?;
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(label) = label {
        // A user name without a password (RFC 7617).
        let credentials = STANDARD.encode(format!("{label}:"));
        head += &format!("Proxy-Authorization: Basic {credentials}\r\n");
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    let mut said = Vec::new();
    let head = loop {
        match ResponseHead::parse(&said) {
            Ok(head) => break head,
            Err(ResponseHeadError::Incomplete) => more(&mut stream, &mut said)?,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    };
    let took = started.elapsed();
    if head.status == 200 {
        return Ok(Ok(Open { stream, early: said.split_off(head.length), took }));
    }
    let room = MAX_ANSWER.saturating_sub(said.len()) as u64;
    (&mut stream).take(room).read_to_end(&mut said)?;
    Ok(Err(refusal(&said)))
}

fn more(stream: &mut TcpStream, said: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 1024];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            said.extend_from_slice(&piece[..length]);
            Ok(())
        }
    }
}

fn refusal(said: &[u8]) -> Refusal {
    let body = gateway_discovery::parse(said).map(|answer| answer.body).unwrap_or_default();
    match serde_json::from_str(&body) {
        Ok(ErrorAnswer { error, message }) => {
            Refusal { outcome: Outcome::of_label(&error), message }
        }
        Err(_) => Refusal { outcome: None, message: "the proxy gave no reason".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why() {
        let body = r#"{"error":"refused","message":"nobody listens: see there","id":"1"}"#;
        let said = format!("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n{body}\n");
        let refused = refusal(said.as_bytes());
        assert_eq!(refused.outcome, Some(Outcome::Refused));
        assert_eq!([refused.error(), &refused.message], ["refused", "nobody listens: see there"]);
        assert_eq!(refusal(b"HTTP/1.1 407 No\r\n\r\n").error(), "unknown");
    }
}
