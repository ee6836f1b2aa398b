//! An absolute-form request becomes the origin-form request its origin gets. Parses only.
//!
//! Policy reads the request-target, so the Host field is written from it (RFC 9112 section 3.2.2);
//! hop-by-hop fields stay here (RFC 9110 section 7.6.1).
#![forbid(unsafe_code)]

use std::num::NonZeroU16;

use bytes::Bytes;

use super::super::connect::{basic_user, host_differs};
use super::super::framing::{self, MessageFraming, list_members};
use super::super::head::{HttpVersion, MessageHead, parse_version, redact_target};
use super::super::label::Label;
use super::super::parse::ParseError;
use super::credentials::UrlCredentials;
use super::upgrade::UpgradeProtocols;
use crate::target::Target;

/// The port of `http` (RFC 9110 section 4.2.1).
const HTTP: NonZeroU16 = NonZeroU16::new(80).unwrap();

/// Fields that end at this hop, whatever `Connection` says.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "proxy-connection", "keep-alive", "te", "upgrade", "proxy-authorization"];
/// Fields `Connection` must not take away: framing and routing hang on them (P27).
const KEPT: [&str; 4] = ["host", "content-length", "transfer-encoding", "trailer"];
/// Fields no trailer may carry (RFC 9110 section 6.5.1): framing, routing, authentication.
const NO_TRAILER: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "trailer",
    "te",
    "connection",
    "authorization",
    "proxy-authorization",
    "content-encoding",
    "content-type",
    "content-range",
    "set-cookie",
];

/// One request to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRequest {
    /// Where to.
    pub target: Target,
    /// The user name of `Proxy-Authorization`.
    pub label: Option<Label>,
    /// The Host field named somebody else.
    pub host_mismatch: bool,
    /// The head for the origin.
    pub head: Bytes,
    /// How the body ends.
    pub body: MessageFraming,
    /// The protocols the client would rather speak, once the origin has switched to one of them.
    pub upgrade: UpgradeProtocols,
    /// The client may send another request afterwards.
    pub keep_alive: bool,
    /// A HEAD request: its answer has no body.
    pub is_head: bool,
    /// The client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// An HTTP/1.0 client: it knows neither chunks nor interim answers.
    pub http10: bool,
}

/// Reads a request head in absolute form.
///
/// # Errors
/// [`ParseError`] for any other form, ambiguous framing or a field `Connection` must not name.
pub fn parse_forward_request(head: &MessageHead) -> Result<ForwardRequest, ParseError> {
    let version = parse_version(head.third())?;
    let AbsoluteTarget { target, credentials, path } = parse_absolute_form(head.second())?;
    let host_mismatch = host_differs(head, &target, false)?;
    let body = framing::of_request(head, version)?;
    let named = connection_tokens(head)?;
    let asked = version == HttpVersion::Http11
        && body == MessageFraming::None
        && named.iter().any(|name| name == "upgrade");
    let upgrade =
        if asked { UpgradeProtocols::requested_in(head) } else { UpgradeProtocols::default() };
    let keep_alive = version == HttpVersion::Http11 && !named.iter().any(|name| name == "close");
    let first = StartLine { method: head.first(), path, version: head.third() };
    let own = GatewayFields { target: &target, credentials, upgrade: &upgrade };
    Ok(ForwardRequest {
        label: basic_user(head),
        host_mismatch,
        head: origin_form(head, &first, &own, &named),
        body,
        upgrade,
        keep_alive,
        is_head: head.first() == b"HEAD",
        expects_continue: head.values("expect").any(|e| e.eq_ignore_ascii_case(b"100-continue")),
        http10: version == HttpVersion::Http10,
        target,
    })
}

/// A request target in absolute form (RFC 9112 section 3.2.2), taken apart.
struct AbsoluteTarget<'a> {
    target: Target,
    /// Those before the host, if any.
    credentials: Option<UrlCredentials<'a>>,
    /// Path and query as they stand, each perhaps empty.
    path: &'a [u8],
}

