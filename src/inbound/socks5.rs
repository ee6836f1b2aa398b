//! SOCKS5 greeting, user name and request (RFC 1928, RFC 1929). Parses only.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use super::label::Label;
use super::parse::{ParseError, Parsed};
use crate::outcome::Outcome;
use crate::target::{Host, HostError, Target};

/// The first byte of greeting and request.
pub const VERSION: u8 = 0x05;

/// The method a greeting leads to (RFC 1928 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// 00: none.
    None,
    /// 02: a user name, taken as a label. It wins wherever it is offered.
    UserName,
    /// FF: nothing we know.
    Unacceptable,
}

impl AuthMethod {
    /// The method reply.
    pub const fn reply_bytes(self) -> [u8; 2] {
        match self {
            Self::None => [VERSION, 0x00],
            Self::UserName => [VERSION, 0x02],
            Self::Unacceptable => [VERSION, 0xff],
        }
    }
}

/// Reads a greeting.
///
/// # Errors
/// [`ParseError`] when the version is not 5.
pub fn parse_greeting(bytes: &[u8]) -> Result<Parsed<AuthMethod>, ParseError> {
    let [version, rest @ ..] = bytes else { return Ok(Parsed::Incomplete) };
    if *version != VERSION {
        return Err(ParseError::bad_request(format!(
            "SOCKS version {version:#04x} in a greeting: send 05"
        )));
    }
    let Some((count, methods)) = rest.split_first() else { return Ok(Parsed::Incomplete) };
    let count = usize::from(*count);
    let Some(methods) = methods.get(..count) else { return Ok(Parsed::Incomplete) };
    let value = if methods.contains(&0x02) {
        AuthMethod::UserName
    } else if methods.contains(&0x00) {
        AuthMethod::None
    } else {
        AuthMethod::Unacceptable
    };
    Ok(Parsed::Whole { value, used: 2 + count })
}

/// Reads the user name sub-negotiation (RFC 1929 section 2) and zeroes the password's bytes.
///
/// # Errors
/// [`ParseError`] for a version other than 1 or an empty user name.
pub fn parse_user(bytes: &mut [u8]) -> Result<Parsed<Option<Label>>, ParseError> {
    let Some(version) = bytes.first() else { return Ok(Parsed::Incomplete) };
    if *version != 0x01 {
        return Err(ParseError::bad_request(
            "the user name sub-negotiation is not version 01: send 01",
        ));
    }
    let Some(user_len) = bytes.get(1).copied().map(usize::from) else {
        return Ok(Parsed::Incomplete);
    };
    if user_len == 0 {
        return Err(ParseError::bad_request(
            "the user name is empty: send one, or offer method 00",
        ));
    }
    let Some(password_len) = bytes.get(2 + user_len).copied().map(usize::from) else {
        return Ok(Parsed::Incomplete);
    };
    let used = 3 + user_len + password_len;
    let Some(password) = bytes.get_mut(3 + user_len..used) else { return Ok(Parsed::Incomplete) };
    password.fill(0);
    Ok(Parsed::Whole { value: Label::new(&bytes[2..2 + user_len]), used })
}

/// Whether a dialogue has come as far as its request: before that no REP can be said.
pub fn is_negotiated(dialogue: &[u8]) -> bool {
    match parse_greeting(dialogue) {
        Ok(Parsed::Whole { value: AuthMethod::None, .. }) => true,
        Ok(Parsed::Whole { value: AuthMethod::UserName, used }) => {
            matches!(parse_user(&mut dialogue[used..].to_vec()), Ok(Parsed::Whole { .. }))
        }
        _ => false,
    }
}

