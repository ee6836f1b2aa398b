//! Moves one message body from a socket to another, exactly as its framing says.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BytesMut};

use super::super::chunked::{ChunkDecoder, ChunkOutput};
use super::super::framing::MessageFraming;
use super::super::head::MessageKind;
use super::super::parse::{ParseError, Parsed};
use crate::sys::Stream;

/// Bytes asked of the kernel at once while heads and chunks are read.
const ROOM: usize = 16 * 1024;
/// Bytes moved at a time where the body's length is known.
const PIECE: usize = 64 * 1024;

/// Counts bytes as the receiver's socket takes them.
pub trait ByteCounter {
    /// Bytes the origin took.
    fn count_up(&self, bytes: u64);
    /// Bytes the client took.
    fn count_down(&self, bytes: u64);
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
    Bad(#[from] ParseError),
}

/// Gives a buffer's memory back once nothing is in it: a long head needs it, a long body does not.
pub(super) fn release_buffer(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

/// One direction: from a buffered socket to another one.
pub(super) struct BodyPump<'a, C> {
    /// Whose messages come from the source.
    pub(super) side: MessageKind,
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
    pub(super) async fn read_until_parsed<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, ParseError>,
    ) -> Result<T, BodyError> {
        loop {
            if let Parsed::Whole { value, used } = parse(self.buffer)? {
                self.buffer.advance(used);
                return Ok(value);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), BodyError> {
        match self.source.read_more(self.buffer, ROOM).await {
            Ok(0) => Err(BodyError::Early),
            Ok(_) => Ok(()),
            Err(error) => Err(BodyError::Source(error)),
        }
    }

    /// Writes and counts.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> Result<(), BodyError> {
        while !bytes.is_empty() {
            let taken = self.sink.write(bytes).await.map_err(BodyError::Sink)?;
            (self.count)(taken as u64);
            self.moved.fetch_add(taken as u64, Ordering::Relaxed);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Moves a whole body; `output` is for a chunked one.
    pub(super) async fn pass_body(
        &mut self,
        body: MessageFraming,
        output: ChunkOutput,
    ) -> Result<(), BodyError> {
        match body {
            MessageFraming::None => Ok(()),
            MessageFraming::Length(length) => self.pass_exactly(length).await,
            MessageFraming::Chunked => self.pass_chunks(output).await,
            MessageFraming::UntilClose => self.until_close().await,
        }
    }

    async fn pass_exactly(&mut self, mut left: u64) -> Result<(), BodyError> {
        let here = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.write_all(&self.buffer[..here]).await?;
        self.buffer.advance(here);
        release_buffer(self.buffer);
        left -= here as u64;
        let mut scratch = Vec::new();
        while left > 0 {
            match self.pass_some(&mut scratch, left).await? {
                0 => return Err(BodyError::Early),
                n => left -= n as u64,
            }
        }
        Ok(())
    }

    /// Moves what is there, at most `left` bytes; 0 is the sender's FIN.
    async fn pass_some(&mut self, scratch: &mut Vec<u8>, left: u64) -> Result<usize, BodyError> {
        // Allocated only for a body that did not come with its head, and no larger than it.
        scratch.resize(PIECE.min(usize::try_from(left).unwrap_or(PIECE)), 0);
        let n = self.source.read(scratch).await.map_err(BodyError::Source)?;
        self.write_all(&scratch[..n]).await?;
        Ok(n)
    }

    /// Chunks are written anew: what the next hop parses is what was judged here.
    async fn pass_chunks(&mut self, output: ChunkOutput) -> Result<(), BodyError> {
        let (mut decoder, mut out) = (ChunkDecoder::new(self.side, output), Vec::new());
        loop {
            let taken = decoder.decode(self.buffer, &mut out)?;
            self.buffer.advance(taken);
            self.write_all(&out).await?;
            out.clear();
            if decoder.is_complete() {
                return Ok(());
            }
            self.read_more().await?;
        }
    }

    async fn until_close(&mut self) -> Result<(), BodyError> {
        self.write_all(self.buffer).await?;
        *self.buffer = BytesMut::new();
        let mut scratch = Vec::new();
        while self.pass_some(&mut scratch, u64::MAX).await? > 0 {}
        Ok(())
    }
}
