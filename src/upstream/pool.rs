//! Upstream connections held open and greeted, so that a request costs one round trip.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::health::Health;
use super::slots::UpstreamSlot;
use super::{Unparsed, socks5};
use crate::sys::Stream;

/// Older connections are not used: something on the way may have forgotten them.
const MAX_AGE: Duration = Duration::from_secs(30);

/// A connection over which the server was greeted.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The connection.
    pub(super) stream: Stream,
    /// Its place under the bound.
    pub(super) slot: UpstreamSlot,
    /// When it was greeted.
    pub(super) since: Instant,
    /// The server's choice of method was read: nobody waits for it, who takes the connection finds it there.
    pub(super) answered: bool,
}

/// What a look at a held connection tells.
enum Life {
    /// It can be used.
    Good,
    /// The same, but the server has not answered its greeting yet.
    Waiting,
    /// Too old, or closed since it was answered: as connections go.
    Over,
    /// The server did not answer its greeting as a SOCKS5 server does.
    Failed(&'static str),
}

/// The connections held, newest last.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<Greeted>>,
    filling: AtomicUsize,
    taken: Notify,
}

impl Pool {
    /// The newest connection that is alive and young enough; others on the way are closed. A server that
    /// failed one is down.
    pub(super) fn take(&self, now: Instant, health: &Health) -> Option<Greeted> {
        let greeted = {
            let mut idle = self.idle();
            loop {
                let Some(mut greeted) = idle.pop_back() else { break None };
                match greeted.look(now) {
                    Life::Good | Life::Waiting => break Some(greeted),
                    Life::Over => {}
                    Life::Failed(why) => health.down(why),
                }
            }
        };
        self.taken.notify_one();
        greeted
    }

    /// Closes them all.
    pub(super) fn clear(&self) {
        self.idle().clear();
    }

    /// Adds a connection.
    pub(super) fn put(&self, greeted: Greeted) {
        self.idle().push_back(greeted);
    }

    /// Closes what is dead or too old, and what was not answered within `patience`.
    pub(super) fn prune(&self, now: Instant, patience: Duration, health: &Health) {
        self.idle().retain_mut(|greeted| {
            let life = greeted.look(now);
            match life {
                Life::Waiting if now.duration_since(greeted.since) >= patience => {
                    health.miss();
                    return false;
                }
                Life::Failed(why) => health.down(why),
                Life::Good | Life::Waiting | Life::Over => {}
            }
            matches!(life, Life::Good | Life::Waiting)
        });
    }

    /// Waits until somebody took a connection or found none.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Says how many are being opened.
    pub(super) fn set_filling(&self, filling: usize) {
        self.filling.store(filling, Relaxed);
    }

    /// How many are held, and how many are being opened.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle().len(), self.filling.load(Relaxed))
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Greeted>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Greeted {
    /// Reads the server's answer, if it has come. It is to be all that has.
    fn look(&mut self, now: Instant) -> Life {
        if now.duration_since(self.since) >= MAX_AGE {
            return Life::Over;
        }
        if !self.answered {
            let mut said = [0; socks5::METHOD + 1];
            let read = match self.stream.receive_at_once(&mut said) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Life::Waiting,
                Err(_) | Ok(0) => {
                    return Life::Failed("it closed a connection instead of an answer");
                }
                Ok(read) if read > socks5::METHOD => {
                    return Life::Failed("it said more than its answer to a greeting");
                }
                Ok(read) => read,
            };
            match socks5::parse_method(&said[..read]) {
                Ok(()) => self.answered = true,
                Err(Unparsed::Bad(what)) => return Life::Failed(what),
                // Half an answer: what it has taken out of the stream is nobody's to finish.
                Err(Unparsed::Incomplete) => return Life::Over,
            }
        }
        if self.stream.is_quiet() { Life::Good } else { Life::Over }
    }
}
