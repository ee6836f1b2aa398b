//! Upstream connections held open and greeted, so that a request costs one round trip.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::slots::UpstreamSlot;
use crate::sys::Stream;

/// Older connections are not used: something on the way may have forgotten them.
const MAX_AGE: Duration = Duration::from_secs(30);

/// A connection whose greeting is done.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The connection.
    pub(super) stream: Stream,
    /// Its place under the bound.
    pub(super) slot: UpstreamSlot,
    /// When it was greeted.
    pub(super) since: Instant,
}

/// The connections held, newest last.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<Greeted>>,
    filling: AtomicUsize,
    taken: Notify,
}

impl Pool {
    /// The newest connection that is alive and young enough; others on the way are closed.
    pub(super) fn take(&self, now: Instant) -> Option<Greeted> {
        let greeted = {
            let mut idle = self.idle();
            loop {
                match idle.pop_back() {
                    Some(greeted) if greeted.usable(now) => break Some(greeted),
                    Some(_dead) => {}
                    None => break None,
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

    /// Closes what is dead or too old.
    pub(super) fn prune(&self, now: Instant) {
        self.idle().retain(|greeted| greeted.usable(now));
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
    /// Young enough, and the server neither closed it nor said a word out of turn.
    fn usable(&self, now: Instant) -> bool {
        now.duration_since(self.since) < MAX_AGE && self.stream.is_quiet()
    }
}
