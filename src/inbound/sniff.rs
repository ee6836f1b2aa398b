//! What a client that was told of no proxy says first, and the name in it: TLS, HTTP or neither. Parses only.
#![forbid(unsafe_code)]

use super::client_hello::{self, ClientHello, ServerName};
use super::head::{self, MessageHead, MessageKind};
use super::parse::Parsed;
use crate::target::{Host, Target};

/// Most bytes looked at.
pub const MOST: usize = client_hello::MAX_HELLO;

/// The meaning of a client's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SniffedProtocol {
    /// Nothing yet, or the beginning of a line; more bytes may tell.
    Incomplete,
    /// The beginning of TLS, or of what may be it; more bytes tell.
    IncompleteHello,
    /// A ClientHello.
    Tls(ServerName),
    /// A whole HTTP/1 request head, and the one host it names.
    Http(Option<Host>),
    /// An HTTP request as only a proxy is sent them, `GET http://…` or `CONNECT host:port`: whoever takes
    /// it where it goes would be led on to a target that nobody judged (docs/requirements.md, B19).
    ForProxy,
    /// Nothing that names a host.
    Opaque,
}

/// Reads what has come so far.
pub fn sniff(bytes: &[u8]) -> SniffedProtocol {
    match client_hello::parse_client_hello(bytes) {
        ClientHello::Tls(name) => SniffedProtocol::Tls(name),
        ClientHello::Incomplete if bytes.is_empty() => SniffedProtocol::Incomplete,
        ClientHello::Incomplete => SniffedProtocol::IncompleteHello,
        ClientHello::NotTls => sniff_http(bytes),
    }
}

fn sniff_http(bytes: &[u8]) -> SniffedProtocol {
    match request_target(bytes) {
        RequestLine::Incomplete if bytes.len() < MOST => return SniffedProtocol::Incomplete,
        RequestLine::Incomplete | RequestLine::Other => return SniffedProtocol::Opaque,
        RequestLine::Target([b'/', ..] | b"*") => {}
        RequestLine::Target(_) => return SniffedProtocol::ForProxy,
    }
    match head::parse_head(bytes, MessageKind::Request, MOST) {
        Ok(Parsed::Incomplete) => SniffedProtocol::Incomplete,
        Ok(Parsed::Whole { value, .. }) => SniffedProtocol::Http(host_field(&value)),
        // Another HTTP than 1, or one that can be read in two ways: it names nobody.
        Err(_) => SniffedProtocol::Opaque,
    }
}

/// The host of the one Host field. Its port means nothing: the connection has one already.
fn host_field(head: &MessageHead) -> Option<Host> {
    let mut values = head.values("host");
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let any_port = Some(std::num::NonZeroU16::MIN);
    Target::parse_authority(value, any_port).ok().map(|target| target.host)
}

/// What a first line is.
enum RequestLine<'a> {
    Incomplete,
    Target(&'a [u8]),
    Other,
}

/// The target of a request line. Looser than [`head::parse_head`]: what a lenient server takes for a request
/// counts as one, empty lines before it, many spaces and a bare LF included.
fn request_target(bytes: &[u8]) -> RequestLine<'_> {
    let lines = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let Some((method, rest)) = next_word(&bytes[lines..], head::is_token) else {
        return RequestLine::Other;
    };
    if rest.is_empty() {
        return RequestLine::Incomplete;
    }
    if method.is_empty() {
        return RequestLine::Other;
    }
    let Some((target, rest)) = next_word(after_spaces(rest), |byte| byte > b' ') else {
        return RequestLine::Other;
    };
    let version = after_spaces(rest);
    let whole = version.len() >= VERSION.len();
    match version.iter().zip(VERSION).all(|(got, want)| got.eq_ignore_ascii_case(want)) {
        false => RequestLine::Other,
        true if whole => RequestLine::Target(target),
        true => RequestLine::Incomplete,
    }
}

const VERSION: &[u8] = b"HTTP/";

fn after_spaces(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..]
}

/// Splits before the first byte that is none of a word's; `None` unless that is a space.
fn next_word(bytes: &[u8], of_word: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| !of_word(*byte)).unwrap_or(bytes.len());
    let (word, rest) = bytes.split_at(end);
    matches!(rest.first(), None | Some(b' ' | b'\t')).then_some((word, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> SniffedProtocol {
        SniffedProtocol::Http(Some(Host::parse(name.as_bytes()).unwrap()))
    }

    #[test]
    fn a_request_names_its_host() {
        let request =
            |line: &str, fields: &str| sniff(format!("{line}\r\n{fields}\r\n").as_bytes());
        let get = "GET /x?y HTTP/1.1";
        assert_eq!(request(get, "Host: DB.corp.example\r\n"), named("db.corp.example"));
        assert_eq!(request(get, "A: b\r\nhost: db.corp.example:81\r\n"), named("db.corp.example"));
        assert_eq!(request(get, "Host: [fd00::7]\r\n"), named("fd00::7"));
        assert_eq!(request("OPTIONS * HTTP/1.1", "Host: a.b\r\n"), named("a.b"));
        for fields in ["", "Host:\r\n", "Host: a\r\nHost: a\r\n", "Host: u@a\r\n", "Host: a b\r\n"]
        {
            assert_eq!(request(get, fields), SniffedProtocol::Http(None), "{fields:?}");
        }
    }

    #[test]
    fn b19_only_a_proxy_is_sent_these() {
        for text in [
            "GET http://evil/ HTTP/1.1\r\n",
            "GET http://evil/ HTTP/",
            "CONNECT evil:443 HTTP/1.1\r\n",
            "\r\n\nGET  \thttp://evil/   HTTP/1.1\n",
            "get HTTP://evil/ http/1.1",
            "GET evil HTTP/1.1",
        ] {
            assert_eq!(sniff(text.as_bytes()), SniffedProtocol::ForProxy, "{text:?}");
        }
    }

    #[test]
    fn other_protocols_are_left_alone() {
        for bytes in [
            &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
            b"PING\r\n",
            b"get key\r\n",
            b"CONNECT {\"verbose\":false}\r\n",
            b"INVITE sip:a@b SIP/2.0\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f", // PostgreSQL's SSLRequest
            b"\x10\x0c\x00\x04MQTT",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b" GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(
                sniff(bytes),
                SniffedProtocol::Opaque,
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn every_prefix_of_a_request_waits_for_more() {
        let whole = b"GET / HTTP/1.1\r\nHost: db.corp.example\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(sniff(&whole[..end]), SniffedProtocol::Incomplete, "{end}");
        }
        assert_eq!(sniff(whole), named("db.corp.example"));
    }

    #[test]
    fn what_never_ends_is_given_up() {
        assert_eq!(sniff(&[b'A'; MOST]), SniffedProtocol::Opaque);
        let endless = [&b"GET / HTTP/1.1\r\nA: "[..], &[b'a'; MOST]].concat();
        assert_eq!(sniff(&endless), SniffedProtocol::Opaque);
    }
}
