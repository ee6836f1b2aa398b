//! HTTP/1 message heads, read strictly (RFC 9112 sections 2 to 5). Parses only.
//!
//! Anything two implementations could read in two ways is refused: bare LF, folded lines, a request's blanks
//! before a colon, empty names, control characters. Where the RFC says how one thing has to be read it is read
//! so and written anew: empty lines before a request, an answer's blanks before a colon.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::parse::{ParseError, Parsed};
use crate::outcome::Outcome;

/// Longest head in bytes, the blank line included, unless `limits.max_head` says otherwise. Java servers take
/// 8 KiB, nginx 32 KiB, Go 1 MiB; a Kerberos ticket or a handful of cookies fills 16 KiB.
pub const DEFAULT_MAX_HEAD: usize = 64 * 1024;
/// Most fields of a head.
pub const MAX_FIELDS: usize = 256;
/// Most empty lines skipped before a request line. RFC 9112 section 2.2 wants at least one; a client that ends
/// each of its bodies with a stray CR LF sends one per request.
const MAX_EMPTY_LINES: usize = 4;

/// HTTP/1.0 or HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One field line, as ranges into the head's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadField {
    name: Range<usize>,
    value: Range<usize>,
}

/// A head's start line and fields, over the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageHead {
    bytes: bytes::Bytes,
    /// The start line's three parts.
    start: [Range<usize>; 3],
    fields: Vec<HeadField>,
}

impl MessageHead {
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
pub enum MessageKind {
    /// `method SP target SP version`
    Request,
    /// `version SP status SP [reason]`
    Response,
}

/// Reads one head from the front of `bytes`, at most `most` of them. Empty lines before a request line are
/// skipped and count as used.
///
/// # Errors
/// [`ParseError`]: `head_too_large` beyond `most` bytes or 256 fields, else `bad_request`.
pub fn parse_head(
    bytes: &[u8],
    side: MessageKind,
    most: usize,
) -> Result<Parsed<MessageHead>, ParseError> {
    let skipped = match side {
        MessageKind::Request => match empty_lines(bytes) {
            LeadingLines::Undecided => return Ok(Parsed::Incomplete),
            LeadingLines::Begun(skipped) => skipped,
            LeadingLines::Malformed(what) => return Err(ParseError::bad_request(what)),
        },
        MessageKind::Response => 0,
    };
    let Some(length) = end_of_head(&bytes[skipped..], most.saturating_sub(skipped))? else {
        return Ok(Parsed::Incomplete);
    };
    let whole = &bytes[skipped..skipped + length];
    let head = &whole[..length - 2];
    let mut lines = HeadLines { bytes: head, at: 0 };
    let start = match lines.next() {
        Some(line) => start_line(head, line, side)?,
        None => {
            return Err(ParseError::bad_request(
                "the answer has no status line: send HTTP/1.1 and a status",
            ));
        }
    };
    let fields = read_fields(head, lines, side)?;
    let bytes = bytes::Bytes::copy_from_slice(whole);
    Ok(Parsed::Whole { value: MessageHead { bytes, start, fields }, used: skipped + length })
}

/// Reads a trailer section: field lines up to a blank line (RFC 9112 section 7.1.2), of a message of this side.
///
/// # Errors
/// [`ParseError`] as for a head of the default length.
pub fn parse_trailers(bytes: &[u8], side: MessageKind) -> Result<Parsed<MessageHead>, ParseError> {
    let Some(end) = end_of_head(bytes, DEFAULT_MAX_HEAD)? else { return Ok(Parsed::Incomplete) };
    let lines = HeadLines { bytes: &bytes[..end - 2], at: 0 };
    let fields = read_fields(&bytes[..end], lines, side)?;
    let bytes = bytes::Bytes::copy_from_slice(&bytes[..end]);
    Ok(Parsed::Whole { value: MessageHead { bytes, start: [0..0, 0..0, 0..0], fields }, used: end })
}

/// What stands before a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeadingLines {
    /// So far nothing, or only empty lines, the last one perhaps not whole.
    Undecided,
    /// So many bytes of empty lines; then a line begins.
    Begun(usize),
    /// What no client of HTTP sends there.
    Malformed(&'static str),
}

/// Looks for the request line behind the empty lines that a server skips (RFC 9112 section 2.2).
pub(super) fn empty_lines(bytes: &[u8]) -> LeadingLines {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [] | [b'\r'] => return LeadingLines::Undecided,
            [b'\r', b'\n', ..] if at == 2 * MAX_EMPTY_LINES => {
                return LeadingLines::Malformed(
                    "more than four empty lines before a request: send none",
                );
            }
            [b'\r', b'\n', ..] => at += 2,
            [b'\r' | b'\n', ..] => {
                return LeadingLines::Malformed("a line ends without CR LF: end lines with CR LF");
            }
            _ => return LeadingLines::Begun(at),
        }
    }
}

