//! HTTP CONNECT requests (RFC 9110 section 9.3.6): what they ask for, from a parsed head.
#![forbid(unsafe_code)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::framing::{self, MessageFraming};
use super::head::{HttpVersion, MessageHead, parse_version};
use super::label::Label;
use super::parse::ParseError;
use crate::target::Target;

/// What a CONNECT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Where to.
    pub target: Target,
    /// The user name of `Proxy-Authorization`.
    pub label: Option<Label>,
    /// The Host field names somebody else; it is ignored (B16).
    pub host_mismatch: bool,
}

/// Reads a CONNECT's head.
///
/// # Errors
/// [`ParseError`] for a target without port, a body (P19), two Host fields.
pub fn parse_connect(head: &MessageHead) -> Result<ConnectRequest, ParseError> {
    if memchr::memchr(b'@', head.second()).is_some() {
        let message =
            "CONNECT names a host and a port alone: send credentials in Proxy-Authorization";
        return Err(ParseError::bad_request(message));
    }
    let target = Target::parse_connect(head.second())?;
    // A length of 0 says that there is none, and is sent by clients that say so of every request.
    if framing::of_request(head, parse_version(head.third())?)? != MessageFraming::None {
        let message = "CONNECT with a body would make tunnel bytes a part of it: leave it out";
        return Err(ParseError::bad_request(message));
    }
    let host_mismatch = host_differs(head, &target, true)?;
    Ok(ConnectRequest { target, label: basic_user(head), host_mismatch })
}

/// Whether the Host field names another host or port than the target; at most one may be there,
/// and HTTP/1.1 other than CONNECT must have one (RFC 9112 section 3.2).
///
/// # Errors
/// [`ParseError`] for no Host or several.
pub fn host_differs(
    head: &MessageHead,
    target: &Target,
    of_connect: bool,
) -> Result<bool, ParseError> {
    let mut hosts = head.values("host");
    let Some(host) = hosts.next() else {
        let needed = !of_connect && parse_version(head.third())? == HttpVersion::Http11;
        let missing = || ParseError::bad_request("the request has no Host field: send one");
        return if needed { Err(missing()) } else { Ok(false) };
    };
    if hosts.next().is_some() {
        return Err(ParseError::bad_request("the request has two Host fields: send one"));
    }
    // Python's urllib copies a URL's credentials into it.
    let host = match memchr::memrchr(b'@', host) {
        Some(at) if !of_connect => &host[at + 1..],
        _ => host,
    };
    let mut named = Target::parse_authority(host, Some(target.port));
    if of_connect {
        named = named.or_else(|_| Target::parse_connect(host));
    }
    Ok(named.ok().as_ref() != Some(target))
}

/// The user name of a Basic `Proxy-Authorization` (RFC 7617): a label, never an authentication.
pub fn basic_user(head: &MessageHead) -> Option<Label> {
    let value = head.values("proxy-authorization").next()?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim_ascii()).ok()?;
    Label::new(decoded.split(|b| *b == b':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::head::{DEFAULT_MAX_HEAD, MessageKind, parse_head};
    use super::super::parse::Parsed;
    use super::*;

    fn connect(text: &str) -> Result<ConnectRequest, ParseError> {
        match parse_head(text.as_bytes(), MessageKind::Request, DEFAULT_MAX_HEAD)? {
            Parsed::Whole { value, .. } => parse_connect(&value),
            Parsed::Incomplete => panic!("{text:?} is incomplete"),
        }
    }

    #[test]
    fn p17_p18_what_passes() {
        for text in ["CONNECT h:443 HTTP/1.1\r\n\r\n", "CONNECT h:443 HTTP/1.0\r\n\r\n"] {
            assert_eq!(connect(text).unwrap().target.to_string(), "h:443");
        }
        let auth =
            "CONNECT h:1 HTTP/1.1\r\nProxy-Authorization: Basic aW52ZXN0aWdhdGlvbi00Mjp4\r\n\r\n";
        assert_eq!(connect(auth).unwrap().label.unwrap().as_str(), "investigation-42");
    }

    #[test]
    fn p17_an_address_without_brackets_is_the_same_target() {
        for host in ["", "Host: ::1:443\r\n", "Host: [::1]:443\r\n", "Host: [::1]\r\n"] {
            let connect = connect(&format!("CONNECT ::1:443 HTTP/1.1\r\n{host}\r\n")).unwrap();
            assert_eq!(connect.target.to_string(), "[::1]:443");
            assert!(!connect.host_mismatch, "{host}");
        }
    }

    #[test]
    fn b16_the_host_field_is_only_noted() {
        assert!(connect("CONNECT h:443 HTTP/1.1\r\nHost: evil\r\n\r\n").unwrap().host_mismatch);
        assert!(!connect("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n").unwrap().host_mismatch);
    }

    #[test]
    fn p19_a_body_is_refused() {
        for field in [
            "Content-Length: 3",
            "Content-Length: 0\r\nContent-Length: 0",
            "Content-Length: -0",
            "Content-Length:",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: identity",
        ] {
            let text = format!("CONNECT h:1 HTTP/1.1\r\n{field}\r\n\r\n");
            assert!(connect(&text).is_err(), "{field}");
        }
        assert!(connect("CONNECT h:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n").is_ok());
        assert!(connect("CONNECT h:1 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").is_err());
    }
}
