//! HTTP forward: requests in absolute form, one after another, each with a target of its own.
//!
//! [`Session`] reads requests and carries exchanges; who may go where is not decided here.
#![forbid(unsafe_code)]

mod credentials;
mod exchange;
#[cfg(test)]
mod killed_tests;
mod pump;
mod rewrite;
mod upgrade;

use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::head::{self, Head, Side};
use super::parse::{Bad, Parsed};
use super::{Failed, Kind, Reply, Saying, reply};
use crate::outcome::Outcome;
use crate::sys::Stream;

pub use self::exchange::{Exchange, ExchangeSockets};
pub use self::pump::ByteCounter;
pub use self::rewrite::{ForwardRequest, read};
pub use self::upgrade::Upgrade;

pub(super) use self::rewrite::trailers;

/// Bytes asked of the kernel at once while a request head is read.
const ROOM: usize = 1024;

/// One client connection that forwards.
#[derive(Debug)]
pub struct Session {
    /// The first head, read before anybody knew this was a forward.
    first: Option<Head>,
    /// Client bytes after the last head taken.
    buffer: BytesMut,
}

impl Session {
    /// A session whose first head has been read; `buffer` holds what came after it.
    pub fn new(first: Head, buffer: BytesMut) -> Self {
        Self { first: Some(first), buffer }
    }

    /// Whether bytes of the next request are here. Empty lines are none of it: a client that sends one behind a
    /// body waits for no answer to it.
    pub fn started(&self) -> bool {
        self.first.is_some() || head::begun(&self.buffer)
    }

    /// Waits up to `idle` for the next request's first byte; false when none comes.
    pub async fn begin(&mut self, client: &Stream, idle: Duration) -> bool {
        let begun = async {
            while !self.started() {
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
    /// [`Failed`] with the HTTP response to give.
    pub async fn next(
        &mut self,
        client: &Stream,
        limit: Duration,
        max_head: usize,
    ) -> Result<ForwardRequest, Failed> {
        let head = match self.first.take() {
            Some(head) => head,
            None => match tokio::time::timeout(limit, self.head(client, max_head)).await {
                Ok(head) => head?,
                Err(_) => return Err(Failed::unread(&self.buffer, Outcome::HeadTimeout)),
            },
        };
        read(&head).map_err(bad)
    }

    async fn head(&mut self, client: &Stream, max_head: usize) -> Result<Head, Failed> {
        loop {
            match head::parse(&self.buffer, Side::Request, max_head).map_err(bad)? {
                Parsed::Whole { value, used } => {
                    self.buffer.advance(used);
                    pump::release(&mut self.buffer);
                    return Ok(value);
                }
                Parsed::Incomplete => {}
            }
            if !matches!(client.read_more(&mut self.buffer, ROOM).await, Ok(n) if n > 0) {
                return Err(gone());
            }
        }
    }

    /// Ends the client's connection so that it can read everything said to it.
    pub async fn close(&self, client: &Stream) {
        reply::say_and_close(client, b"").await;
    }
}

fn bad(bad: Bad) -> Failed {
    Failed {
        kind: Kind::Http,
        outcome: bad.outcome,
        message: bad.message,
        reply: Saying::Words(Reply::Http),
        asked: None,
    }
}

fn gone() -> Failed {
    Failed {
        kind: Kind::Http,
        outcome: Outcome::ClientGone,
        message: "the client left before its request was complete".to_owned(),
        reply: Saying::Nothing,
        asked: None,
    }
}