/// Whether something other than empty lines has come: a client that ends its last body with a stray line end
/// has not begun another request.
pub(super) fn request_has_begun(bytes: &[u8]) -> bool {
    empty_lines(bytes) != LeadingLines::Undecided
}

fn read_fields(
    head: &[u8],
    lines: HeadLines<'_>,
    side: MessageKind,
) -> Result<Vec<HeadField>, ParseError> {
    lines.map(|line| parse_field(head, line, side)).collect()
}

/// Reads the version of a request's third part.
///
/// # Errors
/// [`ParseError`] for anything but `HTTP/1.0` and `HTTP/1.1`.
pub fn parse_version(text: &[u8]) -> Result<HttpVersion, ParseError> {
    match text {
        b"HTTP/1.1" => Ok(HttpVersion::Http11),
        b"HTTP/1.0" => Ok(HttpVersion::Http10),
        other => Err(ParseError::bad_request(format!(
            "version {} is not HTTP/1.1 or HTTP/1.0: send one of them",
            other.escape_ascii()
        ))),
    }
}

/// True for the bytes of a token (RFC 9110 section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Where the head ends, after its blank line; bare LF and too many lines are found on the way, so that a head
/// that comes byte by byte costs no more than its fields to look through again.
fn end_of_head(bytes: &[u8], most: usize) -> Result<Option<usize>, ParseError> {
    let seen = &bytes[..bytes.len().min(most)];
    let mut line = 0;
    for (lines, lf) in memchr::memchr_iter(b'\n', seen).enumerate() {
        if lf == 0 || seen[lf - 1] != b'\r' {
            return Err(ParseError::bad_request("a line ends without CR: end lines with CR LF"));
        }
        if lf == line + 1 {
            return Ok(Some(lf + 1));
        }
        // The start line has come before the fields.
        if lines > MAX_FIELDS {
            let message = format!("the head has more than {MAX_FIELDS} fields: send less");
            return Err(ParseError::new(Outcome::HeadTooLarge, message));
        }
        line = lf + 1;
    }
    if bytes.len() >= most {
        let message =
            format!("the head has more than {most} bytes: send less, or raise limits.max_head");
        return Err(ParseError::new(Outcome::HeadTooLarge, message));
    }
    Ok(None)
}

/// The lines of a head, without their CR LF.
struct HeadLines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for HeadLines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = self.at + memchr::memchr(b'\n', rest)?;
        let line = self.at..end - 1;
        self.at = end + 1;
        Some(line)
    }
}

fn start_line(
    head: &[u8],
    line: Range<usize>,
    side: MessageKind,
) -> Result<[Range<usize>; 3], ParseError> {
    let bad = || {
        let shown = redact_target(&head[line.clone()]);
        ParseError::bad_request(format!("the first line {shown} is not HTTP/1: check it"))
    };
    let text = &head[line.clone()];
    let first = memchr::memchr(b' ', text).ok_or_else(bad)?;
    let after = memchr::memchr(b' ', &text[first + 1..]).map(|at| first + 1 + at);
    let second = match (after, side) {
        (Some(second), _) => second,
        (None, MessageKind::Response) => text.len(),
        (None, MessageKind::Request) => return Err(bad()),
    };
    let at = |from: usize, to: usize| line.start + from..line.start + to.max(from);
    let parts = [at(0, first), at(first + 1, second), at((second + 1).min(text.len()), text.len())];
    let good = match side {
        MessageKind::Request => {
            // Nothing that ends a word or a line. What is not ASCII is no URI (RFC 3986 section 2) and is sent
            // all the same; the authority takes none of it.
            let visible = |b: &u8| b.is_ascii_graphic() || *b >= 0x80;
            head[parts[0].clone()].iter().copied().all(is_token)
                && first > 0
                && head[parts[1].clone()].iter().all(visible)
                && second > first + 1
                && parse_version(&head[parts[2].clone()]).is_ok()
        }
        MessageKind::Response => {
            parse_version(&head[parts[0].clone()]).is_ok()
                && matches!(head[parts[1].clone()], [b'1'..=b'9', b, c] if b.is_ascii_digit() && c.is_ascii_digit())
                && head[parts[2].clone()].iter().copied().all(in_value)
        }
    };
    if good { Ok(parts) } else { Err(bad()) }
}

