//! SOCKS4 and 4a requests (the SOCKS4 and SOCKS4A memos by Y.-D. Lee). Parses only.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use super::label::Label;
use super::parse::{ParseError, Parsed};
use crate::outcome::Outcome;
use crate::target::{Host, HostError, Target};

/// The first byte of a request.
pub const VERSION: u8 = 0x04;
/// VN, CD, DSTPORT, DSTIP.
const FIXED: usize = 8;
/// Longest USERID that is taken.
const MAX_USER: usize = 255;
/// Bytes in which the request must have ended.
const MAX_REQUEST: usize = 512;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socks4Request {
    /// Where to.
    pub target: Target,
    /// The USERID as a label.
    pub label: Option<Label>,
}

/// Reads one request from the front of `bytes`.
///
/// # Errors
/// [`ParseError`] for another command, port 0, a missing NUL in 512 bytes or no valid host.
pub fn parse_request(bytes: &[u8]) -> Result<Parsed<Socks4Request>, ParseError> {
    if bytes.len() >= 2 && bytes[1] != 0x01 {
        let message = format!("SOCKS4 command {:#04x} is not CONNECT: use CONNECT", bytes[1]);
        return Err(ParseError::new(Outcome::UnsupportedCmd, message));
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Parsed::Incomplete);
    };
    let port = NonZeroU16::new(u16::from_be_bytes([fixed[2], fixed[3]]));
    let port = port.ok_or_else(|| ParseError::from(HostError::Port { port: "0".into() }))?;
    let ip = Ipv4Addr::new(fixed[4], fixed[5], fixed[6], fixed[7]);
    let Some(user) = until_nul(rest, bytes.len(), MAX_USER)? else {
        return Ok(Parsed::Incomplete);
    };
    let label = Label::new(user);
    let mut used = FIXED + user.len() + 1;
    let host = if named(ip) {
        let Some(name) = until_nul(&bytes[used..], bytes.len(), MAX_REQUEST)? else {
            return Ok(Parsed::Incomplete);
        };
        used += name.len() + 1;
        Host::parse_bracketed(name)?
    } else {
        Host::from(IpAddr::V4(ip))
    };
    Ok(Parsed::Whole { value: Socks4Request { target: Target { host, port }, label }, used })
}

/// `0.0.0.x` with x not 0: a name follows (SOCKS4A).
fn named(ip: Ipv4Addr) -> bool {
    matches!(ip.octets(), [0, 0, 0, last] if last != 0)
}

fn until_nul(rest: &[u8], so_far: usize, max: usize) -> Result<Option<&[u8]>, ParseError> {
    match rest.iter().position(|byte| *byte == 0) {
        Some(end) if end <= max => Ok(Some(&rest[..end])),
        None if rest.len() <= max && so_far < MAX_REQUEST => Ok(None),
        _ => Err(ParseError::bad_request(
            "the SOCKS4 request has no end within 512 bytes: check the client",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(bytes: &[u8]) -> Result<String, Outcome> {
        match parse_request(bytes) {
            Ok(Parsed::Whole { value, used }) => {
                assert_eq!(used, bytes.len());
                Ok(value.target.to_string())
            }
            Ok(Parsed::Incomplete) => Ok("incomplete".into()),
            Err(bad) => Err(bad.outcome),
        }
    }

    #[test]
    fn p16_an_empty_user_is_fine() {
        assert_eq!(
            request(b"\x04\x01\x00\x50\0\0\0\x01\0db.corp.example\0").unwrap(),
            "db.corp.example:80"
        );
        assert_eq!(request(b"\x04\x01\x00\x50\x0a\0\0\x01me\0").unwrap(), "10.0.0.1:80");
    }

    #[test]
    fn p14_p15_what_is_refused() {
        assert_eq!(request(b"\x04\x01\0\0\x0a\0\0\x01\0"), Err(Outcome::BadRequest));
        assert_eq!(request(b"\x04\x01\0\x50\0\0\0\x01\0\0"), Err(Outcome::BadRequest));
        assert_eq!(request(b"\x04\x02"), Err(Outcome::UnsupportedCmd));
        let endless = [&b"\x04\x01\0\x50\x0a\0\0\x01"[..], &[b'a'; 504]].concat();
        assert_eq!(request(&endless), Err(Outcome::BadRequest));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _any = parse_request(&bytes);
        }

        #[test]
        fn p1_every_prefix_waits_for_more(cut in 0usize..25) {
            let whole = b"\x04\x01\x00\x50\0\0\0\x01me\0db.corp.example\0";
            prop_assume!(cut < whole.len());
            prop_assert_eq!(parse_request(&whole[..cut]), Ok(Parsed::Incomplete));
        }
    }
}
