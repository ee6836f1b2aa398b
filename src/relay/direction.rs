//! One direction of a relay: from one socket to the other, by copy or by splice.
//!
//! Copy first, through the worker's scratch buffer; a direction that has moved 64 KiB without a
//! pause takes a pipe. What lies in between is always sent before anything more is read. It
//! decides nothing about the connection's end: it says what it met.
#![forbid(unsafe_code)]

mod inspection;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;

use super::pipe_pool::{PipeLease, PipePool};
use crate::labels::SpliceFallback;
use crate::sys::{ReadyGuard, Stream};

pub(super) use self::inspection::InspectionEnd;

/// Bytes without a pause after which a direction counts as bulky.
const BULKY: u32 = 64 << 10;

/// A wake-up that brought less than this is a conversation: splice costs more than copy there.
const SMALL: u32 = 4 << 10;

/// A client's first reads, but for the very first, are acknowledged at once: the end of a TLS handshake gets
/// no answer, and one with Nagle's algorithm (urllib3 through a proxy) has its request wait behind it.
const PROMPT: std::ops::Range<u8> = 1..4;

/// Bytes one copy may move, and what it may until its direction has proved bulky: a sink that takes nothing
/// leaves all of it to be kept.
const SCRATCH: usize = 256 << 10;
const FIRST: usize = 64 << 10;

/// Fairness: a direction gives the thread back after this many bytes or steps. 4 MiB take some 2 ms; with less,
/// both ends of a bulky stream go to sleep and are woken once a turn, which costs more than the bytes.
const TURN_BYTES: u64 = 4 << 20;
const TURN_STEPS: u32 = 32;

thread_local! {
    /// The worker's buffer; nothing stays in it between two calls.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The sockets and shared things a direction works with.
pub(super) struct DirectionIo<'a> {
    pub(super) from: &'a Stream,
    pub(super) to: &'a Stream,
    pub(super) pipes: &'a Arc<PipePool>,
    /// Bytes the receiver's socket took.
    pub(super) counter: &'a AtomicU64,
    /// `relay.splice` as it stands now.
    pub(super) splice: bool,
    /// Whether the source waits for acknowledgements: see [`PROMPT`].
    pub(super) prompt: bool,
}

/// Why a direction stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectionStop {
    /// The source has nothing; its read readiness wakes us.
    Dry,
    /// The sink takes nothing; its write readiness wakes us.
    Blocked,
    /// Its share of the worker is used up; nothing wakes us.
    Spent,
    /// The source's FIN was read and everything before it was sent.
    Done,
    /// The source's socket failed.
    SourceBroken,
    /// The sink's socket failed.
    SinkBroken,
}

enum DirectionStep {
    On,
    Stop(DirectionStop),
}

/// What one direction remembers.
#[derive(Debug, Default)]
pub(super) struct RelayDirection {
    held: Bytes,
    pipe: Option<PipeLease>,
    moved: u64,
    streak: u32,
    burst: u32,
    /// Copies so far, as far as they are counted.
    copies: u8,
    blocked: bool,
    eof: bool,
    refused: bool,
    complained: bool,
    looked: bool,
}

impl RelayDirection {
    /// A direction that has `early` to send first.
    pub(super) fn new(early: Bytes) -> Self {
        Self { held: early, ..Self::default() }
    }

    /// Bytes the sink's socket took.
    pub(super) fn bytes_moved(&self) -> u64 {
        self.moved
    }

