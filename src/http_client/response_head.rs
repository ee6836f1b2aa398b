//! Reading the head of an answer to a request of the gateway's own (RFC 9112): one reader for all of them.
//!
//! httparse reads it; what it takes beyond the RFC (lines that end in LF alone, empty lines before the first) and
//! what frames a body twice is refused here.
#![forbid(unsafe_code)]

use std::fmt;

/// Longest head, in bytes; tailscaled's have about 300, those of web servers rarely more than 4,000.
pub const MAX_HEAD: usize = 16 * 1024;

/// Most header fields of a head.
const MAX_FIELDS: usize = 64;

/// What the head of an answer says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, 100 to 599.
    pub status: u16,
    /// HTTP/1.0 or HTTP/1.1: 0 or 1.
    pub minor_version: u8,
    /// Where the body ends.
    pub framing: BodyFraming,
    /// Bytes of the head itself, its empty line included.
    pub length: usize,
}

/// Where a body ends (RFC 9112 section 6.3), the answers to HEAD and CONNECT aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// When the server closes the connection, for want of a length and of chunks.
    UntilClose,
}

/// Why bytes are no head of an answer, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseHeadError {
    /// Good so far: more bytes are needed.
    Incomplete,
    /// The first line is none of HTTP/1.0 or HTTP/1.1.
    NotHttp,
    /// Longer than [`MAX_HEAD`], or of more fields than 64.
    TooLong,
    /// A line that ends in LF alone.
    LineEnd,
    /// A header field that is not `name: value`.
    BadField,
    /// A `Content-Length` that is no number, or more than one.
    BadContentLength,
    /// A `Transfer-Encoding` other than `chunked`.
    UnknownCoding,
}

impl ResponseHeadError {
    /// What is wrong with the answer, as a part of a sentence.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Incomplete => "the head of its answer is cut short",
            Self::NotHttp => "its answer is not HTTP/1.1",
            Self::TooLong => "the head of its answer has no end",
            Self::LineEnd => "a line of its answer does not end as HTTP has it",
            Self::BadField => "a header field of its answer is none",
            Self::BadContentLength => "its Content-Length is none",
            Self::UnknownCoding => "its transfer coding is unknown",
        }
    }
}

impl fmt::Display for ResponseHeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ResponseHeadError {}

impl ResponseHead {
    /// Reads the head at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// [`ResponseHeadError`]. Anything but `Incomplete` is final, whatever follows.
    pub fn parse(bytes: &[u8]) -> Result<Self, ResponseHeadError> {
        const START: &[u8] = b"HTTP/1.";
        if !START.iter().zip(bytes).all(|(expected, found)| expected == found) {
            return Err(ResponseHeadError::NotHttp);
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(bytes).map_err(of_httparse)?;
        let length = match parsed {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => bytes.len(),
        };
        if length > MAX_HEAD || (parsed.is_partial() && length == MAX_HEAD) {
            return Err(ResponseHeadError::TooLong);
        }
        if memchr::memchr_iter(b'\n', &bytes[..length]).any(|at| bytes[at - 1] != b'\r') {
            return Err(ResponseHeadError::LineEnd);
        }
        if parsed.is_partial() {
            return Err(ResponseHeadError::Incomplete);
        }
        let (Some(status @ 100..=599), Some(minor_version)) = (response.code, response.version)
        else {
            return Err(ResponseHeadError::NotHttp);
        };
        let framing = framing(status, response.headers)?;
        Ok(Self { status, minor_version, framing, length })
    }

    /// The value of the first field of that name, in the bytes that this head was read from.
    pub fn field<'b>(&self, bytes: &'b [u8], name: &str) -> Option<&'b [u8]> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(bytes.get(..self.length)?).ok()?;
        let mut fields = response.headers.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

fn of_httparse(error: httparse::Error) -> ResponseHeadError {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => ResponseHeadError::TooLong,
        Error::HeaderName | Error::HeaderValue => ResponseHeadError::BadField,
        Error::NewLine => ResponseHeadError::LineEnd,
        _ => ResponseHeadError::NotHttp,
    }
}