/// The beginning of a line for a message, without what may be a secret: a URL's password stands before its
/// last `@`, and its query carries tokens.
pub(super) fn redact_target(line: &[u8]) -> String {
    const SHOWN: usize = 80;
    let (lead, rest) = match memchr::memmem::find(line, b"://") {
        Some(at) => line.split_at(at + 3),
        None => (&line[..0], line),
    };
    let (hidden, rest) = match memchr::memrchr(b'@', rest) {
        Some(at) => ("[hidden]", &rest[at..]),
        None => ("", rest),
    };
    let (rest, query) = match memchr::memchr(b'?', rest) {
        Some(at) => (&rest[..=at], "[hidden]"),
        None => (rest, ""),
    };
    let cut = |part: &[u8]| part[..part.len().min(SHOWN)].escape_ascii().to_string();
    format!("{}{hidden}{}{query}", cut(lead), cut(rest))
}

fn parse_field(
    head: &[u8],
    line: Range<usize>,
    side: MessageKind,
) -> Result<HeadField, ParseError> {
    let text = &head[line.clone()];
    // Its name alone: the value may be a cookie or a token, and without a colon nobody knows where it begins.
    let bad = |what: &str| {
        let name = memchr::memchr(b':', text).map(|colon| &text[..colon.min(60)]);
        let token = |name: &&[u8]| name.iter().all(|b| b.is_ascii_graphic());
        let name = name.filter(token).map(|name| format!("{} ", name.escape_ascii()));
        ParseError::bad_request(format!("field {}{what}: check it", name.unwrap_or_default()))
    };
    if matches!(text.first(), Some(b' ' | b'\t')) {
        return Err(bad("is folded over two lines"));
    }
    let colon = memchr::memchr(b':', text).ok_or_else(|| bad("has no colon"))?;
    let space = |b: &u8| matches!(b, b' ' | b'\t');
    // A request's are a way to hide a field, an answer's are taken off by whoever passes it on (RFC 9112
    // section 5.1).
    let blanks = match side {
        MessageKind::Request => 0,
        MessageKind::Response => text[..colon].iter().rev().take_while(|b| space(b)).count(),
    };
    let name = &text[..colon - blanks];
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(bad("has no valid name"));
    }
    if !text[colon + 1..].iter().copied().all(in_value) {
        return Err(bad("holds a control character"));
    }
    let value = &text[colon + 1..];
    let lead = value.iter().take_while(|b| space(b)).count();
    let tail = value[lead..].iter().rev().take_while(|b| space(b)).count();
    let from = line.start + colon + 1 + lead;
    Ok(HeadField { name: line.start..line.start + name.len(), value: from..line.end - tail })
}