/// Reads a request; only CONNECT to a valid host is one.
///
/// # Errors
/// [`ParseError`] with the outcome that names the reply: another command, address type or a bad host.
pub fn parse_request(bytes: &[u8]) -> Result<Parsed<Target>, ParseError> {
    if let Some(version) = bytes.first().filter(|version| **version != VERSION) {
        return Err(ParseError::bad_request(format!(
            "SOCKS version {version:#04x} in a request: send 05"
        )));
    }
    if let Some(command) = bytes.get(1).filter(|command| **command != 0x01) {
        let message = format!("SOCKS5 command {command:#04x} is not CONNECT: use CONNECT");
        return Err(ParseError::new(Outcome::UnsupportedCmd, message));
    }
    // RSV, the third byte, may hold anything: curl and others are lenient too (P10).
    let Some((kind, rest)) = bytes.get(3..).and_then(<[u8]>::split_first) else {
        return Ok(Parsed::Incomplete);
    };
    let (address, used) = match *kind {
        0x01 => (rest.get(..4), 4),
        0x04 => (rest.get(..16), 16),
        0x03 => {
            let Some((len, name)) = rest.split_first() else { return Ok(Parsed::Incomplete) };
            let len = usize::from(*len);
            (name.get(..len), 1 + len)
        }
        other => {
            let message = format!("SOCKS5 address type {other:#04x} is unknown: use 01, 03 or 04");
            return Err(ParseError::new(Outcome::UnsupportedAtyp, message));
        }
    };
    let (Some(address), Some(port)) = (address, rest.get(used..used + 2)) else {
        return Ok(Parsed::Incomplete);
    };
    let port = NonZeroU16::new(u16::from_be_bytes([port[0], port[1]]));
    let host = parse_host(address, *kind)?;
    let port = port.ok_or_else(|| ParseError::from(HostError::Port { port: "0".into() }))?;
    Ok(Parsed::Whole { value: Target { host, port }, used: 4 + used + 2 })
}

fn parse_host(address: &[u8], kind: u8) -> Result<Host, HostError> {
    if kind == 0x03 {
        return Host::parse_bracketed(address);
    }
    let v4 = <[u8; 4]>::try_from(address).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = <[u8; 16]>::try_from(address).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    v4.or(v6).map(Host::from).map_err(|_| HostError::Empty)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn method(bytes: &[u8]) -> AuthMethod {
        match parse_greeting(bytes) {
            Ok(Parsed::Whole { value, used }) => {
                assert_eq!(used, bytes.len());
                value
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn p4_p5_p6_methods() {
        assert_eq!(method(b"\x05\x00").reply_bytes(), [5, 0xff]);
        assert_eq!(method(b"\x05\x01\x02"), AuthMethod::UserName);
        assert_eq!(method(b"\x05\x03\x00\x01\x02"), AuthMethod::UserName);
        let mut all = vec![5, 255];
        all.extend((0..=255u8).filter(|m| *m != 2));
        assert_eq!(method(&all), AuthMethod::None);
    }

    #[test]
    fn p5_the_password_is_zeroed_and_the_user_is_a_label() {
        let mut bytes = *b"\x01\x02me\x06secret";
        let parsed = parse_user(&mut bytes).unwrap();
        assert!(matches!(parsed, Parsed::Whole { value: Some(_), used: 11 }));
        assert!(bytes.ends_with(&[0; 6]));
        assert!(parse_user(&mut [1, 0, 0]).is_err());
        assert!(parse_user(&mut [5]).is_err());
    }

    #[test]
    fn p8_p9_p11_p14_outcomes() {
        let outcome = |bytes: &[u8]| parse_request(bytes).unwrap_err().outcome;
        for command in [0x02, 0x03, 0x00, 0xff] {
            assert_eq!(outcome(&[5, command]), Outcome::UnsupportedCmd);
        }
        assert_eq!(outcome(&[5, 1, 0, 2]), Outcome::UnsupportedAtyp);
        assert_eq!(outcome(&[5, 1, 0, 5]), Outcome::UnsupportedAtyp);
        assert_eq!(outcome(&[5, 1, 0, 3, 0, 0, 80]), Outcome::BadRequest);
        assert_eq!(outcome(&[5, 1, 0, 1, 10, 0, 0, 1, 0, 0]), Outcome::BadRequest);
        assert!(parse_request(&[5, 1, 9, 1, 10, 0, 0, 1, 0, 80]).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _any = (parse_greeting(&bytes), parse_request(&bytes));
            let _any = parse_user(&mut bytes);
        }

        #[test]
        fn p1_every_prefix_waits_for_more(cut in 0usize..22) {
            let whole = b"\x05\x01\x00\x03\x0fdb.corp.example\x00\x50";
            prop_assume!(cut < whole.len());
            prop_assert_eq!(parse_request(&whole[..cut]), Ok(Parsed::Incomplete));
        }
    }
}
