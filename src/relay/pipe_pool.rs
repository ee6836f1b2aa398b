//! The bounded pool of pipes: taken by a direction that proved bulky, given back empty.
//!
//! A pipe with bytes in it is closed, never pooled: they are somebody's. Pipes nobody took for
//! half a second are closed, so that a quiet gateway holds none.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::labels::{PerLabel, SpliceFallback};
use crate::sys::{Pipe, Stream};

/// What a large pipe holds: the kernel's own ceiling for users (`fs.pipe-max-size`).
const LARGE: usize = 1 << 20;

/// What a pipe must hold to be worth it; over quota the kernel hands out 8 KiB (pipe(7)).
const SMALLEST: usize = 64 << 10;

/// Large pipes at once: under the 64 MiB an unprivileged user has (`fs.pipe-user-pages-soft`),
/// with room for the smaller ones.
const MOST_LARGE: usize = 48;

/// Pipes at once; beyond this a flow copies, which costs it little.
const MOST: usize = 256;

/// How long an unused pipe stays open, and how long a failed attempt keeps us from the next.
const LINGER: Duration = Duration::from_millis(500);

/// All pipes of the process, and the relay's counters.
#[derive(Debug)]
pub struct PipePool {
    most: usize,
    most_large: usize,
    idle_pipes: Mutex<IdlePipes>,
    in_use: AtomicUsize,
    sweeping: AtomicBool,
    fallbacks: PerLabel<SpliceFallback, AtomicU64>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct IdlePipes {
    idle: Vec<(Pipe, Instant)>,
    open: usize,
    large: usize,
    scarce_until: Option<Instant>,
}

impl PipePool {
    /// A pool of at most `most` pipes, `most_large` of them of 1 MiB.
    pub fn new(most: usize, most_large: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_large,
            idle_pipes: Mutex::default(),
            in_use: AtomicUsize::new(0),
            sweeping: AtomicBool::new(false),
            fallbacks: PerLabel::from_fn(|_| AtomicU64::default()),
            lost: AtomicU64::new(0),
        })
    }

    /// A pool that leaves nearly all of this process's file limit to connections.
    pub fn for_this_process() -> Arc<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        Self::new((files / 32).clamp(4, MOST), MOST_LARGE)
    }

    /// Most descriptors the pool may hold at once.
    pub fn most_descriptors(&self) -> usize {
        2 * self.most
    }

    /// Pipes that hold or may hold bytes now: `tailrace_pipes_in_use`.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        self.lock_idle().open
    }

    /// How often a direction fell back to copying: `tailrace_splice_fallback_total`.
    pub fn fallback_count(&self, cause: SpliceFallback) -> u64 {
        self.fallbacks[cause].load(Ordering::Relaxed)
    }

    /// Bytes read from one side that never reached the other: `tailrace_lost_bytes_total`.
    pub fn lost_bytes(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn count_fallback(&self, cause: SpliceFallback) {
        self.fallbacks[cause].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_lost(&self, bytes: u64) {
        self.lost.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An empty pipe of at least 64 KiB, if the limits leave one.
    pub(super) fn take(self: &Arc<Self>) -> Option<PipeLease> {
        let pipe = self.lock_idle().take_pipe(self.most, self.most_large)?;
        self.in_use.fetch_add(1, Ordering::Relaxed);
        Some(PipeLease { pool: Arc::clone(self), pipe: Some(pipe), len: 0 })
    }

    fn lock_idle(&self) -> MutexGuard<'_, IdlePipes> {
        self.idle_pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(self: &Arc<Self>, pipe: Pipe, len: usize) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        let clean = len == 0 && pipe.is_empty().unwrap_or(false);
        let runtime = tokio::runtime::Handle::try_current();
        match runtime {
            Ok(runtime) if clean => {
                self.lock_idle().idle.push((pipe, Instant::now()));
                if !self.sweeping.swap(true, Ordering::AcqRel) {
                    runtime.spawn(close_idle_pipes(Arc::downgrade(self)));
                }
            }
            _ => self.lock_idle().close_pipe(pipe),
        }
    }
}

/// Closes idle pipes until none is left, then ends: an idle gateway has no task for this.
async fn close_idle_pipes(pool: Weak<PipePool>) {
    loop {
        tokio::time::sleep(LINGER).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle_pipes = pool.lock_idle();
        idle_pipes.close_idle();
        if idle_pipes.idle.is_empty() {
            // Still under the lock: whoever gives back the next pipe starts the next sweep.
            pool.sweeping.store(false, Ordering::Release);
            return;
        }
    }
}

impl IdlePipes {
    fn take_pipe(&mut self, most: usize, most_large: usize) -> Option<Pipe> {
        if let Some((pipe, _)) = self.idle.pop() {
            return Some(pipe);
        }
        if self.open >= most || self.scarce_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let pipe = self.open_pipe(most_large);
        self.scarce_until = pipe.is_none().then(|| Instant::now() + LINGER);
        pipe
    }

    fn open_pipe(&mut self, most_large: usize) -> Option<Pipe> {
        let mut pipe = Pipe::open().ok()?;
        if self.large < most_large {
            let _quota_used_up_keeps_default = pipe.grow_to(LARGE);
        }
        if pipe.size() < SMALLEST {
            return None;
        }
        self.open += 1;
        self.large += usize::from(pipe.size() >= LARGE);
        Some(pipe)
    }

    fn close_pipe(&mut self, pipe: Pipe) {
        self.open -= 1;
        self.large -= usize::from(pipe.size() >= LARGE);
        drop(pipe);
    }

    fn close_idle(&mut self) {
        let now = Instant::now();
        let (fresh, stale) = std::mem::take(&mut self.idle)
            .into_iter()
            .partition(|(_, since)| now - *since < LINGER);
        self.idle = fresh;
        let stale: Vec<(Pipe, Instant)> = stale;
        stale.into_iter().for_each(|(pipe, _)| self.close_pipe(pipe));
    }
}

/// A pipe that one direction of one relay has taken from the pool, and how many bytes lie in it.
#[derive(Debug)]
pub(super) struct PipeLease {
    pool: Arc<PipePool>,
    pipe: Option<Pipe>, // `None` only while dropping
    len: usize,
}

impl PipeLease {
    /// Bytes in the pipe.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Splices bytes from the socket into the pipe; how many. `WouldBlock`: no bytes, or no room.
    pub(super) fn fill_from(&mut self, from: &Stream) -> std::io::Result<usize> {
        let n = self.leased_pipe()?.fill_from(from)?;
        self.len += n;
        Ok(n)
    }

    /// Splices what the pipe holds into the socket; how many bytes it took. `WouldBlock`: none for now.
    pub(super) fn drain_to(&mut self, to: &Stream) -> std::io::Result<usize> {
        let n = self.leased_pipe()?.drain_to(to, self.len)?;
        self.len -= n;
        Ok(n)
    }

    /// Everything in the pipe, into memory.
    pub(super) fn take_bytes(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.leased_pipe()?.read(&mut bytes[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        self.len -= filled;
        bytes.truncate(filled);
        Ok(bytes)
    }

    #[cfg(test)]
    pub(super) fn really_in_it(&self) -> u64 {
        self.leased_pipe().and_then(Pipe::len).unwrap()
    }

    fn leased_pipe(&self) -> std::io::Result<&Pipe> {
        self.pipe.as_ref().ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }
}

impl Drop for PipeLease {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.pool.give_back(pipe, self.len);
        }
    }
}
