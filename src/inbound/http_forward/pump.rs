//! Moves one message body from a socket to another, exactly as its framing says.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BytesMut};

use super::super::chunked::{Decoder, Output};
use super::super::framing::Body;
use super::super::head::Side;
use super::super::parse::{Bad, Parsed};
use crate::sys::Stream;

/// Bytes asked of the kernel at once while heads and chunks are read.
const ROOM: usize = 16 * 1024;
/// Bytes moved at a time where the body's length is known.
const PIECE: usize = 64 * 1024;

/// Counts bytes as the receiver's socket takes them.
pub trait ByteCounter {
    /// Bytes the origin took.
    fn up(&self, bytes: u64);
    /// Bytes the client took.
    fn down(&self, bytes: u64);
}

/// What stopped a body half way.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The sender ended before the message did.
    #[error("the message ended before it was complete")]
    Early,
    /// The sender's socket failed.
    #[error("reading failed: {0}")]
    Source(io::Error),
    /// The receiver's socket failed.
    #[error("writing failed: {0}")]
    Sink(io::Error),
    /// The message breaks HTTP.
    #[error("{0}")]
    Bad(#[from] Bad),
}

/// Gives a buffer's memory back once nothing is in it: a long head needs it, a long body does not.
pub(super) fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

/// One direction: from a buffered socket to another one.
pub(super) struct BodyPump<'a, C> {
    /// Whose messages come from the source.
    pub(super) side: Side,
    pub(super) source: &'a Stream,
    pub(super) buffer: &'a mut BytesMut,
    pub(super) sink: &'a Stream,
    /// Counts what the sink took.
    pub(super) count: C,
    /// Grows with every byte of either direction: silence is a standstill of this.
    pub(super) moved: &'a AtomicU64,
}

impl<C: Fn(u64)> BodyPump<'_, C> {
    /// Reads until `parse` has a whole message, then takes its bytes.
    pub(super) async fn until<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, Bad>,
    ) -> Result<T, BodyError> {
        loop {
            if let Parsed::Whole { value, used } = parse(self.buffer)? {
                self.buffer.advance(used);
                return Ok(value);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), BodyError> {
        match self.source.read_more(self.buffer, ROOM).await {
            Ok(0) => Err(BodyError::Early),
            Ok(_) => Ok(()),
            Err(error) => Err(BodyError::Source(error)),
        }
    }

    /// Writes and counts.
    pub(super) async fn say(&self, mut bytes: &[u8]) -> Result<(), BodyError> {
        while !bytes.is_empty() {
            let taken = self.sink.write(bytes).await.map_err(BodyError::Sink)?;
            (self.count)(taken as u64);
            self.moved.fetch_add(taken as u64, Ordering::Relaxed);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Moves a whole body; `output` is for a chunked one.
    pub(super) async fn body(&mut self, body: Body, output: Output) -> Result<(), BodyError> {
        match body {
            Body::None => Ok(()),
            Body::Length(length) => self.exactly(length).await,
            Body::Chunked => self.chunks(output).await,
            Body::UntilClose => self.until_close().await,
        }
    }

    async fn exactly(&mut self, mut left: u64) -> Result<(), BodyError> {
        let here = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.say(&self.buffer[..here]).await?;
        self.buffer.advance(here);
        release(self.buffer);
        left -= here as u64;
        let mut scratch = Vec::new();
        while left > 0 {
            match self.piece(&mut scratch, left).await? {
                0 => return Err(BodyError::Early),
                n => left -= n as u64,
            }
        }
        Ok(())
    }

    /// Moves what is there, at most `left` bytes; 0 is the sender's FIN.
    async fn piece(&mut self, scratch: &mut Vec<u8>, left: u64) -> Result<usize, BodyError> {
        // Allocated only for a body that did not come with its head, and no larger than it.
        scratch.resize(PIECE.min(usize::try_from(left).unwrap_or(PIECE)), 0);
        let n = self.source.read(scratch).await.map_err(BodyError::Source)?;
        self.say(&scratch[..n]).await?;
        Ok(n)
    }

    /// Chunks are written anew: what the next hop parses is what was judged here.
    async fn chunks(&mut self, output: Output) -> Result<(), BodyError> {
        let (mut decoder, mut out) = (Decoder::new(self.side, output), Vec::new());
        loop {
            let taken = decoder.decode(self.buffer, &mut out)?;
            self.buffer.advance(taken);
            self.say(&out).await?;
            out.clear();
            if decoder.done() {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn until_close(&mut self) -> Result<(), BodyError> {
        self.say(self.buffer).await?;
        *self.buffer = BytesMut::new();
        let mut scratch = Vec::new();
        while self.piece(&mut scratch, u64::MAX).await? > 0 {}
        Ok(())
    }
}
