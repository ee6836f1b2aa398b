//! Having tailscaled dial: what is asked of its LocalAPI, and what its answer means (tailscale,
//! ipn/localapi/localapi.go, `serveDial`).
//!
//! Pure: bytes in, values out.
#![forbid(unsafe_code)]

use std::fmt::Display;

use super::HOST;
use crate::http_client::response_head::{BodyFraming, ResponseHead, ResponseHeadError};

/// Most of a failure's text that is read.
pub const MAX_TEXT: usize = 4 * 1024;

/// Longest piece of tailscaled's own words that is passed on.
const MAX_WORDS: usize = 200;

/// What LocalAPI answers to a dial, as far as its head tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialAnswer {
    /// Connected: behind the head follow the far side's bytes.
    Connected,
    /// The target is none of the tailnet's (`Dial-Self: true`).
    OutsideTailnet,
    /// It could not connect; the reason follows in so many bytes, where that is known.
    Failed {
        /// `Content-Length`, at most [`MAX_TEXT`].
        length: Option<usize>,
    },
    /// No answer to a dial; what that status means.
    Unexpected(&'static str),
}

/// Why tailscaled could not connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialFailure {
    /// The far side refused.
    Refused,
    /// The far side did not answer.
    Expired,
    /// The host is not there.
    HostUnreachable,
    /// There is no route to that network.
    NoRoute,
    /// The name has no address; tailscaled's words.
    Unresolved(String),
    /// Something else; tailscaled's words.
    Other(String),
}