fn framing(status: u16, fields: &[httparse::Header<'_>]) -> Result<BodyFraming, ResponseHeadError> {
    let (mut chunked, mut length) = (false, None);
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(ResponseHeadError::UnknownCoding);
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("content-length") {
            let digits = std::str::from_utf8(field.value.trim_ascii()).ok();
            let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let found = digits.and_then(|text| text.parse().ok());
            if found.is_none() || length.is_some() {
                return Err(ResponseHeadError::BadContentLength);
            }
            length = found;
        }
    }
    Ok(match (status, length) {
        (100..200 | 204 | 304, _) => BodyFraming::Length(0),
        _ if chunked => BodyFraming::Chunked,
        (_, Some(length)) => BodyFraming::Length(length),
        (_, None) => BodyFraming::UntilClose,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
        Tailscale-Version: 1.98.9\r\nUpgrade: ts-dial\r\n\r\n";
    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n";
    const CHUNKED: &[u8] = b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: Chunked\r\n\r\n";

    fn parsed(text: &str) -> ResponseHead {
        ResponseHead::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn status_framing_and_fields_are_read() {
        let head = ResponseHead::parse(&[PLAIN, b"hello"].concat()).unwrap();
        let framing = BodyFraming::Length(5);
        let expected = ResponseHead { status: 200, minor_version: 1, framing, length: PLAIN.len() };
        assert_eq!(head, expected);
        assert_eq!(head.field(PLAIN, "a"), Some(&b"b"[..]));
        assert_eq!(head.field(PLAIN, "upgrade"), None);
        assert_eq!(ResponseHead::parse(CHUNKED).unwrap().framing, BodyFraming::Chunked);
        assert_eq!(parsed("HTTP/1.0 200 OK\r\n\r\n").minor_version, 0);
        assert_eq!(parsed("HTTP/1.1 200\r\n\r\n").framing, BodyFraming::UntilClose);
        for status in ["101 Switching", "204 No Content", "304 Not Modified"] {
            let head = parsed(&format!("HTTP/1.1 {status}\r\n\r\n"));
            assert_eq!(head.framing, BodyFraming::Length(0), "{status}");
        }
    }

    #[test]
    fn u8_what_is_not_such_a_head_is_bad() {
        use ResponseHeadError::*;
        let bad: [(&[u8], ResponseHeadError); 19] = [
            (b"\x05\x00", NotHttp),
            (b"SSH-2.0-x\r\n", NotHttp),
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", NotHttp),
            (b"HTTP/2.0 200 OK\r\n", NotHttp),
            (b"http/1.1 200 OK\r\n", NotHttp),
            (b"HTTP/1.1  200 OK\r\n", NotHttp),
            (b"HTTP/1.1 20 OK\r\n", NotHttp),
            (b"HTTP/1.1 2000 OK\r\n", NotHttp),
            (b"HTTP/1.1 900 OK\r\n\r\n", NotHttp),
            (b"HTTP/1.1 200 OK\n", LineEnd),
            (b"HTTP/1.1 200 O\rK\r\n", NotHttp),
            (b"HTTP/1.1 200 OK\r\n\n", LineEnd),
            (b"HTTP/1.1 200 OK\r\nno colon\r\n", BadField),
            (b"HTTP/1.1 200 OK\r\n: nameless\r\n", BadField),
            (b"HTTP/1.1 200 OK\r\nA : b\r\n", BadField),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n", BadField),
            (b"HTTP/1.1 200 OK\r\nA: \x01\r\n", BadField),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", UnknownCoding),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", UnknownCoding),
        ];
        for (bytes, why) in bad {
            assert_eq!(ResponseHead::parse(bytes), Err(why), "{}", bytes.escape_ascii());
        }
        for length in ["+5", "5, 5", "", "99999999999999999999", "5\r\nContent-Length: 5"] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(ResponseHead::parse(text.as_bytes()), Err(BadContentLength), "{length}");
        }
        let endless =
            [b"HTTP/1.1 200 OK\r\n".to_vec(), b"A: b\r\n".repeat(MAX_FIELDS + 1)].concat();
        assert_eq!(ResponseHead::parse(&endless), Err(TooLong));
        let wide = [b"HTTP/1.1 200 ".to_vec(), vec![b'a'; MAX_HEAD]].concat();
        assert_eq!(ResponseHead::parse(&wide), Err(TooLong));
        assert_eq!(ResponseHead::parse(&wide[..MAX_HEAD]), Err(TooLong));
        assert_eq!(ResponseHead::parse(&wide[..MAX_HEAD - 1]), Err(Incomplete));
    }

    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let field = ("[A-Za-z-]{1,12}", "[ -~]{0,30}")
            .prop_map(|(name, value)| format!("{name}: {value}\r\n"));
        (100u16..600, "[ -~]{0,20}", proptest::collection::vec(field, 0..8)).prop_map(
            |(status, reason, fields)| {
                format!("HTTP/1.1 {status} {reason}\r\n{}\r\n", fields.concat()).into_bytes()
            },
        )
    }

    proptest! {
        #[test]
        fn u6_every_split_gives_the_same_head(
            start in prop_oneof![Just(UPGRADED), Just(PLAIN), Just(CHUNKED)],
            early in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = [start, &early].concat();
            let whole = ResponseHead::parse(start).unwrap();
            for end in 0..start.len() {
                prop_assert_eq!(ResponseHead::parse(&bytes[..end]), Err(ResponseHeadError::Incomplete));
            }
            for end in start.len()..=bytes.len() {
                prop_assert_eq!(ResponseHead::parse(&bytes[..end]), Ok(whole));
            }
        }

        #[test]
        fn well_formed_answers_are_read_whole(bytes in answer()) {
            let code = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
            let head = ResponseHead::parse(&bytes).unwrap();
            prop_assert_eq!((head.status, head.length), (code, bytes.len()));
        }

        #[test]
        fn any_bytes_are_judged_for_good(
            start in "(HTTP/1\\.[01] [0-9]{3}( OK)?\r?\n)?([A-Za-z-]{1,9}:? ?[0-9a-z]{0,4}\r?\n){0,4}",
            rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = [start.as_bytes(), &rest].concat();
            let whole = ResponseHead::parse(&bytes);
            for cut in 0..bytes.len() {
                match ResponseHead::parse(&bytes[..cut]) {
                    Err(ResponseHeadError::Incomplete) => {}
                    part @ Ok(_) => prop_assert_eq!(part, whole),
                    Err(_bad) => prop_assert!(whole.is_err_and(|why| why != ResponseHeadError::Incomplete)),
                }
            }
        }
    }
}
