//! How a message's body ends (RFC 9112 section 6), and chunk size lines. Parses only.
//!
//! Where two framings could be read, none is: that is how requests are smuggled.
#![forbid(unsafe_code)]

use super::head::{Head, Version};
use super::parse::{Bad, Parsed};

/// Longest chunk size line, extensions included.
const MAX_SIZE_LINE: usize = 256;
/// Hexadecimal digits that fit 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk and its trailers.
    Chunked,
    /// With the connection (responses only).
    UntilClose,
}

/// A request's body.
///
/// # Errors
/// [`Bad`] for anything ambiguous: both framings, repeated or odd values (P22).
pub fn of_request(head: &Head, version: Version) -> Result<Body, Bad> {
    match (transfer_encoding(head, version)?, content_length(head)?) {
        (true, Some(_)) => Err(both()),
        (true, None) => Ok(Body::Chunked),
        (false, Some(0) | None) => Ok(Body::None),
        (false, Some(length)) => Ok(Body::Length(length)),
    }
}

/// A response's body, given its status and the request's method (RFC 9112 section 6.3).
///
/// # Errors
/// [`Bad`] as for requests (P29).
pub fn of_response(head: &Head, version: Version, status: u16, to_head: bool) -> Result<Body, Bad> {
    let (chunked, length) = (transfer_encoding(head, version)?, content_length(head)?);
    if chunked && length.is_some() {
        return Err(both());
    }
    if to_head || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Body::None);
    }
    Ok(match (chunked, length) {
        (true, _) => Body::Chunked,
        (false, Some(0)) => Body::None,
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::UntilClose,
    })
}

fn both() -> Bad {
    Bad::request("the message has both Content-Length and Transfer-Encoding: send one")
}

fn transfer_encoding(head: &Head, version: Version) -> Result<bool, Bad> {
    let mut codings = head.values("transfer-encoding");
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(Bad::request("Transfer-Encoding is not exactly one 'chunked': send that"));
    }
    if version == Version::Http10 {
        return Err(Bad::request("HTTP/1.0 has no Transfer-Encoding: use HTTP/1.1"));
    }
    Ok(true)
}

fn content_length(head: &Head) -> Result<Option<u64>, Bad> {
    let mut lengths = head.values("content-length");
    let Some(length) = lengths.next() else { return Ok(None) };
    let bad = || Bad::request("Content-Length is not one plain decimal number: send that");
    if lengths.next().is_some() || length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let text = std::str::from_utf8(length).map_err(|_| bad())?;
    text.parse().map(Some).map_err(|_| bad())
}

/// Reads a chunk's size line (RFC 9112 section 7.1); extensions are dropped.
///
/// # Errors
/// [`Bad`] for anything but hexadecimal digits, a bare LF or a line over 256 bytes (P23).
pub fn parse_size(bytes: &[u8]) -> Result<Parsed<u64>, Bad> {
    let seen = &bytes[..bytes.len().min(MAX_SIZE_LINE)];
    let digits = seen.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let bad = || Bad::request("a chunk size line is not hexadecimal digits and CR LF: check it");
    let after_is_odd = seen.get(digits).is_some_and(|b| !matches!(b, b';' | b'\r' | b' ' | b'\t'));
    if digits > MAX_SIZE_DIGITS || after_is_odd || (digits == 0 && !seen.is_empty()) {
        return Err(bad());
    }
    let Some(lf) = memchr::memchr(b'\n', seen) else {
        return if seen.len() < MAX_SIZE_LINE { Ok(Parsed::Incomplete) } else { Err(bad()) };
    };
    let extension = &seen[digits..lf];
    let clean = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    let sound = match extension.split_last() {
        Some((b'\r', text)) => {
            let bare = text.trim_ascii_start();
            text.iter().all(clean) && (text.is_empty() || bare.first() == Some(&b';'))
        }
        _ => false,
    };
    let size = std::str::from_utf8(&seen[..digits]).ok();
    let size = size.and_then(|text| u64::from_str_radix(text, 16).ok());
    match size {
        Some(value) if sound => Ok(Parsed::Whole { value, used: lf + 1 }),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::head::{self, Side};
    use super::*;

    fn request(fields: &str, version: &str) -> Result<Body, Bad> {
        let text = format!("POST http://h/ HTTP/{version}\r\n{fields}\r\n\r\n");
        match head::parse(text.as_bytes(), Side::Request)? {
            Parsed::Whole { value, .. } => of_request(&value, head::version(value.third())?),
            Parsed::Incomplete => panic!("{text:?}"),
        }
    }

    #[test]
    fn p22_nothing_ambiguous_is_framed() {
        let bad = [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: 5,5",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ];
        for fields in bad {
            assert!(request(fields, "1.1").is_err(), "{fields}");
        }
        assert!(request("Transfer-Encoding: chunked", "1.0").is_err());
        assert_eq!(request("Content-Length: 5", "1.0").unwrap(), Body::Length(5));
        assert_eq!(request("Transfer-Encoding: Chunked", "1.1").unwrap(), Body::Chunked);
    }

    #[test]
    fn p23_chunk_sizes() {
        let size = |text: &str| parse_size(text.as_bytes());
        assert_eq!(size("1f\r\n"), Ok(Parsed::Whole { value: 31, used: 4 }));
        assert_eq!(size("1;a=b\r\n"), Ok(Parsed::Whole { value: 1, used: 7 }));
        assert_eq!(size("1f\r"), Ok(Parsed::Incomplete));
        for bad in
            ["0_2e\r\n", "-1\r\n", "5\n", "\r\n", "x\r\n", "1 1\r\n", "11111111111111111\r\n"]
        {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        assert!(size(&format!("1;{}", "a".repeat(300))).is_err());
    }

    proptest! {
        #[test]
        fn sizes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _any = parse_size(&bytes);
        }
    }
}
