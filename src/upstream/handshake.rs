//! The talk with the upstream over one open connection: what is sent, and reading the answers.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::socks5::{self, Parsed, Reply};
use super::{Endpoint, UpstreamError};
use crate::http_client::response_head::ResponseHeadError;
use crate::localapi::dial::{self, DialAnswer};
use crate::sys::Stream;

/// One read's worth: the longest answers and some of the far side's first bytes.
const BUFFER: usize = 1024;

/// Why bytes are no answer yet, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// Good so far: more bytes are needed.
    Incomplete,
    /// Not the protocol, whatever follows; what is wrong with it.
    Bad(&'static str),
}

impl From<ResponseHeadError> for Unparsed {
    fn from(error: ResponseHeadError) -> Self {
        match error {
            ResponseHeadError::Incomplete => Self::Incomplete,
            bad => Self::Bad(bad.reason()),
        }
    }
}

/// A good reply.
#[derive(Debug)]
pub(super) struct ConnectAnswer {
    /// Where the upstream says its end is.
    pub(super) reported: Option<SocketAddr>,
    /// The far side's bytes that came with it.
    pub(super) early: Bytes,
}

/// What LocalAPI said to a dial.
#[derive(Debug)]
pub(super) enum DialOutcome {
    /// Connected; the far side's bytes that came with it.
    Through(Bytes),
    /// Not by way of the tailnet.
    Outside,
}

/// Why there is no good reply.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The connection ended before a byte was answered: if it was an old one, try a fresh one.
    Silent(Option<io::Error>),
    /// Anything else.
    Said(UpstreamError),
}

impl HandshakeError {
    /// The error, once there is nothing more to try.
    pub(super) fn into_error(self) -> UpstreamError {
        match self {
            Self::Silent(source) => UpstreamError::Closed { source },
            Self::Said(error) => error,
        }
    }
}

/// One side of the talk: an open connection and what was read from it and not yet used.
pub(super) struct UpstreamHandshake<'a> {
    stream: &'a Stream,
    endpoint: &'a Endpoint,
    buffer: BytesMut,
    asked: Instant,
}

impl<'a> UpstreamHandshake<'a> {
    /// A talk over `stream` to the upstream at `place`.
    pub(super) fn new(stream: &'a Stream, endpoint: &'a Endpoint) -> Self {
        Self { stream, endpoint, buffer: BytesMut::new(), asked: Instant::now() }
    }

    /// Sends the SOCKS5 greeting, with `request` behind it in one segment.
    pub(super) async fn send_greeting(&mut self, request: &[u8]) -> Result<(), HandshakeError> {
        let segment = [&socks5::GREETING[..], request].concat();
        self.send_bytes(&segment).await
    }

    /// Sends `bytes`.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.asked = Instant::now();
        self.stream.write_all(bytes).await.map_err(|error| HandshakeError::Silent(Some(error)))
    }

    /// Reads the SOCKS5 server's choice of method.
    pub(super) async fn read_method(&mut self) -> Result<(), HandshakeError> {
        self.read_until_parsed(socks5::parse_method).await?;
        let _method = self.buffer.split_to(socks5::METHOD);
        Ok(())
    }

    /// Reads the SOCKS5 reply to the request for `address`.
    pub(super) async fn read_reply(
        mut self,
        address: Option<SocketAddr>,
    ) -> Result<ConnectAnswer, HandshakeError> {
        let Parsed { reply, used } = self.read_until_parsed(socks5::parse_reply).await?;
        match reply {
            Reply::Refused(rep) => Err(HandshakeError::Said(UpstreamError::of_reply(
                rep,
                address,
                self.asked.elapsed(),
            ))),
            Reply::Connected(reported) => {
                Ok(ConnectAnswer { reported, early: self.early_bytes(used) })
            }
        }
    }

    /// Reads LocalAPI's answer to the dial of `address`.
    pub(super) async fn read_dial_answer(
        mut self,
        address: Option<SocketAddr>,
    ) -> Result<DialOutcome, HandshakeError> {
        let (answer, used) = self.read_until_parsed(|bytes| Ok(dial::parse_answer(bytes)?)).await?;
        let after = self.asked.elapsed();
        match answer {
            DialAnswer::Connected => Ok(DialOutcome::Through(self.early_bytes(used))),
            DialAnswer::OutsideTailnet => Ok(DialOutcome::Outside),
            DialAnswer::Failed { length } => {
                let _head = self.buffer.split_to(used);
                let length = length.unwrap_or(dial::MAX_TEXT);
                while self.buffer.len() < length && self.read_more().await.is_ok() {}
                let text = &self.buffer[..length.min(self.buffer.len())];
                let failure = dial::parse_failure(text);
                Err(HandshakeError::Said(UpstreamError::of_failure(failure, address, after)))
            }
            DialAnswer::Unexpected(what) => self.not_as_needed(what),
        }
    }

    /// Reads the head of LocalAPI's answer to [`dial::status_request`]: a good one is enough.
    pub(super) async fn read_status(&mut self) -> Result<(), HandshakeError> {
        let answer = self.read_until_parsed(|bytes| Ok(dial::parse_status_answer(bytes)?)).await?;
        answer.or_else(|what| self.not_as_needed(what))
    }

    /// What came behind an answer of `used` bytes.
    fn early_bytes(mut self, used: usize) -> Bytes {
        let _answer = self.buffer.split_to(used);
        if self.buffer.is_empty() { Bytes::new() } else { self.buffer.freeze() }
    }

    fn not_as_needed<T>(&self, what: &'static str) -> Result<T, HandshakeError> {
        Err(HandshakeError::Said(UpstreamError::Protocol { endpoint: self.endpoint.clone(), what }))
    }

    /// Reads until `parse` has what it wants or says that it never will.
    async fn read_until_parsed<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<T, Unparsed>,
    ) -> Result<T, HandshakeError> {
        loop {
            match parse(&self.buffer) {
                Ok(parsed) => return Ok(parsed),
                Err(Unparsed::Bad(what)) => return self.not_as_needed(what),
                Err(Unparsed::Incomplete) => self.read_more().await?,
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), HandshakeError> {
        let had = self.buffer.len();
        self.buffer.resize(had + BUFFER, 0);
        let read = self.stream.read(&mut self.buffer[had..]).await;
        self.buffer.truncate(had + read.as_ref().map_or(0, |read| *read));
        match read {
            Ok(1..) => Ok(()),
            ended if had == 0 => Err(HandshakeError::Silent(ended.err())),
            ended => Err(HandshakeError::Said(UpstreamError::Closed { source: ended.err() })),
        }
    }
}
