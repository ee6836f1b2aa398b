//! The HTTP/1.1 that the gateway itself asks in: tailscaled's LocalAPI, Tailscale's API, a proxy's CONNECT, and our
//! own listeners when a command asks them.
//!
//! One request per connection. What a client sends and what goes back to it never passes here: those heads are
//! judged in `inbound`. Not hyper's client, because the requests and answers hold keys: every buffer here is zeroed
//! when it is dropped, and none that may hold a key grows and leaves a copy where it was.
#![forbid(unsafe_code)]

mod body_decoder;
pub mod response_head;

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use self::body_decoder::BodyDecoder;
pub(crate) use self::body_decoder::BodyFramingError;
use self::response_head::{MAX_HEAD, ResponseHead, ResponseHeadError};

/// A request, before it is written. None of its parts may hold CR or LF.
#[derive(Clone, Copy)]
pub(crate) struct HttpRequest<'a> {
    pub(crate) method: &'a str,
    /// The path with its query; for CONNECT host and port.
    pub(crate) target: &'a str,
    /// The value of `Host`.
    pub(crate) host: &'a str,
    /// The other fields, without `Content-Length`.
    pub(crate) fields: &'a [(&'a str, &'a str)],
    /// With a body, also an empty one, goes `Content-Length`.
    pub(crate) body: Option<&'a [u8]>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpClientError {
    /// The request could not be sent, or nothing at all came back.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended within the answer.
    #[error("its answer is cut short")]
    CutShort,
    /// What came is not the head of an HTTP answer.
    #[error("{0}")]
    Head(#[from] ResponseHeadError),
    /// The body breaks its own framing, or is longer than the caller takes.
    #[error("{0}")]
    Body(#[from] BodyFramingError),
}

/// An answer whose head has come; its body is read as it comes.
pub(crate) struct HttpResponse<S> {
    stream: S,
    head: ResponseHead,
    decoder: BodyDecoder,
    /// Of a fixed size; what is read and not yet decoded lies in `unread`.
    buffer: Zeroizing<Vec<u8>>,
    unread: std::ops::Range<usize>,
}

impl HttpRequest<'_> {
    /// The bytes to send, in a buffer that never grew.
    pub(crate) fn to_bytes(self) -> Zeroizing<Vec<u8>> {
        let Self { method, target, host, fields, body } = self;
        let length = body.map(|body| body.len().to_string());
        let length = length.as_ref().map(|length| ("Content-Length", length.as_str()));
        let fields = || [("Host", host)].into_iter().chain(fields.iter().copied()).chain(length);
        let lines: usize = fields().map(|(name, value)| name.len() + value.len() + 4).sum();
        let fixed = method.len() + target.len() + " HTTP/1.1\r\n\r\n ".len();
        let room = fixed + lines + body.map_or(0, <[u8]>::len);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let mut add = |parts: &[&str]| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        };
        add(&[method, " ", target, " HTTP/1.1\r\n"]);
        fields().for_each(|(name, value)| add(&[name, ": ", value, "\r\n"]));
        add(&["\r\n"]);
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }
}

/// Sends the request and reads the head of the answer; interim answers (1xx but 101) are passed over.
///
/// # Errors
/// [`HttpClientError`]. There is no limit of time: the caller sets one.
pub(crate) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: HttpRequest<'_>,
) -> Result<HttpResponse<S>, HttpClientError> {
    let request = request.to_bytes();
    stream.write_all(&request).await?;
    stream.flush().await?;
    drop(request);
    let mut buffer = Zeroizing::new(vec![0; MAX_HEAD]);
    let mut filled = 0;
    loop {
        match ResponseHead::parse(&buffer[..filled]) {
            Ok(head) if (100..200).contains(&head.status) && head.status != 101 => {
                buffer.copy_within(head.length..filled, 0);
                filled -= head.length;
            }
            Ok(head) => {
                let decoder = BodyDecoder::new(head.framing);
                let unread = head.length..filled;
                return Ok(HttpResponse { stream, head, decoder, buffer, unread });
            }
            Err(ResponseHeadError::Incomplete) => match stream.read(&mut buffer[filled..]).await {
                Ok(0) => return Err(HttpClientError::CutShort),
                Ok(more) => filled += more,
                Err(error) if filled == 0 => return Err(error.into()),
                Err(_cut_short) => return Err(HttpClientError::CutShort),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

impl<S: AsyncRead + Unpin> HttpResponse<S> {
    /// Three digits of the status line; of 1xx never another than 101.
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// Appends what comes next of the body; false once it has ended. `body` never holds more than `limit` bytes.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`HttpClientError`].
    pub(crate) async fn read_body(
        &mut self,
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<bool, HttpClientError> {
        let had = body.len();
        loop {
            let input = &self.buffer[self.unread.clone()];
            self.unread.start += self.decoder.decode(input, body, limit)?;
            if body.len() > had || self.decoder.is_complete() {
                return Ok(body.len() > had);
            }
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            match self.stream.read(&mut self.buffer[self.unread.end..]).await {
                Ok(0) => {
                    return self
                        .decoder
                        .ends_with_stream()
                        .then_some(false)
                        .ok_or(HttpClientError::CutShort);
                }
                Ok(more) => self.unread.end += more,
                Err(_cut_short) => return Err(HttpClientError::CutShort),
            }
        }
    }

    /// Appends all of the body; `body` never holds more than `limit` bytes.
    ///
    /// # Errors
    /// [`HttpClientError`].
    pub(crate) async fn read_whole_body(
        mut self,
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), HttpClientError> {
        while self.read_body(body, limit).await? {}
        Ok(())
    }

    /// The connection, once it leads through a proxy: behind a good answer to CONNECT there is no body. None when
    /// bytes came behind the head, which nobody has asked for.
    pub(crate) fn into_tunnel(self) -> Option<S> {
        self.unread.is_empty().then_some(self.stream)
    }
}

#[cfg(test)]
mod tests;
