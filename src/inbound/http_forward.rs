//! HTTP forward: requests in absolute form, one after another, each with a target of its own.
//!
//! [`ForwardSession`] reads requests and carries exchanges; who may go where is not decided here.
#![forbid(unsafe_code)]

mod body_pump;
mod credentials;
mod exchange;
#[cfg(test)]
mod killed_tests;
mod rewrite;
mod upgrade;

use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::head::{self, MessageHead, MessageKind};
use super::parse::{ParseError, Parsed};
use super::{FailureReply, InboundFailure, Kind, ReplyProtocol, reply};
use crate::outcome::Outcome;
use crate::sys::Stream;

pub use self::body_pump::ByteCounter;
pub use self::exchange::{ExchangeSockets, ForwardExchange};
pub use self::rewrite::{ForwardRequest, parse_forward_request};
pub use self::upgrade::UpgradeProtocols;

pub(super) use self::rewrite::filter_trailers;

/// Bytes asked of the kernel at once while a request head is read.
const ROOM: usize = 1024;

/// One client connection that forwards.
#[derive(Debug)]
pub struct ForwardSession {
    /// The first head, read before anybody knew this was a forward.
    first: Option<MessageHead>,
    /// Client bytes after the last head taken.
    buffer: BytesMut,
}

impl ForwardSession {
    /// A session whose first head has been read; `buffer` holds what came after it.
    pub fn new(first: MessageHead, buffer: BytesMut) -> Self {
        Self { first: Some(first), buffer }
    }

    /// Whether bytes of the next request are here. Empty lines are none of it: a client that sends one behind a
    /// body waits for no answer to it.
    pub fn has_request_bytes(&self) -> bool {
        self.first.is_some() || head::request_has_begun(&self.buffer)
    }

    /// Waits up to `idle` for the next request's first byte; false when none comes.
    pub async fn wait_for_request(&mut self, client: &Stream, idle: Duration) -> bool {
        let begun = async {
            while !self.has_request_bytes() {
                // Nothing is held while a client rests but the few bytes of an empty line.
                self.buffer = BytesMut::from(&self.buffer[..]);
                if !matches!(client.read_more(&mut self.buffer, ROOM).await, Ok(n) if n > 0) {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(idle, begun).await.unwrap_or(false)
    }

    /// Reads the next request, whole within `limit` and with a head of at most `max_head` bytes.
    ///
    /// # Errors
    /// [`InboundFailure`] with the HTTP response to give.
    pub async fn read_request(
        &mut self,
        client: &Stream,
        limit: Duration,
        max_head: usize,
    ) -> Result<ForwardRequest, InboundFailure> {
        let head = match self.first.take() {
            Some(head) => head,
            None => match tokio::time::timeout(limit, self.read_head(client, max_head)).await {
                Ok(head) => head?,
                Err(_) => {
                    return Err(InboundFailure::of_incomplete_head(
                        &self.buffer,
                        Outcome::HeadTimeout,
                    ));
                }
            },
        };
        parse_forward_request(&head).map_err(refused_head)
    }

    async fn read_head(
        &mut self,
        client: &Stream,
        max_head: usize,
    ) -> Result<MessageHead, InboundFailure> {
        loop {
            match head::parse_head(&self.buffer, MessageKind::Request, max_head)
                .map_err(refused_head)?
            {
                Parsed::Whole { value, used } => {
                    self.buffer.advance(used);
                    body_pump::release_buffer(&mut self.buffer);
                    return Ok(value);
                }
                Parsed::Incomplete => {}
            }
            if !matches!(client.read_more(&mut self.buffer, ROOM).await, Ok(n) if n > 0) {
                return Err(client_gone());
            }
        }
    }

    /// Ends the client's connection so that it can read everything said to it.
    pub async fn close_client(&self, client: &Stream) {
        reply::say_and_close(client, b"").await;
    }
}

fn refused_head(bad: ParseError) -> InboundFailure {
    InboundFailure {
        kind: Kind::Http,
        outcome: bad.outcome,
        message: bad.message,
        reply: FailureReply::Words(ReplyProtocol::Http),
        asked: None,
    }
}

fn client_gone() -> InboundFailure {
    InboundFailure {
        kind: Kind::Http,
        outcome: Outcome::ClientGone,
        message: "the client left before its request was complete".to_owned(),
        reply: FailureReply::Nothing,
        asked: None,
    }
}