/// Visible characters, white space and obs-text (RFC 9110 section 5.5).
fn in_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], side: MessageKind) -> Result<Parsed<MessageHead>, ParseError> {
        parse_head(bytes, side, DEFAULT_MAX_HEAD)
    }

    fn request(text: &str) -> Result<Parsed<MessageHead>, ParseError> {
        read(text.as_bytes(), MessageKind::Request)
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
        for side in [MessageKind::Request, MessageKind::Response] {
            let line =
                if side == MessageKind::Request { "GET / HTTP/1.1" } else { "HTTP/1.1 200 OK" };
            let fields = |count: usize| format!("{line}\r\n{}\r\n", "A: b\r\n".repeat(count));
            assert!(matches!(read(fields(256).as_bytes(), side), Ok(Parsed::Whole { .. })));
            let bad = read(fields(257).as_bytes(), side).unwrap_err();
            assert_eq!(bad.outcome, Outcome::HeadTooLarge);
            // It need not have ended: a head of many short lines is not looked through again and again.
            let begun = &fields(257)[..fields(257).len() - 2];
            assert_eq!(read(begun.as_bytes(), side).unwrap_err().outcome, Outcome::HeadTooLarge);
            let long = |length: usize| {
                let bare = format!("{line}\r\nA: \r\n\r\n");
                bare.replace("A: ", &format!("A: {}", "a".repeat(length - bare.len())))
            };
            for most in [1024, DEFAULT_MAX_HEAD] {
                let whole = parse_head(long(most).as_bytes(), side, most);
                assert!(matches!(whole, Ok(Parsed::Whole { used, .. }) if used == most));
                let bad = parse_head(long(most + 1).as_bytes(), side, most).unwrap_err();
                assert_eq!(bad.outcome, Outcome::HeadTooLarge);
            }
        }
        assert_eq!(outcome(&format!("GET /{}", "a".repeat(64 * 1024))), Outcome::HeadTooLarge);
    }

    #[test]
    fn p21_empty_lines_before_a_request_are_skipped_four_at_most() {
        let line = "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n";
        for empty in 0..=4 {
            let text = "\r\n".repeat(empty) + line;
            let Ok(Parsed::Whole { value, used }) = request(&text) else { panic!("{empty}") };
            assert_eq!((used, value.first()), (text.len(), &b"GET"[..]));
            for cut in 0..text.len() {
                assert_eq!(request(&text[..cut]), Ok(Parsed::Incomplete), "{empty}, {cut}");
                assert_eq!(request_has_begun(&text.as_bytes()[..cut]), cut > 2 * empty);
            }
        }
        for bad in ["\r\n".repeat(5), "\n".into(), "\r\r\n".into(), "\r\n\n".into(), "\rG".into()] {
            assert_eq!(outcome(&bad), Outcome::BadRequest, "{bad:?}");
            assert_eq!(outcome(&(bad + line)), Outcome::BadRequest);
        }
        // An answer begins with its status line.
        for text in ["\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n"] {
            assert!(read(text.as_bytes(), MessageKind::Response).is_err(), "{text:?}");
        }
    }

    #[test]
    fn p21_an_answers_blanks_before_a_colon_are_taken_off() {
        let text = b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length \t : 5\r\n\r\n";
        let Ok(Parsed::Whole { value, .. }) = read(text, MessageKind::Response) else { panic!() };
        let fields: Vec<_> = value.fields().collect();
        assert_eq!(fields, [(&b"X-A"[..], &b"1"[..]), (b"Content-Length", b"5")]);
        for bad in [" : 1", "\t: 1", "X A: 1", "X\x0b: 1", " X: 1", "X\u{a0}: 1", ": 1"] {
            let text = format!("HTTP/1.1 200 OK\r\nA: b\r\n{bad}\r\n\r\n");
            assert!(read(text.as_bytes(), MessageKind::Response).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn b6_what_a_message_shows_has_no_credentials() {
        for (line, seen) in [
            ("GET http://u:secret@h/p HTTP/9", "GET http://[hidden]@h/p HTTP/9"),
            ("GET ftp://u@e:secret@h/ HTTP/1.1", "GET ftp://[hidden]@h/ HTTP/1.1"),
            ("CONNECT u:secret@h:443", "[hidden]@h:443"),
            ("GET / HTTP/9", "GET / HTTP/9"),
        ] {
            assert_eq!(redact_target(line.as_bytes()), seen);
        }
        let long = redact_target(format!("GET http://{}:p@h/", "u".repeat(200)).as_bytes());
        assert_eq!(long, "GET http://[hidden]@h/");
    }

    #[test]
    fn p29_status_lines() {
        let response = |text: &str| read(text.as_bytes(), MessageKind::Response);
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
            let _any = (read(&bytes, MessageKind::Request), read(&bytes, MessageKind::Response));
        }

        #[test]
        fn r16_every_prefix_waits_for_more(cut in 0usize..60) {
            let whole = b"POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
            prop_assume!(cut < whole.len());
            prop_assert_eq!(read(&whole[..cut], MessageKind::Request), Ok(Parsed::Incomplete));
        }
    }
}
