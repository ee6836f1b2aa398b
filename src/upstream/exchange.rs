//! The talk with a SOCKS5 upstream: greeting, request, reply, over one open connection.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::UpstreamError;
use super::socks5::{self, Parsed, Reply, Unparsed};
use crate::sys::Stream;

/// One read's worth: the longest answers and some of the far side's first bytes.
const BUFFER: usize = 1024;

/// A good reply.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where the server says its end is.
    pub(super) reported: Option<SocketAddr>,
    /// The far side's bytes that came with it.
    pub(super) early: Bytes,
}

/// Why there is no good reply.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection ended before a byte was answered: if it was an old one, try a fresh one.
    Silent(Option<io::Error>),
    /// Anything else.
    Said(UpstreamError),
}

impl Broken {
    /// The error, once there is nothing more to try.
    pub(super) fn into_error(self) -> UpstreamError {
        match self {
            Self::Silent(source) => UpstreamError::Closed { source },
            Self::Said(error) => error,
        }
    }
}

/// One side of the talk: an open connection and what was read from it and not yet used.
pub(super) struct Talk<'a> {
    stream: &'a Stream,
    upstream: SocketAddr,
    buffer: BytesMut,
}

impl<'a> Talk<'a> {
    /// A talk over `stream` to `upstream`.
    pub(super) fn new(stream: &'a Stream, upstream: SocketAddr) -> Self {
        Self { stream, upstream, buffer: BytesMut::new() }
    }

    /// Sends the greeting, with `request` behind it in one segment.
    pub(super) async fn greet(&mut self, request: &[u8]) -> Result<(), Broken> {
        let segment = [&socks5::GREETING[..], request].concat();
        self.send(&segment).await
    }

    /// Sends `bytes`.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes).await.map_err(|error| Broken::Silent(Some(error)))
    }

    /// Reads the server's choice of method.
    pub(super) async fn method(&mut self) -> Result<(), Broken> {
        self.until(socks5::parse_method).await?;
        let _method = self.buffer.split_to(2);
        Ok(())
    }

    /// Reads the reply to the request.
    pub(super) async fn reply(mut self) -> Result<Answer, Broken> {
        let Parsed { reply, used } = self.until(socks5::parse_reply).await?;
        match reply {
            Reply::Refused(rep) => Err(Broken::Said(UpstreamError::of_reply(rep))),
            Reply::Connected(reported) => {
                let _reply = self.buffer.split_to(used);
                let early =
                    if self.buffer.is_empty() { Bytes::new() } else { self.buffer.freeze() };
                Ok(Answer { reported, early })
            }
        }
    }

    /// Reads until `parse` has what it wants or says that it never will.
    async fn until<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<T, Unparsed>,
    ) -> Result<T, Broken> {
        loop {
            match parse(&self.buffer) {
                Ok(parsed) => return Ok(parsed),
                Err(Unparsed::Bad(what)) => {
                    let address = self.upstream;
                    return Err(Broken::Said(UpstreamError::Protocol { address, what }));
                }
                Err(Unparsed::Incomplete) => self.more().await?,
            }
        }
    }

    async fn more(&mut self) -> Result<(), Broken> {
        let had = self.buffer.len();
        self.buffer.resize(had + BUFFER, 0);
        let read = self.stream.read(&mut self.buffer[had..]).await;
        self.buffer.truncate(had + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(1..) => Ok(()),
            ended if had == 0 => Err(Broken::Silent(ended.err())),
            ended => Err(Broken::Said(UpstreamError::Closed { source: ended.err() })),
        }
    }
}
