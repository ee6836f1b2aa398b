//! Upstream connections held open and greeted, so that a request costs one round trip.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection_slots::UpstreamSlot;
use super::health::UpstreamHealth;
use super::{Unparsed, socks5};
use crate::sys::Stream;

/// Older connections are not used: something on the way may have forgotten them.
const MAX_AGE: Duration = Duration::from_secs(30);

/// A connection over which the server was greeted.
#[derive(Debug)]
pub(super) struct GreetedConnection {
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
enum ConnectionLife {
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
pub(super) struct GreetedPool {
    idle: Mutex<VecDeque<GreetedConnection>>,
    filling: AtomicUsize,
    taken: Notify,
}

impl GreetedPool {
    /// The newest connection that is alive and young enough; others on the way are closed. A server that
    /// failed one is down.
    pub(super) fn take_live(
        &self,
        now: Instant,
        health: &UpstreamHealth,
    ) -> Option<GreetedConnection> {
        let greeted = {
            let mut idle = self.lock_idle();
            loop {
                let Some(mut greeted) = idle.pop_back() else { break None };
                match greeted.check_life(now) {
                    ConnectionLife::Good | ConnectionLife::Waiting => break Some(greeted),
                    ConnectionLife::Over => {}
                    ConnectionLife::Failed(why) => health.note_down(why),
                }
            }
        };
        self.taken.notify_one();
        greeted
    }

    /// Closes them all.
    pub(super) fn clear(&self) {
        self.lock_idle().clear();
    }

    /// Adds a connection.
    pub(super) fn put_back(&self, greeted: GreetedConnection) {
        self.lock_idle().push_back(greeted);
    }

    /// Closes what is dead or too old, and what was not answered within `patience`.
    pub(super) fn close_stale(&self, now: Instant, patience: Duration, health: &UpstreamHealth) {
        self.lock_idle().retain_mut(|greeted| {
            let life = greeted.check_life(now);
            match life {
                ConnectionLife::Waiting if now.duration_since(greeted.since) >= patience => {
                    health.note_missed();
                    return false;
                }
                ConnectionLife::Failed(why) => health.note_down(why),
                ConnectionLife::Good | ConnectionLife::Waiting | ConnectionLife::Over => {}
            }
            matches!(life, ConnectionLife::Good | ConnectionLife::Waiting)
        });
    }

    /// Waits until somebody took a connection or found none.
    pub(super) async fn wait_until_taken(&self) {
        self.taken.notified().await;
    }

    /// Says how many are being opened.
    pub(super) fn set_filling(&self, filling: usize) {
        self.filling.store(filling, Relaxed);
    }

    /// How many are held, and how many are being opened.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.lock_idle().len(), self.filling.load(Relaxed))
    }

    fn lock_idle(&self) -> MutexGuard<'_, VecDeque<GreetedConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GreetedConnection {
    /// Reads the server's answer, if it has come. It is to be all that has.
    fn check_life(&mut self, now: Instant) -> ConnectionLife {
        if now.duration_since(self.since) >= MAX_AGE {
            return ConnectionLife::Over;
        }
        if !self.answered {
            let mut said = [0; socks5::METHOD + 1];
            let read = match self.stream.receive_at_once(&mut said) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return ConnectionLife::Waiting;
                }
                Err(_) | Ok(0) => {
                    return ConnectionLife::Failed("it closed a connection instead of an answer");
                }
                Ok(read) if read > socks5::METHOD => {
                    return ConnectionLife::Failed("it said more than its answer to a greeting");
                }
                Ok(read) => read,
            };
            match socks5::parse_method(&said[..read]) {
                Ok(()) => self.answered = true,
                Err(Unparsed::Bad(what)) => return ConnectionLife::Failed(what),
                // Half an answer: what it has taken out of the stream is nobody's to finish.
                Err(Unparsed::Incomplete) => return ConnectionLife::Over,
            }
        }
        if self.stream.is_quiet() { ConnectionLife::Good } else { ConnectionLife::Over }
    }
}
