//! The only bytes the gateway itself says to a client, each from the table in `outcome.rs`.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::outcome::Outcome;
use crate::sys::Stream;

/// What a client still sends after a refusal is read away up to this, so that it can read the
/// refusal: unread bytes would turn our close into a reset (docs/requirements.md, C17).
const DRAIN_BYTES: usize = 64 * 1024;
/// And for this long.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// In which words a client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyProtocol {
    /// A SOCKS4 reply.
    Socks4,
    /// A SOCKS5 reply.
    Socks5,
    /// An HTTP response.
    Http,
    /// Nothing can be said (redirected connections, static forwards): a refusal is a reset.
    Opaque,
    /// In the place of an HTTP origin (redirected connections): only a refusal is said.
    InPlace,
}

impl ReplyProtocol {
    /// What says "the far side is there"; `bound` is the far end's local address where known.
    pub fn success_bytes(self, bound: Option<SocketAddr>) -> Bytes {
        match self {
            Self::Socks4 => Bytes::from_static(&[0, 0x5a, 0, 0, 0, 0, 0, 0]),
            Self::Socks5 => socks5_reply(0x00, bound),
            Self::Http => Bytes::from_static(b"HTTP/1.1 200 Connection established\r\n\r\n"),
            Self::Opaque | Self::InPlace => Bytes::new(),
        }
    }

    /// What says no; empty where the outcome has no words on this wire.
    pub fn failure_bytes(self, outcome: Outcome, message: &str, id: &str) -> Bytes {
        let row = outcome.row();
        match self {
            Self::Socks4 => row.socks4.map_or_else(Bytes::new, |code| {
                Bytes::copy_from_slice(&[0, code, 0, 0, 0, 0, 0, 0])
            }),
            Self::Socks5 => row.socks5.map_or_else(Bytes::new, |code| socks5_reply(code, None)),
            Self::Http | Self::InPlace => http_refusal(outcome, message, id),
            Self::Opaque => Bytes::new(),
        }
    }
}

/// A SOCKS5 reply (RFC 1928 section 6).
fn socks5_reply(code: u8, bound: Option<SocketAddr>) -> Bytes {
    let mut reply = Vec::with_capacity(22);
    reply.extend_from_slice(&[0x05, code, 0x00]);
    let bound = bound.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    match bound.ip() {
        IpAddr::V4(ip) => {
            reply.push(0x01);
            reply.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            reply.push(0x04);
            reply.extend_from_slice(&ip.octets());
        }
    }
    reply.extend_from_slice(&bound.port().to_be_bytes());
    reply.into()
}

/// An HTTP refusal: status, `Proxy-Status` and a JSON body (docs/requirements.md, Outcomes).
fn http_refusal(outcome: Outcome, message: &str, id: &str) -> Bytes {
    let row = outcome.row();
    let (Some(status), Some(token)) = (row.http, row.token) else { return Bytes::new() };
    let body = serde_json::json!({ "error": row.label, "message": message, "id": id }).to_string();
    let mut text = format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status));
    let written = write!(
        text,
        "Content-Type: application/json\r\nContent-Length: {}\r\nProxy-Status: tailrace; error={token}\r\n",
        body.len(),
    );
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    if let Some(seconds) = outcome.retry_after() {
        text.push_str(&format!("Retry-After: {seconds}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    text.push_str(&body);
    text.into()
}

/// The phrases of RFC 9110 section 15 for the statuses of the table.
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        508 => "Loop Detected",
        _ => "Error",
    }
}

/// Says the last words and ends the connection so that the client can read them: FIN, then what it
/// still sends is read away, up to 64 KiB and one second.
pub async fn say_and_close(stream: &Stream, words: &[u8]) {
    let spoken = async {
        if !words.is_empty() && stream.write_all(words).await.is_err() {
            return;
        }
        if stream.shutdown_write().is_err() {
            return;
        }
        let mut scratch = [0; 2048];
        let mut drained = 0;
        while drained < DRAIN_BYTES {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(n) => drained += n,
            }
        }
    };
    // Late or not, the connection ends now.
    drop(tokio::time::timeout(DRAIN_TIME, spoken).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_said_as_the_table_has_it() {
        for outcome in Outcome::ALL {
            let row = outcome.row();
            let five = ReplyProtocol::Socks5.failure_bytes(outcome, "m", "i");
            assert_eq!(five.get(1).copied(), row.socks5, "{outcome:?}");
            let four = ReplyProtocol::Socks4.failure_bytes(outcome, "m", "i");
            assert_eq!(four.get(1).copied(), row.socks4, "{outcome:?}");
            let http = ReplyProtocol::Http.failure_bytes(outcome, "m", "i");
            if let (Some(status), Some(token)) = (row.http, row.token) {
                let text = String::from_utf8(http.to_vec()).unwrap();
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
                assert!(text.contains(&format!("Proxy-Status: tailrace; error={token}\r\n")));
                assert!(text.contains("Connection: close\r\n"));
                assert_eq!(text.contains("Retry-After: 1\r\n"), status == 503);
            }
        }
    }

    #[test]
    fn a_message_cannot_break_the_body() {
        let text = ReplyProtocol::Http.failure_bytes(Outcome::BadRequest, "a\"\r\n\u{1b}", "7");
        let text = String::from_utf8(text.to_vec()).unwrap();
        let body = text.split("\r\n\r\n").nth(1).unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["message"], "a\"\r\n\u{1b}");
    }

    #[test]
    fn p18_success_has_no_body_fields() {
        let text = ReplyProtocol::Http.success_bytes(None);
        assert_eq!(&text[..], b"HTTP/1.1 200 Connection established\r\n\r\n");
        let bound = ReplyProtocol::Socks5.success_bytes(Some("[::1]:1".parse().unwrap()));
        assert_eq!(bound.len(), 22);
    }
}
