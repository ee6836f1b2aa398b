//! A user name and a password that stand in a request's URL (RFC 3986 section 3.2.1).
//!
//! They are the client's own for the origin, so they go on as the field that says the same (RFC 7617), and the
//! URL goes on without them. They are in no message, no log and no `Debug`.
#![forbid(unsafe_code)]

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode;

/// Userinfo as it was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct UrlCredentials<'a>(&'a [u8]);

impl<'a> UrlCredentials<'a> {
    /// None where there is nothing to say: `http://@host/`.
    pub(super) fn new(userinfo: &'a [u8]) -> Option<Self> {
        (!userinfo.is_empty()).then_some(Self(userinfo))
    }

    /// The value of `Authorization`: user, colon, password, percent-decoded, in base64. Whatever bytes that
    /// gives, line ends and NUL too, base64 has none of them; a percent sign before anything but two hex digits
    /// is one. A user alone has an empty password, as curl and wget say it.
    pub(super) fn basic_value(&self) -> String {
        let mut decoded: Vec<u8> = percent_decode(self.0).collect();
        if !self.0.contains(&b':') {
            decoded.push(b':');
        }
        format!("Basic {}", STANDARD.encode(decoded))
    }
}

impl fmt::Debug for UrlCredentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b6_userinfo_says_the_same_as_basic() {
        let decoded = |userinfo: &str| {
            let field = UrlCredentials::new(userinfo.as_bytes()).unwrap().basic_value();
            STANDARD.decode(field.strip_prefix("Basic ").unwrap()).unwrap()
        };
        let cases: [(&str, &[u8]); 9] = [
            ("u:p", b"u:p"),
            ("u", b"u:"),
            (":t", b":t"),
            (":", b":"),
            ("u:a:b", b"u:a:b"),
            ("a%40b:p%3Aq%2f", b"a@b:p:q/"),
            ("u:%0d%0aX%00", b"u:\r\nX\0"),
            ("u:100%", b"u:100%"),
            ("u%zz:%4", b"u%zz:%4"),
        ];
        for (userinfo, wanted) in cases {
            assert_eq!(decoded(userinfo), wanted, "{userinfo}");
        }
        assert_eq!(UrlCredentials::new(b""), None);
        assert_eq!(format!("{:?}", UrlCredentials::new(b"u:secret")), "Some([redacted])");
    }
}
