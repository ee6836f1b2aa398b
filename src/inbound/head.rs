//! HTTP/1 message heads, read strictly (RFC 9112 sections 2 to 5). Parses only.
//!
//! Anything two implementations could read in two ways is refused: bare LF, folded lines, space
//! before a colon, empty names, control characters.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::parse::{Bad, Parsed};
use crate::outcome::Outcome;

/// Longest head in bytes, the blank line included.
pub const MAX_HEAD: usize = 16 * 1024;
/// Most fields of a head.
pub const MAX_FIELDS: usize = 100;

/// HTTP/1.0 or HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One field line, as ranges into the head's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

/// A head's start line and fields, over the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    bytes: bytes::Bytes,
    /// The start line's three parts.
    start: [Range<usize>; 3],
    fields: Vec<Field>,
}

impl Head {
    /// Method of a request, version of a response.
    pub fn first(&self) -> &[u8] {
        &self.bytes[self.start[0].clone()]
    }

    /// Target of a request, status of a response.
    pub fn second(&self) -> &[u8] {
        &self.bytes[self.start[1].clone()]
    }

    /// Version of a request, reason of a response.
    pub fn third(&self) -> &[u8] {
        &self.bytes[self.start[2].clone()]
    }

    /// Every field in order, values without the white space around them.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let at = |range: &Range<usize>| &self.bytes[range.clone()];
        self.fields.iter().map(move |field| (at(&field.name), at(&field.value)))
    }

    /// The values of every field called `name`.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let called = move |field: &(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.fields().filter(called).map(|(_, value)| value)
    }
}

/// Which start line is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `method SP target SP version`
    Request,
    /// `version SP status SP [reason]`
    Response,
}

/// Reads one head from the front of `bytes`.
///
/// # Errors
/// [`Bad`]: `head_too_large` beyond 16 KiB or 100 fields, else `bad_request`.
pub fn parse(bytes: &[u8], side: Side) -> Result<Parsed<Head>, Bad> {
    let Some(end) = end_of_head(bytes)? else { return Ok(Parsed::Incomplete) };
    let head = &bytes[..end - 2];
    let mut lines = Lines { bytes: head, at: 0 };
    let start = match lines.next() {
        Some(line) => start_line(head, line, side)?,
        None => {
            return Err(Bad::request(
                "the request has no request line: send METHOD target HTTP/1.1",
            ));
        }
    };
    let fields = read_fields(head, lines)?;
    let bytes = bytes::Bytes::copy_from_slice(&bytes[..end]);
    Ok(Parsed::Whole { value: Head { bytes, start, fields }, used: end })
}

/// Reads a trailer section: field lines up to a blank line (RFC 9112 section 7.1.2).
///
/// # Errors
/// [`Bad`] as for a head.
pub fn parse_trailers(bytes: &[u8]) -> Result<Parsed<Head>, Bad> {
    let Some(end) = end_of_head(bytes)? else { return Ok(Parsed::Incomplete) };
    let lines = Lines { bytes: &bytes[..end - 2], at: 0 };
    let fields = read_fields(&bytes[..end], lines)?;
    let bytes = bytes::Bytes::copy_from_slice(&bytes[..end]);
    Ok(Parsed::Whole { value: Head { bytes, start: [0..0, 0..0, 0..0], fields }, used: end })
}

fn read_fields(head: &[u8], lines: Lines<'_>) -> Result<Vec<Field>, Bad> {
    let mut fields = Vec::new();
    for line in lines {
        if fields.len() == MAX_FIELDS {
            return Err(too_large("more than 100 fields"));
        }
        fields.push(field(head, line)?);
    }
    Ok(fields)
}

/// Reads the version of a request's third part.
///
/// # Errors
/// [`Bad`] for anything but `HTTP/1.0` and `HTTP/1.1`.
pub fn version(text: &[u8]) -> Result<Version, Bad> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        other => Err(Bad::request(format!(
            "version {} is not HTTP/1.1 or HTTP/1.0: send one of them",
            other.escape_ascii()
        ))),
    }
}

/// True for the bytes of a token (RFC 9110 section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Where the head ends, after its blank line; bare LF is found on the way.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, Bad> {
    let seen = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut line = 0;
    for lf in memchr::memchr_iter(b'\n', seen) {
        if lf == 0 || seen[lf - 1] != b'\r' {
            return Err(Bad::request("a line ends without CR: end lines with CR LF"));
        }
        if lf == line + 1 {
            return Ok(Some(lf + 1));
        }
        line = lf + 1;
    }
    if bytes.len() >= MAX_HEAD {
        return Err(too_large("more than 16 KiB"));
    }
    Ok(None)
}

fn too_large(what: &str) -> Bad {
    Bad::new(Outcome::HeadTooLarge, format!("the head has {what}: send less"))
}

/// The lines of a head, without their CR LF.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = self.at + memchr::memchr(b'\n', rest)?;
        let line = self.at..end - 1;
        self.at = end + 1;
        Some(line)
    }
}