/// The request to dial `host`, a name or an address without brackets.
pub fn request(host: &impl Display, port: u16) -> Vec<u8> {
    format!(
        "POST /localapi/v0/dial HTTP/1.1\r\nHost: {HOST}\r\n\
         Connection: upgrade\r\nUpgrade: ts-dial\r\nDial-Host: {host}\r\nDial-Port: {port}\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The request for the state without its peers: answered only by a tailscaled that works.
pub fn status_request() -> Vec<u8> {
    format!("GET /localapi/v0/status?peers=false HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes()
}

/// Reads the head of the answer to a dial, and its length in bytes.
///
/// # Errors
/// [`ResponseHeadError`].
pub fn parse_answer(bytes: &[u8]) -> Result<(DialAnswer, usize), ResponseHeadError> {
    let head = parse_head(bytes)?;
    let is = |name: &str, value: &[u8]| {
        head.field(bytes, name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    let answer = match (head.status, head.framing) {
        (101, _) if is("upgrade", b"ts-dial") => DialAnswer::Connected,
        (200, _) if is("dial-self", b"true") => DialAnswer::OutsideTailnet,
        (502, BodyFraming::UntilClose) => DialAnswer::Failed { length: None },
        (502, BodyFraming::Length(length)) => {
            let length = usize::try_from(length).unwrap_or(MAX_TEXT).min(MAX_TEXT);
            DialAnswer::Failed { length: Some(length) }
        }
        (status, _) => DialAnswer::Unexpected(unexpected_status(status)),
    };
    Ok((answer, head.length))
}

/// Reads the head of the answer to [`status_request`]: a good one is enough. What is wrong with another.
///
/// # Errors
/// [`ResponseHeadError`].
pub fn parse_status_answer(bytes: &[u8]) -> Result<Result<(), &'static str>, ResponseHeadError> {
    Ok(match parse_head(bytes)?.status {
        200 => Ok(()),
        status => Err(unexpected_status(status)),
    })
}

/// tailscaled answers a request of HTTP/1.1 in HTTP/1.1, or it is another server.
fn parse_head(bytes: &[u8]) -> Result<ResponseHead, ResponseHeadError> {
    let head = ResponseHead::parse(bytes)?;
    if head.minor_version == 1 { Ok(head) } else { Err(ResponseHeadError::NotHttp) }
}

fn unexpected_status(status: u16) -> &'static str {
    match status {
        403 => "LocalAPI forbids it (403): see which user tailscaled lets in",
        404 => "its LocalAPI does not know the question (404): use a newer tailscaled",
        500..=599 => "its LocalAPI failed (5xx): see its own log",
        _ => "its LocalAPI answered with a status we do not know",
    }
}

/// What the text of a 502 says; the phrases are those of tailscaled's network stack (gVisor,
/// pkg/tcpip/errors.go).
pub fn parse_failure(text: &[u8]) -> DialFailure {
    let said = printable_line(text);
    if let Some(why) = said.strip_prefix("resolve failure:") {
        return DialFailure::Unresolved(why.trim().to_owned());
    }
    let says = |phrase| said.contains(phrase);
    if says("connection was refused") {
        DialFailure::Refused
    } else if says("operation timed out") {
        DialFailure::Expired
    } else if says("no route to host") {
        DialFailure::HostUnreachable
    } else if says("network is unreachable") {
        DialFailure::NoRoute
    } else {
        DialFailure::Other(said.trim_start_matches("dial failure:").trim().to_owned())
    }
}

fn printable_line(text: &[u8]) -> String {
    let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { ' ' };
    let line: String = text.iter().take(MAX_WORDS).map(printable).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
        Tailscale-Version: 1.98.9\r\nUpgrade: ts-dial\r\n\r\n";
    const SELF: &[u8] = b"HTTP/1.1 200 OK\r\nDial-Addr: 10.99.0.1:80\r\nDial-Self: true\r\n\
        Content-Length: 0\r\n\r\n";
    const FAILED: &[u8] =
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\
        X-Content-Type-Options: nosniff\r\nContent-Length: 59\r\n\r\n";

    #[test]
    fn the_three_answers_of_a_dial() {
        let early = [UPGRADED, b"SSH-2.0-x\r\n"].concat();
        assert_eq!(parse_answer(&early), Ok((DialAnswer::Connected, UPGRADED.len())));
        assert_eq!(parse_answer(SELF), Ok((DialAnswer::OutsideTailnet, SELF.len())));
        let failed = DialAnswer::Failed { length: Some(59) };
        assert_eq!(parse_answer(FAILED), Ok((failed, FAILED.len())));
        let endless = b"HTTP/1.1 502 Bad\r\nContent-Length: 99999999\r\n\r\n";
        let failed = DialAnswer::Failed { length: Some(MAX_TEXT) };
        assert_eq!(parse_answer(endless), Ok((failed, endless.len())));
        for end in 0..UPGRADED.len() {
            assert_eq!(parse_answer(&UPGRADED[..end]), Err(ResponseHeadError::Incomplete));
        }
    }

    #[test]
    fn u8_another_answer_is_none_of_a_dial() {
        for head in [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nDial-Self: false\r\n\r\n",
            "HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\n\r\n",
        ] {
            let (answer, _) = parse_answer(head.as_bytes()).unwrap();
            assert!(matches!(answer, DialAnswer::Unexpected(_)), "{head}: {answer:?}");
        }
        let old = parse_answer(b"HTTP/1.0 200 OK\r\nDial-Self: true\r\n\r\n");
        assert_eq!(old, Err(ResponseHeadError::NotHttp));
    }

    #[test]
    fn a_request_names_the_host_bare() {
        let ip: std::net::IpAddr = "fd7a::1".parse().unwrap();
        let said = String::from_utf8(request(&ip, 443)).unwrap();
        assert!(said.contains("\r\nDial-Host: fd7a::1\r\nDial-Port: 443\r\n"), "{said}");
        assert!(
            said.starts_with("POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\n")
        );
        assert!(said.ends_with("\r\n\r\n"));
    }

    #[test]
    fn texts_keep_their_meaning() {
        let dial = |why: &str| {
            parse_failure(format!("dial failure: connect tcp 100.64.0.1:9: {why}\n").as_bytes())
        };
        assert_eq!(dial("connection was refused"), DialFailure::Refused);
        assert_eq!(dial("operation timed out"), DialFailure::Expired);
        assert_eq!(dial("no route to host"), DialFailure::HostUnreachable);
        assert_eq!(dial("network is unreachable"), DialFailure::NoRoute);
        assert_eq!(dial("x\ny"), DialFailure::Other("connect tcp 100.64.0.1:9: x y".into()));
        let name = parse_failure(b"resolve failure: lookup a.b: no such host\n");
        assert_eq!(name, DialFailure::Unresolved("lookup a.b: no such host".into()));
        let long = parse_failure(&[b'a'; 5_000]);
        assert_eq!(long, DialFailure::Other("a".repeat(MAX_WORDS)));
    }
}
