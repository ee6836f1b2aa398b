//! How a message's body ends (RFC 9112 section 6). Parses only.
//!
//! Where two framings could be read, none is: that is how requests are smuggled.
#![forbid(unsafe_code)]

use super::head::{HttpVersion, MessageHead};
use super::parse::ParseError;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFraming {
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
/// [`ParseError`] for anything ambiguous: both framings, repeated or odd values (P22).
pub fn of_request(head: &MessageHead, version: HttpVersion) -> Result<MessageFraming, ParseError> {
    match (transfer_encoding(head, version)?, content_length(head)?) {
        (true, Some(_)) => Err(two_framings()),
        (true, None) => Ok(MessageFraming::Chunked),
        (false, Some(0) | None) => Ok(MessageFraming::None),
        (false, Some(length)) => Ok(MessageFraming::Length(length)),
    }
}

/// A response's body, given its status and the request's method (RFC 9112 section 6.3).
///
/// # Errors
/// [`ParseError`] as for requests (P29).
pub fn of_response(
    head: &MessageHead,
    version: HttpVersion,
    status: u16,
    to_head: bool,
) -> Result<MessageFraming, ParseError> {
    let (chunked, length) = (transfer_encoding(head, version)?, folded_length(head)?);
    if chunked && length.is_some() {
        return Err(two_framings());
    }
    if to_head || matches!(status, 100..=199 | 204 | 304) {
        return Ok(MessageFraming::None);
    }
    Ok(match (chunked, length) {
        (true, _) => MessageFraming::Chunked,
        (false, Some(0)) => MessageFraming::None,
        (false, Some(length)) => MessageFraming::Length(length),
        (false, None) => MessageFraming::UntilClose,
    })
}

fn two_framings() -> ParseError {
    ParseError::bad_request("the message has both Content-Length and Transfer-Encoding: send one")
}

fn transfer_encoding(head: &MessageHead, version: HttpVersion) -> Result<bool, ParseError> {
    let mut codings = head.values("transfer-encoding");
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(ParseError::bad_request(
            "Transfer-Encoding is not exactly one 'chunked': send that",
        ));
    }
    if version == HttpVersion::Http10 {
        return Err(ParseError::bad_request("HTTP/1.0 has no Transfer-Encoding: use HTTP/1.1"));
    }
    Ok(true)
}

/// A request's `Content-Length`, which may be there once.
fn content_length(head: &MessageHead) -> Result<Option<u64>, ParseError> {
    let mut lengths = head.values("content-length");
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(length), None) => parse_decimal(length).map(Some),
        (Some(_), Some(_)) => Err(no_length()),
    }
}

/// An answer's `Content-Length`: the same number may stand there several times, in several fields or in one (RFC
/// 9112 section 6.3), for somebody on the way has sent it once more.
fn folded_length(head: &MessageHead) -> Result<Option<u64>, ParseError> {
    let mut lengths = head.values("content-length").flat_map(list_members);
    let Some(first) = lengths.next() else { return Ok(None) };
    match lengths.all(|length| length == first) {
        true => parse_decimal(first).map(Some),
        false => Err(no_length()),
    }
}

/// The members of a list, without the blanks around them (RFC 9110 section 5.6.1).
pub(super) fn list_members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn parse_decimal(length: &[u8]) -> Result<u64, ParseError> {
    let digits =
        Some(length).filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit));
    let text = digits.and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(no_length)
}

fn no_length() -> ParseError {
    ParseError::bad_request("Content-Length is not one plain decimal number: send that")
}

#[cfg(test)]
mod tests {
    use super::super::head::{self, MessageKind};
    use super::super::parse::Parsed;
    use super::*;

    fn request(fields: &str, version: &str) -> Result<MessageFraming, ParseError> {
        let text = format!("POST http://h/ HTTP/{version}\r\n{fields}\r\n\r\n");
        match head::parse_head(text.as_bytes(), MessageKind::Request, head::DEFAULT_MAX_HEAD)? {
            Parsed::Whole { value, .. } => of_request(&value, head::parse_version(value.third())?),
            Parsed::Incomplete => panic!("{text:?}"),
        }
    }

    fn response(fields: &str) -> Result<MessageFraming, ParseError> {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        match head::parse_head(text.as_bytes(), MessageKind::Response, head::DEFAULT_MAX_HEAD)? {
            Parsed::Whole { value, .. } => of_response(&value, HttpVersion::Http11, 200, false),
            Parsed::Incomplete => panic!("{text:?}"),
        }
    }

    #[test]
    fn p22_an_answers_equal_lengths_are_one() {
        for fields in
            ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5", "Content-Length : 5"]
        {
            assert_eq!(response(fields).unwrap(), MessageFraming::Length(5), "{fields}");
        }
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 05",
            "Content-Length: 5, 6",
            "Content-Length: 5,",
            "Content-Length: ,",
            "Content-Length:",
            "Content-Length: +5\r\nContent-Length: +5",
            "Content-Length : 5\r\nTransfer-Encoding: chunked",
        ] {
            assert!(response(fields).is_err(), "{fields}");
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
        assert_eq!(request("Content-Length: 5", "1.0").unwrap(), MessageFraming::Length(5));
        assert_eq!(request("Transfer-Encoding: Chunked", "1.1").unwrap(), MessageFraming::Chunked);
    }
}