/// Splits `http://[userinfo@]host[:port][/path][?query][#fragment]` as RFC 3986 does: the authority ends with
/// the first `/`, `?` or `#`, and its host begins behind the last `@`. What others take for an end of the
/// authority (a backslash) or would write in another way (bytes beyond ASCII) is none of an authority's.
fn parse_absolute_form(text: &[u8]) -> Result<AbsoluteTarget<'_>, ParseError> {
    let rest = match text.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") => rest,
        _ if text.get(..8).is_some_and(|t| t.eq_ignore_ascii_case(b"https://")) => {
            return Err(ParseError::bad_request(
                "https goes through CONNECT: set HTTPS_PROXY, not a forward",
            ));
        }
        _ => {
            let text = redact_target(text);
            return Err(ParseError::bad_request(format!(
                "{text} is not http://host/…: this is a proxy, give the whole address"
            )));
        }
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.iter().any(|b| *b == b'\\' || !b.is_ascii()) {
        let text = redact_target(text);
        return Err(ParseError::bad_request(format!(
            "{text} has a backslash or a byte beyond ASCII before its path: write it as %5C, as xn--"
        )));
    }
    let (credentials, host) = match memchr::memrchr(b'@', authority) {
        Some(at) => (UrlCredentials::new(&authority[..at]), &authority[at + 1..]),
        None => (None, authority),
    };
    let target = Target::parse_authority(host, Some(HTTP))?;
    // A fragment is the client's own (RFC 9110 section 7.1).
    let path = &path[..memchr::memchr(b'#', path).unwrap_or(path.len())];
    Ok(AbsoluteTarget { target, credentials, path })
}

/// The field names `Connection` lists, in lower case.
fn connection_tokens(head: &MessageHead) -> Result<Vec<String>, ParseError> {
    let lists = head.values("connection").chain(head.values("proxy-connection"));
    let tokens: Vec<String> = lists
        .flat_map(|list| list.split(|b| *b == b','))
        .map(|token| String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase())
        .filter(|token| !token.is_empty())
        .collect();
    match tokens.iter().find(|token| KEPT.contains(&token.as_str())) {
        Some(token) => {
            Err(ParseError::bad_request(format!("Connection names {token}: leave it out")))
        }
        None => Ok(tokens),
    }
}

struct StartLine<'a> {
    method: &'a [u8],
    path: &'a [u8],
    version: &'a [u8],
}

/// What of the fields is written by us.
struct GatewayFields<'a> {
    target: &'a Target,
    credentials: Option<UrlCredentials<'a>>,
    upgrade: &'a UpgradeProtocols,
}

fn origin_form(
    head: &MessageHead,
    start: &StartLine<'_>,
    own: &GatewayFields<'_>,
    named: &[String],
) -> Bytes {
    let host = own.target.to_string();
    let host = host.strip_suffix(":80").unwrap_or(&host);
    let mut out = Vec::with_capacity(512);
    let lead: &[u8] = match start.path.first() {
        None if start.method == b"OPTIONS" => b"*", // RFC 9112 section 3.2.4
        Some(b'/') => b"",
        _ => b"/",
    };
    for part in [start.method, b" ", lead, start.path, b" ", start.version, b"\r\nHost: "] {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(credentials) = &own.credentials
        && head.values("authorization").next().is_none()
    {
        put_field(&mut out, b"Authorization", credentials.basic_value().as_bytes());
    }
    for (name, value) in head.fields() {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        if lower != "host" && !stays_here(&lower, named) {
            put_field(&mut out, name, value);
        }
    }
    own.upgrade.write_fields(&mut out);
    out.extend_from_slice(b"\r\n");
    out.into()
}

fn stays_here(lower: &str, named: &[String]) -> bool {
    HOP_BY_HOP.contains(&lower) || named.iter().any(|name| name == lower)
}

fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// What a response is to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResponseKind {
    /// 1xx.
    Interim,
    /// 101: from here on bytes of what was switched to.
    Upgraded(UpgradeProtocols),
    /// The answer. `close`: the connection ends with it; `plain`: chunks are taken off.
    Final { close: bool, plain: bool },
}