    /// Bytes read from the source that the sink has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.held.len() + self.pipe.as_ref().map_or(0, PipeLease::len)
    }

    /// Whether the source has sent its FIN.
    pub(super) fn at_eof(&self) -> bool {
        self.eof
    }

    /// FIN read and everything before it sent on.
    pub(super) fn is_done(&self) -> bool {
        self.eof && self.backlog() == 0
    }

    /// Whether it has something to give back, or waits for its sink.
    pub(super) fn holds_bytes(&self) -> bool {
        self.pipe.is_some() || self.backlog() > 0
    }

    /// Nothing moved for a while: an empty pipe goes back to the pool.
    pub(super) fn release_pipe(&mut self) {
        if self.pipe.as_ref().is_some_and(|pipe| pipe.len() == 0) {
            self.pipe = None;
            self.streak = 0;
        }
    }

    /// Moves what can be moved now, within its share.
    pub(super) fn pump_bytes(
        &mut self,
        cx: &mut Context<'_>,
        io: &DirectionIo<'_>,
    ) -> DirectionStop {
        let share = self.moved + TURN_BYTES;
        for _ in 0..TURN_STEPS {
            match self.step(cx, io) {
                DirectionStep::Stop(turn) => return turn,
                DirectionStep::On if self.moved >= share => return DirectionStop::Spent,
                DirectionStep::On => {}
            }
        }
        DirectionStop::Spent
    }

    fn step(&mut self, cx: &mut Context<'_>, io: &DirectionIo<'_>) -> DirectionStep {
        if self.backlog() > 0 {
            return self.send_backlog(cx, io);
        }
        if self.eof {
            return DirectionStep::Stop(DirectionStop::Done);
        }
        match io.from.readiness().poll_read_ready(cx) {
            Poll::Pending => self.stop_reason(),
            Poll::Ready(Err(_)) => DirectionStep::Stop(DirectionStop::SourceBroken),
            Poll::Ready(Ok(mut guard)) => match self.wants_pipe(io) {
                true => self.splice_in(&mut guard, io),
                false => self.copy_once(&mut guard, io),
            },
        }
    }

    fn stop_reason(&mut self) -> DirectionStep {
        if (1..SMALL).contains(&self.burst) {
            self.streak = 0;
        }
        self.burst = 0;
        DirectionStep::Stop(DirectionStop::Dry)
    }

    fn took_in(&mut self, n: usize) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.streak = self.streak.saturating_add(n);
        self.burst = self.burst.saturating_add(n);
    }

    fn gave_out(&mut self, n: usize, io: &DirectionIo<'_>) {
        self.moved += n as u64;
        io.counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn count_fallback(&mut self, io: &DirectionIo<'_>, cause: SpliceFallback) {
        if !std::mem::replace(&mut self.complained, true) {
            io.pipes.count_fallback(cause);
        }
    }

    /// Whether to splice now; takes a pipe if there is none yet.
    fn wants_pipe(&mut self, io: &DirectionIo<'_>) -> bool {
        if self.streak < BULKY || self.refused {
            return false;
        }
        if !io.splice {
            self.pipe = None; // empty here: the backlog is sent before more is read
            self.count_fallback(io, SpliceFallback::Off);
            return false;
        }
        if self.pipe.is_none() {
            self.pipe = io.pipes.take();
        }
        if self.pipe.is_none() {
            self.streak = 0; // ask again after the next 64 KiB
            self.count_fallback(io, SpliceFallback::Pipe);
            return false;
        }
        self.complained = false;
        true
    }

    fn splice_in(&mut self, guard: &mut ReadyGuard<'_>, io: &DirectionIo<'_>) -> DirectionStep {
        let Some(pipe) = &mut self.pipe else { return self.copy_once(guard, io) };
        match pipe.fill_from(io.from) {
            Ok(0) => self.copy_once(guard, io), // FIN, most likely: recv is sure
            Ok(n) => {
                self.took_in(n);
                DirectionStep::On
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.nothing_read(guard, io),
            Err(error) if refuses_splice(&error) => {
                self.refused = true;
                self.count_fallback(io, SpliceFallback::Error);
                self.copy_once(guard, io)
            }
            Err(_) => DirectionStep::Stop(DirectionStop::SourceBroken),
        }
    }

    /// splice found nothing though the pipe is empty: nothing is there, or an urgent byte lies in the way,
    /// which only `recv` steps over.
    fn nothing_read(&mut self, guard: &mut ReadyGuard<'_>, io: &DirectionIo<'_>) -> DirectionStep {
        if !io.from.urgent_ahead() {
            guard.clear_ready();
            return DirectionStep::On;
        }
        io.pipes.count_fallback(SpliceFallback::Urgent);
        self.streak = 0;
        self.copy_once(guard, io)
    }

    fn copy_once(&mut self, guard: &mut ReadyGuard<'_>, io: &DirectionIo<'_>) -> DirectionStep {
        let room = if self.streak < BULKY { FIRST } else { SCRATCH };
        BUFFER.with_borrow_mut(|buffer| match io.from.receive(guard, &mut buffer[..room]) {
            Ok(0) => {
                self.eof = true;
                DirectionStep::On
            }
            Ok(n) => {
                self.took_in(n);
                let step = self.send_now(&buffer[..n], io);
                self.acknowledge_small(io);
                step
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => DirectionStep::On,
            Err(_) => DirectionStep::Stop(DirectionStop::SourceBroken),
        })
    }

    /// Acknowledges one of the first reads, after what was read has gone on.
    fn acknowledge_small(&mut self, io: &DirectionIo<'_>) {
        if !io.prompt || self.copies >= PROMPT.end {
            return;
        }
        if PROMPT.contains(&self.copies) {
            io.from.acknowledge();
        }
        self.copies += 1;
    }

    /// Sends from the scratch buffer; what the sink does not take is kept.
    fn send_now(&mut self, mut bytes: &[u8], io: &DirectionIo<'_>) -> DirectionStep {
        while !bytes.is_empty() {
            match io.to.try_send(bytes) {
                Ok(n) => {
                    self.gave_out(n, io);
                    bytes = &bytes[n..];
                }
                Err(error) => {
                    self.held = Bytes::copy_from_slice(bytes);
                    self.blocked = true;
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => DirectionStep::On,
                        _ => DirectionStep::Stop(DirectionStop::SinkBroken),
                    };
                }
            }
        }
        DirectionStep::On
    }

    fn send_backlog(&mut self, cx: &mut Context<'_>, io: &DirectionIo<'_>) -> DirectionStep {
        match self.poll_send(cx, io) {
            Poll::Pending => DirectionStep::Stop(DirectionStop::Blocked),
            Poll::Ready(Ok(n)) => {
                self.gave_out(n, io);
                DirectionStep::On
            }
            Poll::Ready(Err(error)) if refuses_splice(&error) => self.recover_from_pipe(io),
            Poll::Ready(Err(_)) => DirectionStep::Stop(DirectionStop::SinkBroken),
        }
    }

    /// Tries first unless the sink is known to be full: the readiness flag may have been cleared
    /// by who watches this socket for a reset.
    fn poll_send(&mut self, cx: &mut Context<'_>, io: &DirectionIo<'_>) -> Poll<io::Result<usize>> {
        if !self.blocked {
            match self.send_some(io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                result => return Poll::Ready(result),
            }
        }
        loop {
            let mut guard = ready!(io.to.readiness().poll_write_ready(cx))?;
            match self.send_some(io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if guard.ready().is_write_closed() {
                        return Poll::Ready(Err(Errno::PIPE.into()));
                    }
                    guard.clear_ready();
                }
                result => {
                    self.blocked = false;
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn send_some(&mut self, io: &DirectionIo<'_>) -> io::Result<usize> {
        let n = match &mut self.pipe {
            Some(pipe) if self.held.is_empty() => pipe.drain_to(io.to)?,
            _ => io.to.try_send(&self.held).inspect(|n| self.held.advance(*n))?,
        };
        match n {
            0 => Err(Errno::PIPE.into()), // never seen; better a broken relay than a loop
            n => Ok(n),
        }
    }

    /// The sink refuses splice: its bytes come back from the pipe, and this direction copies.
    fn recover_from_pipe(&mut self, io: &DirectionIo<'_>) -> DirectionStep {
        if std::mem::replace(&mut self.refused, true) {
            return DirectionStep::Stop(DirectionStop::SinkBroken);
        }
        self.count_fallback(io, SpliceFallback::Error);
        match self.pipe.take().map(|mut pipe| pipe.take_bytes()) {
            Some(Ok(bytes)) => {
                self.held = bytes.into();
                DirectionStep::On
            }
            _ => DirectionStep::Stop(DirectionStop::SinkBroken),
        }
    }
}

/// Whether splice itself was refused, not the socket's life.
fn refuses_splice(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOMEM, Errno::NOSYS, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}
