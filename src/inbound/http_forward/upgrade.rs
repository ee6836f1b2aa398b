//! Protocols that a connection may switch to (RFC 9110 section 7.8).
//!
//! A hop that does not understand the protocol may still carry it: docker's `tcp`, `SPDY/3.1` of Kubernetes,
//! WebSocket. It does so only for a request with no body, and only once the origin has said 101.
#![forbid(unsafe_code)]

use super::super::framing::list_members;
use super::super::head::{MessageHead, is_token};
use super::super::parse::ParseError;

/// Names and versions of protocols, best first; empty: stay with HTTP/1.1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpgradeProtocols(Vec<Box<[u8]>>);

const WEBSOCKET: &[u8] = b"websocket";

impl UpgradeProtocols {
    /// What a request asks to switch to: all that it names, or nothing where one of them is another HTTP (its
    /// requests would be judged by nobody), no protocol, or WebSocket by another method than GET (RFC 6455
    /// section 4.1).
    pub(super) fn requested_in(head: &MessageHead) -> Self {
        let asked = Self::named_in(head);
        let fits = |protocol: &[u8]| {
            is_protocol(protocol)
                && !is_http(protocol)
                && (protocol != WEBSOCKET || head.first() == b"GET")
        };
        if asked.0.iter().all(|protocol| fits(protocol)) { asked } else { Self::default() }
    }

    /// What a 101 has switched to, of what was asked for.
    ///
    /// # Errors
    /// [`ParseError`] where nothing, or something else, was asked for.
    pub(super) fn confirmed_by(&self, answer: &MessageHead) -> Result<Self, ParseError> {
        let named = Self::named_in(answer);
        let known =
            |protocol: &[u8]| self.0.iter().any(|asked| asked.eq_ignore_ascii_case(protocol));
        match named.0.is_empty() {
            // It has to name it (RFC 9110 section 15.2.2); where one was asked for there is no doubt.
            true if self.0.len() == 1 => Ok(self.clone()),
            false if named.0.iter().all(|protocol| known(protocol)) => Ok(named),
            _ => Err(ParseError::bad_request(
                "the origin switched to a protocol that was not asked for",
            )),
        }
    }

    /// Whether there is nothing to switch to.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The two fields that say so, or nothing.
    pub(super) fn write_fields(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
            out.extend_from_slice(&self.0.join(&b", "[..]));
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Every protocol of every `Upgrade` field, as spelled; WebSocket as its RFC spells it.
    fn named_in(head: &MessageHead) -> Self {
        let spelled = |protocol: &[u8]| match protocol.eq_ignore_ascii_case(WEBSOCKET) {
            true => WEBSOCKET.into(),
            false => protocol.into(),
        };
        let all =
            head.values("upgrade").flat_map(list_members).filter(|protocol| !protocol.is_empty());
        Self(all.map(spelled).collect())
    }
}

/// `protocol-name ["/" protocol-version]`, both tokens.
fn is_protocol(text: &[u8]) -> bool {
    let token = |text: &[u8]| !text.is_empty() && text.iter().copied().all(is_token);
    match memchr::memchr(b'/', text) {
        Some(at) => token(&text[..at]) && token(&text[at + 1..]),
        None => token(text),
    }
}

/// Another version of HTTP, by any name it goes by (RFC 9113 section 3.1, RFC 9110 section 2.5).
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|b| *b == b'/').next().unwrap_or(protocol);
    [&b"h2c"[..], b"h2", b"h3", b"http"].iter().any(|http| name.eq_ignore_ascii_case(http))
}

#[cfg(test)]
mod tests {
    use super::super::super::head::{DEFAULT_MAX_HEAD, MessageKind, parse_head};
    use super::super::super::parse::Parsed;
    use super::*;

    fn head(side: MessageKind, text: &str) -> MessageHead {
        match parse_head(text.as_bytes(), side, DEFAULT_MAX_HEAD) {
            Ok(Parsed::Whole { value, .. }) => value,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn asked(method: &str, upgrade: &str) -> UpgradeProtocols {
        let text = format!("{method} http://h/ HTTP/1.1\r\nHost: h\r\nUpgrade: {upgrade}\r\n\r\n");
        UpgradeProtocols::requested_in(&head(MessageKind::Request, &text))
    }

    fn written(upgrade: &UpgradeProtocols) -> String {
        let mut out = Vec::new();
        upgrade.write_fields(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn p27_what_may_be_switched_to() {
        for (method, upgrade, list) in [
            ("GET", "WebSocket", "websocket"),
            ("POST", "tcp", "tcp"),
            ("POST", "SPDY/3.1", "SPDY/3.1"),
            ("GET", "websocket , foo/2", "websocket, foo/2"),
        ] {
            let line = format!("Connection: Upgrade\r\nUpgrade: {list}\r\n");
            assert_eq!(written(&asked(method, upgrade)), line);
        }
        for (method, upgrade) in [
            ("GET", "h2c"),
            ("GET", "H2C"),
            ("GET", "websocket, h2c"),
            ("GET", "HTTP/2.0"),
            ("GET", "tcp, http/1.0"),
            ("GET", "h2"),
            ("POST", "websocket"),
            ("GET", "a b"),
            ("GET", "a/"),
            ("GET", "a/b/c"),
            ("GET", ""),
            ("GET", ","),
        ] {
            assert_eq!(asked(method, upgrade), UpgradeProtocols::default(), "{method} {upgrade}");
        }
    }

    #[test]
    fn p28_only_what_was_asked_for_is_switched_to() {
        let answer =
            |fields: &str| head(MessageKind::Response, &format!("HTTP/1.1 101 x\r\n{fields}\r\n"));
        let tcp = asked("POST", "tcp");
        assert_eq!(tcp.confirmed_by(&answer("Upgrade: TCP\r\n")).unwrap().0, [b"TCP"[..].into()]);
        assert_eq!(tcp.confirmed_by(&answer("")).unwrap(), tcp);
        assert!(tcp.confirmed_by(&answer("Upgrade: h2c\r\n")).is_err());
        assert!(tcp.confirmed_by(&answer("Upgrade: tcp, h2c\r\n")).is_err());
        let two = asked("GET", "a, b");
        assert_eq!(two.confirmed_by(&answer("Upgrade: b\r\n")).unwrap(), asked("GET", "b"));
        assert!(two.confirmed_by(&answer("")).is_err());
        assert!(
            UpgradeProtocols::default().confirmed_by(&answer("Upgrade: websocket\r\n")).is_err()
        );
        assert!(UpgradeProtocols::default().confirmed_by(&answer("")).is_err());
    }
}
