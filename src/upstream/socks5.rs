//! What is said to a SOCKS5 server, and reading what it says (RFC 1928, client side).
//!
//! Pure: bytes in, values out.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Unparsed;
use crate::target::{Host, Target};

/// The greeting: version 5, one method, "none" (RFC 1928 section 3).
pub const GREETING: [u8; 3] = [5, 1, 0];

/// The length of the server's choice of method (RFC 1928 section 3).
pub const METHOD: usize = 2;

/// The longest reply: four bytes, a counted name of 255 bytes, a port.
pub const MAX_REPLY: usize = 4 + 1 + 255 + 2;

/// What the server said to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// REP 00, and where the server says its end is; `None` for a name or no address.
    Connected(Option<SocketAddr>),
    /// REP 01 to 08. The rest of such a reply says nothing and is not waited for.
    Refused(u8),
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What it says.
    pub reply: Reply,
    /// Its length; bytes behind it are the far side's.
    pub used: usize,
}

/// The CONNECT request for `target` (RFC 1928 section 4).
pub fn request(target: &Target) -> Vec<u8> {
    match &target.host {
        Host::Address(ip) => request_address(SocketAddr::new(*ip, target.port.get())),
        Host::Name(name) => {
            let name = name.as_str().as_bytes();
            // A `Name` has at most 253 bytes.
            [&[5, 1, 0, 3, name.len() as u8], name, &target.port.get().to_be_bytes()].concat()
        }
    }
}

/// The CONNECT request for an address.
pub fn request_address(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(v4) => [&[5, 1, 0, 1], &v4.octets()[..], &port].concat(),
        IpAddr::V6(v6) => [&[5, 1, 0, 4], &v6.octets()[..], &port].concat(),
    }
}

/// Reads the server's choice of method; two bytes when it is good.
///
/// # Errors
/// [`Unparsed`]; also when the server wants a password, which we never have.
pub fn parse_method(bytes: &[u8]) -> Result<(), Unparsed> {
    match bytes {
        [] | [5] => Err(Unparsed::Incomplete),
        [5, 0, ..] => Ok(()),
        [5, 0xff, ..] => Err(Unparsed::Bad("it takes no client without authentication")),
        [5, ..] => Err(Unparsed::Bad("it chose an authentication method we did not offer")),
        _ => Err(Unparsed::Bad("its greeting does not begin with version 5")),
    }
}

/// Reads the server's reply to the request (RFC 1928 section 6).
///
/// # Errors
/// [`Unparsed`], as early as the bytes tell.
pub fn parse_reply(bytes: &[u8]) -> Result<Parsed, Unparsed> {
    match bytes {
        [] | [5] => Err(Unparsed::Incomplete),
        [5, 0, rest @ ..] => parse_bound(rest),
        [5, rep @ 1..=8, ..] => Ok(Parsed { reply: Reply::Refused(*rep), used: bytes.len() }),
        [5, ..] => Err(Unparsed::Bad("its reply code is none of RFC 1928")),
        _ => Err(Unparsed::Bad("its reply does not begin with version 5")),
    }
}

/// Reads RSV, ATYP, BND.ADDR and BND.PORT.
fn parse_bound(rest: &[u8]) -> Result<Parsed, Unparsed> {
    let whole = |bound, behind: usize| {
        Ok(Parsed { reply: Reply::Connected(bound), used: 2 + rest.len() - behind })
    };
    match rest {
        [_, 1, a, b, c, d, p, q, behind @ ..] => {
            whole(bound_address(Ipv4Addr::new(*a, *b, *c, *d).into(), [*p, *q]), behind.len())
        }
        [_, 3, length, tail @ ..] if tail.len() >= usize::from(*length) + 2 => {
            whole(None, tail.len() - usize::from(*length) - 2)
        }
        [_, 4, tail @ ..] if tail.len() >= 18 => {
            let (address, tail) = tail.split_at(16);
            let octets: [u8; 16] = address.try_into().map_err(|_| Unparsed::Incomplete)?;
            whole(bound_address(Ipv6Addr::from(octets).into(), [tail[0], tail[1]]), tail.len() - 2)
        }
        [_, 1 | 3 | 4, ..] | [_] | [] => Err(Unparsed::Incomplete),
        _ => Err(Unparsed::Bad("its reply has an address type other than 01, 03, 04")),
    }
}

