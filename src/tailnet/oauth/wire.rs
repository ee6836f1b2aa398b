//! One question and its answer over a connection of their own.
//!
//! Written by hand on top of httparse, for the sake of its memory: hyper's buffers are not ours to
//! zero, and these hold keys.
#![forbid(unsafe_code)]

use std::io;

use httparse::Status;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Url;
use zeroize::Zeroizing;

/// Most of an answer, head and body.
const MAX: usize = 64 * 1024;
/// Most header fields of an answer.
const MAX_FIELDS: usize = 64;

/// What is asked.
#[derive(Clone, Copy)]
pub(super) struct HttpQuestion<'a> {
    /// Below the server's URL.
    pub(super) path: &'a str,
    /// `Content-Type`.
    pub(super) kind: &'a str,
    /// The token that allows it.
    pub(super) bearer: Option<&'a str>,
    /// What is sent.
    pub(super) body: &'a [u8],
}

/// What is answered.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    /// The HTTP status.
    pub(super) status: u16,
    /// What came.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum HttpFailure {
    /// The connection broke.
    Io(io::Error),
    /// It is no HTTP that we know; what is wrong with it.
    Strange(&'static str),
}

/// Asks the server at `base` and hears it out.
pub(super) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    base: &Url,
    question: HttpQuestion<'_>,
) -> Result<HttpAnswer, HttpFailure> {
    let request = request(base, question);
    stream.write_all(&request).await.map_err(HttpFailure::Io)?;
    stream.flush().await.map_err(HttpFailure::Io)?;
    // Its size is fixed: a buffer that grows leaves copies where it was.
    let mut buffer = Zeroizing::new(vec![0; MAX]);
    let mut filled = 0;
    loop {
        if let Some(answer) = answer(&buffer[..filled], false).map_err(HttpFailure::Strange)? {
            return Ok(answer);
        }
        if filled == MAX {
            return Err(HttpFailure::Strange("its answer is too long"));
        }
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if filled == 0 => return Err(HttpFailure::Io(error)),
            Err(_cut_short) => return Err(HttpFailure::Strange("its answer is cut short")),
        }
    }
    let whole = answer(&buffer[..filled], true).map_err(HttpFailure::Strange)?;
    whole.ok_or(HttpFailure::Strange("its answer is cut short"))
}

fn request(base: &Url, question: HttpQuestion<'_>) -> Zeroizing<Vec<u8>> {
    let HttpQuestion { path, kind, bearer, body } = question;
    let under = base.path().trim_end_matches('/');
    let host = super::way::server(base);
    let head = format!(
        "POST {under}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tailrace/{}\r\n\
         Accept: application/json\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n",
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    const BEARER: &str = "Authorization: Bearer ";
    let room = head.len() + BEARER.len() + bearer.map_or(0, str::len) + 4 + body.len();
    let mut request = Zeroizing::new(Vec::with_capacity(room));
    request.extend_from_slice(head.as_bytes());
    if let Some(token) = bearer {
        for part in [BEARER, token, "\r\n"] {
            request.extend_from_slice(part.as_bytes());
        }
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// Reads a whole answer (RFC 9112); `None`: more is needed. `ended`: nothing more comes.
fn answer(bytes: &[u8], ended: bool) -> Result<Option<HttpAnswer>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let start = match head.parse(bytes) {
        Ok(Status::Complete(start)) => start,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err("it is not HTTP/1.1"),
    };
    let status = head.code.unwrap_or_default();
    let field =
        |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let rest = &bytes[start..];
    let body = match (field("transfer-encoding"), field("content-length")) {
        (Some(coding), _) if coding.value.eq_ignore_ascii_case(b"chunked") => chunks(rest)?,
        (Some(_), _) => return Err("its transfer coding is unknown"),
        (None, Some(length)) => {
            let length: Option<usize> =
                std::str::from_utf8(length.value).ok().and_then(|text| text.trim().parse().ok());
            let length = length.ok_or("its Content-Length is none")?;
            rest.get(..length).map(|body| Zeroizing::new(body.to_vec()))
        }
        (None, None) => ended.then(|| Zeroizing::new(rest.to_vec())),
    };
    Ok(body.map(|body| HttpAnswer { status, body }))
}

/// Takes the chunks off a body; `None`: more is needed.
fn chunks(mut rest: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, &'static str> {
    const BAD: &str = "its chunks are none";
    let mut body = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(Status::Complete(found)) => found,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(BAD),
        };
        if size == 0 {
            return Ok(Some(body)); // trailers say nothing we need
        }
        let size = usize::try_from(size).map_err(|_| BAD)?;
        let end = start.checked_add(size).ok_or(BAD)?;
        let Some(chunk) = rest.get(start..end) else { return Ok(None) };
        body.extend_from_slice(chunk);
        rest = match &rest[end..] {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(BAD),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(u16, Vec<u8>)> {
        let answer = answer(text.as_bytes(), false).unwrap();
        answer.map(|answer| (answer.status, answer.body.to_vec()))
    }

    #[test]
    fn a_question_goes_below_the_base() {
        let question = HttpQuestion { path: "/api/x", kind: "k", bearer: Some("t"), body: b"b" };
        let said = request(&Url::parse("https://h:8443/under/").unwrap(), question);
        let said = String::from_utf8(said.to_vec()).unwrap();
        assert!(said.starts_with("POST /under/api/x HTTP/1.1\r\nHost: h:8443\r\n"), "{said}");
        assert!(
            said.ends_with("\r\nContent-Length: 1\r\nAuthorization: Bearer t\r\n\r\nb"),
            "{said}"
        );
    }

    #[test]
    fn whole_answers_of_each_framing() {
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let chunked =
            "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n";
        for end in 0..sized.len() {
            assert_eq!(read(&sized[..end]), None);
        }
        assert_eq!(read(sized), Some((200, b"{}".to_vec())));
        assert_eq!(read(chunked), Some((403, b"{}".to_vec())));
        assert_eq!(read(&chunked[..chunked.len() - 5]), None);
        let open = b"HTTP/1.1 200 OK\r\n\r\n{}";
        assert!(answer(open, false).unwrap().is_none());
        assert_eq!(*answer(open, true).unwrap().unwrap().body, b"{}");
    }

    #[test]
    fn u8_garbage_is_told() {
        for bad in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(answer(bad.as_bytes(), true).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(start in "HTTP/1.1 [0-9]{3} OK\r\n(Transfer-Encoding: chunked\r\n)?\r\n",
            rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [start.as_bytes(), &rest].concat();
            if let Ok(Some(answer)) = answer(&bytes, true) {
                prop_assert!(answer.body.len() <= rest.len());
            }
        }
    }
}