fn start_line(head: &[u8], line: Range<usize>, side: Side) -> Result<[Range<usize>; 3], Bad> {
    let bad = || {
        let shown = head[line.clone()].iter().take(80).copied().collect::<Vec<u8>>();
        Bad::request(format!("the first line {} is not HTTP/1: check it", shown.escape_ascii()))
    };
    let text = &head[line.clone()];
    let first = memchr::memchr(b' ', text).ok_or_else(bad)?;
    let after = memchr::memchr(b' ', &text[first + 1..]).map(|at| first + 1 + at);
    let second = match (after, side) {
        (Some(second), _) => second,
        (None, Side::Response) => text.len(),
        (None, Side::Request) => return Err(bad()),
    };
    let at = |from: usize, to: usize| line.start + from..line.start + to.max(from);
    let parts = [at(0, first), at(first + 1, second), at((second + 1).min(text.len()), text.len())];
    let good = match side {
        Side::Request => {
            let visible = |b: &u8| b.is_ascii_graphic();
            head[parts[0].clone()].iter().copied().all(is_token)
                && first > 0
                && head[parts[1].clone()].iter().all(visible)
                && second > first + 1
                && version(&head[parts[2].clone()]).is_ok()
        }
        Side::Response => {
            version(&head[parts[0].clone()]).is_ok()
                && matches!(head[parts[1].clone()], [b'1'..=b'9', b, c] if b.is_ascii_digit() && c.is_ascii_digit())
                && head[parts[2].clone()].iter().copied().all(in_value)
        }
    };
    if good { Ok(parts) } else { Err(bad()) }
}

fn field(head: &[u8], line: Range<usize>) -> Result<Field, Bad> {
    let text = &head[line.clone()];
    let bad = |what: &str| {
        let shown = text.split(|b| *b == b':').next().unwrap_or(text);
        let shown = &shown[..shown.len().min(60)];
        Bad::request(format!("field {} {what}: check it", shown.escape_ascii()))
    };
    if matches!(text.first(), Some(b' ' | b'\t')) {
        return Err(bad("is folded over two lines"));
    }
    let colon = memchr::memchr(b':', text).ok_or_else(|| bad("has no colon"))?;
    if colon == 0 || !text[..colon].iter().copied().all(is_token) {
        return Err(bad("has no valid name"));
    }
    if !text[colon + 1..].iter().copied().all(in_value) {
        return Err(bad("holds a control character"));
    }
    let space = |b: &u8| matches!(b, b' ' | b'\t');
    let value = &text[colon + 1..];
    let lead = value.iter().take_while(|b| space(b)).count();
    let tail = value[lead..].iter().rev().take_while(|b| space(b)).count();
    let from = line.start + colon + 1 + lead;
    Ok(Field { name: line.start..line.start + colon, value: from..line.end - tail })
}

/// Visible characters, white space and obs-text (RFC 9110 section 5.5).
fn in_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(text: &str) -> Result<Parsed<Head>, Bad> {
        parse(text.as_bytes(), Side::Request)
    }

    fn outcome(text: &str) -> Outcome {
        request(text).expect_err(text).outcome
    }

    #[test]
    fn a_plain_head_is_read() {
        let text = "GET http://h/p?q HTTP/1.1\r\nHost:  h \r\nX:\r\n\r\nbody";
        let Ok(Parsed::Whole { value, used }) = request(text) else { panic!("{text}") };
        assert_eq!(used, text.len() - 4);
        assert_eq!((value.first(), value.second()), (&b"GET"[..], &b"http://h/p?q"[..]));
        assert_eq!(value.values("HOST").collect::<Vec<_>>(), [b"h"]);
        assert_eq!(value.values("x").collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn p21_what_is_ambiguous_is_refused() {
        let line = "GET / HTTP/1.1\r\nHost: h\r\n";
        for bad in
            ["A: b\n", " folded\r\n", "A : b\r\n", ": b\r\n", "A: \0\r\n", "A: \x07\r\n", "A\r\n"]
        {
            assert_eq!(outcome(&format!("{line}{bad}\r\n")), Outcome::BadRequest, "{bad:?}");
        }
        for bad in ["HTTP/1.32", "http/1.1", "HTTP/2.0", ""] {
            assert_eq!(outcome(&format!("GET / {bad}\r\n\r\n")), Outcome::BadRequest, "{bad}");
        }
        assert_eq!(outcome("GET  / HTTP/1.1\r\n\r\n"), Outcome::BadRequest);
        assert_eq!(outcome("PRI * HTTP/2.0\r\n\r\n"), Outcome::BadRequest);
    }

    #[test]
    fn p24_bounds() {
        let fields = "A: b\r\n".repeat(101);
        assert_eq!(outcome(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), Outcome::HeadTooLarge);
        assert_eq!(outcome(&format!("GET /{}", "a".repeat(16 * 1024))), Outcome::HeadTooLarge);
        let fields = "A: b\r\n".repeat(100);
        assert!(request(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).is_ok());
    }

    #[test]
    fn p29_status_lines() {
        let response = |text: &str| parse(text.as_bytes(), Side::Response);
        for good in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"] {
            assert!(matches!(response(good), Ok(Parsed::Whole { .. })), "{good}");
        }
        for bad in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/3 200 OK\r\n\r\n",
            "200 OK\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
        ] {
            assert!(response(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _any = (parse(&bytes, Side::Request), parse(&bytes, Side::Response));
        }

        #[test]
        fn r16_every_prefix_waits_for_more(cut in 0usize..60) {
            let whole = b"POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
            prop_assume!(cut < whole.len());
            prop_assert_eq!(parse(&whole[..cut], Side::Request), Ok(Parsed::Incomplete));
        }
    }
}
