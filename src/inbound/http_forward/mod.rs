//! HTTP forward: requests in absolute form, one after another, each with a target of its own.
//!
//! [`Session`] reads requests and carries exchanges; who may go where is not decided here.
#![forbid(unsafe_code)]

mod exchange;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod killed_tests;
mod pump;
mod rewrite;

use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::head::{self, Head, Side};
use super::parse::{Bad, Parsed};
use super::{Failed, Kind, Reply, Saying, reply};
use crate::outcome::Outcome;
use crate::sys::Stream;

pub use self::exchange::{Exchange, Way};
pub use self::pump::Counts;
pub use self::rewrite::{ForwardRequest, read};

pub(super) use self::rewrite::trailers;

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

    /// Whether bytes of the next request are here.
    pub fn started(&self) -> bool {
        self.first.is_some() || !self.buffer.is_empty()
    }

    /// Waits up to `idle` for the next request's first byte; false when none comes.
    pub async fn begin(&mut self, client: &Stream, idle: Duration) -> bool {
        if self.buffer.is_empty() {
            // Nothing is held while a client rests.
            self.buffer = BytesMut::new();
        }
        let more = client.read_more(&mut self.buffer, 1024);
        matches!(tokio::time::timeout(idle, more).await, Ok(Ok(n)) if n > 0)
    }

    /// Reads the next request, whole within `limit`.
    ///
    /// # Errors
    /// [`Failed`] with the HTTP response to give.
    pub async fn next(
        &mut self,
        client: &Stream,
        limit: Duration,
    ) -> Result<ForwardRequest, Failed> {
        let head = match self.first.take() {
            Some(head) => head,
            None => match tokio::time::timeout(limit, self.head(client)).await {
                Ok(head) => head?,
                Err(_) => return Err(Failed::unread(&self.buffer, Outcome::HeadTimeout)),
            },
        };
        read(&head).map_err(bad)
    }

    async fn head(&mut self, client: &Stream) -> Result<Head, Failed> {
        loop {
            match head::parse(&self.buffer, Side::Request).map_err(bad)? {
                Parsed::Whole { value, used } => {
                    self.buffer.advance(used);
                    return Ok(value);
                }
                Parsed::Incomplete => {}
            }
            if !matches!(client.read_more(&mut self.buffer, 1024).await, Ok(n) if n > 0) {
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