fn bound_address(ip: IpAddr, port: [u8; 2]) -> Option<SocketAddr> {
    let ip = ip.to_canonical();
    (!ip.is_unspecified()).then(|| SocketAddr::new(ip, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connected(bound: &str, used: usize) -> Result<Parsed, Unparsed> {
        Ok(Parsed { reply: Reply::Connected(bound.parse().ok()), used })
    }

    #[test]
    fn requests_carry_names_and_both_kinds_of_address() {
        let request =
            |text: &str| request(&Target::parse_authority(text.as_bytes(), None).unwrap());
        assert_eq!(request("ab.c:443"), b"\x05\x01\x00\x03\x04ab.c\x01\xbb");
        assert_eq!(request("1.2.3.4:80"), [5, 1, 0, 1, 1, 2, 3, 4, 0, 80]);
        assert_eq!(request("[::1]:80")[..4], [5, 1, 0, 4]);
        assert_eq!(request("[::1]:80").len(), 22);
    }

    #[test]
    fn u7_a_refusal_is_known_from_two_bytes() {
        for rest in [&[][..], &[0], &[0, 0], &[0, 1, 0, 0, 0, 0, 0, 0]] {
            let bytes = [&[5, 1][..], rest].concat();
            assert_eq!(parse_reply(&bytes).map(|parsed| parsed.reply), Ok(Reply::Refused(1)));
        }
    }

    #[test]
    fn u8_garbage_is_bad_at_once() {
        let bad: [&[u8]; 5] =
            [&[4], b"HTTP/1.1 200 OK\r\n", &[5, 0, 0, 9], &[5, 9], &[5, 0xff, 0, 1]];
        for bytes in bad {
            assert!(matches!(parse_reply(bytes), Err(Unparsed::Bad(_))), "{bytes:?}");
        }
    }

    #[test]
    fn u9_names_and_v6_are_read_and_what_follows_is_left() {
        let name = b"\x05\x00\x00\x03\x02hi\x00\x50early";
        assert_eq!(parse_reply(name), connected("", 9));
        let mut v6 = vec![5, 0, 0, 4];
        v6.extend("fd7a::1".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend([1, 2]);
        v6.extend(b"early");
        assert_eq!(parse_reply(&v6), connected("[fd7a::1]:258", 22));
        assert_eq!(parse_reply(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]), connected("", 10));
        assert_eq!(parse_reply(&[5, 0, 7, 1, 1, 2, 3, 4, 0, 9]), connected("1.2.3.4:9", 10));
    }

    #[test]
    fn methods_other_than_none_are_bad() {
        assert_eq!(parse_method(&[5, 0]), Ok(()));
        assert_eq!(parse_method(&[5]), Err(Unparsed::Incomplete));
        for bytes in [&[5, 0xff][..], &[5, 2], &[4], b"HT"] {
            assert!(matches!(parse_method(bytes), Err(Unparsed::Bad(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn u6_every_split_gives_the_same_answer(
            kind in prop_oneof![Just(1u8), Just(3), Just(4)],
            name in proptest::collection::vec(any::<u8>(), 0..=255),
            early in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = vec![5, 0, 0, kind];
            match kind {
                1 => bytes.extend([1, 2, 3, 4]),
                3 => { bytes.push(name.len() as u8); bytes.extend(&name); }
                _ => bytes.extend([7; 16]),
            }
            bytes.extend([0, 80]);
            let length = bytes.len();
            bytes.extend(&early);
            for end in 0..length {
                prop_assert_eq!(parse_reply(&bytes[..end]), Err(Unparsed::Incomplete));
            }
            for end in length..=bytes.len() {
                prop_assert_eq!(parse_reply(&bytes[..end]).map(|parsed| parsed.used), Ok(length));
            }
        }

        #[test]
        fn any_bytes_are_judged_within_the_longest_reply(
            bytes in proptest::collection::vec(any::<u8>(), MAX_REPLY..400)
        ) {
            prop_assert!(parse_reply(&bytes) != Err(Unparsed::Incomplete));
            if let Ok(parsed) = parse_reply(&bytes) {
                prop_assert!(parsed.used <= bytes.len());
            }
        }
    }
}