/// A response's head for the client: hop-by-hop fields removed, `Connection` by our own choice, and
/// our own version (RFC 9110 section 2.5).
///
/// # Errors
/// [`ParseError`] when its `Connection` names a framing field.
pub(super) fn rewrite_response(
    head: &MessageHead,
    status: u16,
    onward: ResponseKind,
) -> Result<Bytes, ParseError> {
    let named = connection_tokens(head)?;
    let mut out = Vec::with_capacity(512);
    for part in [b"HTTP/1.1 ", head.second(), b" ", head.third(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    // Such an answer has no length to tell (RFC 9110 section 8.6).
    let bodiless = matches!(status, 100..=199 | 204);
    let plain = matches!(onward, ResponseKind::Final { plain: true, .. });
    let mut measured = bodiless;
    for (name, value) in head.fields() {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        if lower == "content-length" {
            // Equal ones, in one field or several, are one (RFC 9112 section 6.3).
            if !std::mem::replace(&mut measured, true) {
                put_field(&mut out, name, list_members(value).next().unwrap_or_default());
            }
        } else if !((bodiless || plain) && lower == "transfer-encoding")
            && !stays_here(&lower, &named)
        {
            put_field(&mut out, name, value);
        }
    }
    match onward {
        ResponseKind::Upgraded(protocol) => protocol.write_fields(&mut out),
        ResponseKind::Final { close: true, .. } => out.extend_from_slice(b"Connection: close\r\n"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(out.into())
}

/// A trailer section without the fields no trailer may carry, its blank line included.
pub(in crate::inbound) fn filter_trailers(section: &MessageHead) -> Bytes {
    let mut out = Vec::new();
    for (name, value) in section.fields() {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        if !NO_TRAILER.contains(&lower.as_str()) {
            put_field(&mut out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// Whether a response lets its connection live on (RFC 9112 section 9.3).
pub(super) fn keeps_connection(head: &MessageHead) -> bool {
    let closes = |list: &[u8]| {
        list.split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    head.first() == b"HTTP/1.1" && !head.values("connection").any(closes)
}

#[cfg(test)]
mod tests {
    use super::super::super::head::{DEFAULT_MAX_HEAD, MessageKind, parse_head};
    use super::super::super::parse::Parsed;
    use super::*;

    fn forward(text: &str) -> Result<ForwardRequest, ParseError> {
        match parse_head(text.as_bytes(), MessageKind::Request, DEFAULT_MAX_HEAD)? {
            Parsed::Whole { value, .. } => parse_forward_request(&value),
            Parsed::Incomplete => panic!("{text:?} is incomplete"),
        }
    }

    #[test]
    fn b15_the_host_is_written_from_the_target() {
        let text = "GET http://h:8080?q HTTP/1.1\r\nHost: evil\r\nX: y\r\n\r\n";
        let request = forward(text).unwrap();
        assert!(request.host_mismatch);
        assert_eq!(&request.head[..], b"GET /?q HTTP/1.1\r\nHost: h:8080\r\nX: y\r\n\r\n");
        let plain = forward("GET http://H/p HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(&plain.head[..], b"GET /p HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(!plain.host_mismatch && plain.keep_alive);
        for (host, mismatch) in [("u:p@h", false), ("h@evil", true), ("u:p@", true)] {
            let text = format!("GET http://u:p@h/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(forward(&text).unwrap().host_mismatch, mismatch, "{host}");
        }
    }

    #[test]
    fn p27_hop_by_hop_fields_stay_here() {
        let text = "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: x-a, close\r\nX-A: 1\r\n\
                    Proxy-Authorization: Basic eDp5\r\nTE: trailers\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\n\
                    Proxy-Connection: keep-alive\r\nX-B: 2\r\n\r\n";
        let request = forward(text).unwrap();
        assert_eq!(&request.head[..], b"GET / HTTP/1.1\r\nHost: h\r\nX-B: 2\r\n\r\n");
        assert!(!request.keep_alive && request.upgrade.is_empty());
        for name in ["host", "content-length"] {
            let text = format!("GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: {name}\r\n\r\n");
            assert!(forward(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn b6_b20_only_plain_absolute_form() {
        let bad = [
            "http://corp.example\\@evil.com/",
            "http://evil.com\\@corp.example/",
            "http://evil.com\\/",
            "http://corp.\u{e9}xample/",
            "http://\u{e9}@corp.example/",
            "http:///corp.example",
            "http://@/",
            "http://#corp.example/",
            "http://u@",
            "http://u:p@:80/",
            "http://h:80@/",
            "/",
            "https://h/",
            "*",
            "h:80",
            "ftp://h/",
            "http://corp%2eexample/",
        ];
        for target in bad {
            let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert!(forward(&text).is_err(), "{target}");
        }
    }

    #[test]
    fn b6_the_host_stands_behind_the_last_at_and_before_the_path() {
        let cases = [
            ("http://corp.example@evil.com/", "evil.com:80", "/"),
            ("http://corp.example:80@evil.com:81/", "evil.com:81", "/"),
            ("http://a@b@evil.com/x@corp.example", "evil.com:80", "/x@corp.example"),
            ("http://evil.com#@corp.example/", "evil.com:80", "/"),
            ("http://evil.com?@corp.example/", "evil.com:80", "/?@corp.example/"),
            ("http://evil.com/\\@corp.example", "evil.com:80", "/\\@corp.example"),
            ("http://evil.com/a#b#c?d", "evil.com:80", "/a"),
            ("http://evil.com?a\\b=\u{e9}#x", "evil.com:80", "/?a\\b=\u{e9}"),
            ("http://[::1]@[2001:db8::7]:81/", "[2001:db8::7]:81", "/"),
        ];
        for (url, target, path) in cases {
            let request = forward(&format!("GET {url} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
            assert_eq!(request.target.to_string(), target, "{url}");
            let line = format!("GET {path} HTTP/1.1\r\n");
            assert!(request.head.starts_with(line.as_bytes()), "{url}: {request:?}");
        }
    }

    #[test]
    fn b6_userinfo_becomes_the_field_that_says_the_same() {
        let request = |url: &str, fields: &str| {
            let text = format!("GET {url} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            String::from_utf8(forward(&text).unwrap().head.to_vec()).unwrap()
        };
        let bare = "GET / HTTP/1.1\r\nHost: h\r\n";
        for (userinfo, field) in [
            ("u:p@", "Authorization: Basic dTpw\r\n"),
            ("u@", "Authorization: Basic dTo=\r\n"),
            (":t@", "Authorization: Basic OnQ=\r\n"),
            ("%75:%0d%0aX%3a%20y@", "Authorization: Basic dToNClg6IHk=\r\n"),
            ("@", ""),
            ("", ""),
        ] {
            let got = request(&format!("http://{userinfo}h/"), "");
            assert_eq!(got, format!("{bare}{field}\r\n"), "{userinfo}");
        }
        // What the client says itself counts, an empty field too.
        for own in ["Authorization: Bearer x\r\n", "AUTHORIZATION: \r\n"] {
            assert_eq!(request("http://u:p@h/", own), format!("{bare}{own}\r\n"));
        }
    }

    #[test]
    fn p27_an_upgrade_is_asked_for_without_a_body_only() {
        let request = |fields: &str| {
            let text = format!("POST http://h/ HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            forward(&text).unwrap()
        };
        let tcp = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        let head = request(&format!("Content-Length: 0\r\n{tcp}")).head;
        assert!(head.ends_with(format!("Content-Length: 0\r\n{tcp}\r\n").as_bytes()));
        for fields in [
            format!("Content-Length: 1\r\n{tcp}"),
            format!("Transfer-Encoding: chunked\r\n{tcp}"),
            "Upgrade: tcp\r\n".to_owned(),
            "Connection: Upgrade\r\nUpgrade: h2c\r\n".to_owned(),
            "Connection: Upgrade\r\n".to_owned(),
        ] {
            let request = request(&fields);
            let head = String::from_utf8(request.head.to_vec()).unwrap();
            assert!(request.upgrade.is_empty() && !head.contains("pgrade"), "{head}");
        }
    }

    #[test]
    fn p22_an_answers_equal_lengths_are_written_once() {
        let text =
            b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 5, 5\r\nContent-Length\t: 5\r\n\r\n";
        let Ok(Parsed::Whole { value, .. }) =
            parse_head(text, MessageKind::Response, DEFAULT_MAX_HEAD)
        else {
            panic!()
        };
        let said =
            rewrite_response(&value, 200, ResponseKind::Final { close: false, plain: false })
                .unwrap();
        assert_eq!(&said[..], b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n");
    }

    #[test]
    fn p17_the_host_field_is_needed_once() {
        assert!(forward("GET http://h/ HTTP/1.1\r\n\r\n").is_err());
        assert!(forward("GET http://h/ HTTP/1.0\r\n\r\n").is_ok());
        assert!(forward("GET http://h/ HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n").is_err());
    }

    #[test]
    fn p28_websocket_keeps_its_upgrade() {
        let text = "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
                    Upgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n";
        let request = forward(text).unwrap();
        assert!(!request.upgrade.is_empty());
        let head = String::from_utf8(request.head.to_vec()).unwrap();
        assert!(head.ends_with(
            "Sec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ));
    }
}
