//! What is remembered of sockets, by inode. An inode's number is not given again while the machine is
//! up, and nobody tells when a socket is closed: the oldest entry makes room.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// A map that forgets what was put in first.
#[derive(Debug)]
pub(super) struct SocketTable<V> {
    most: usize,
    entries: Mutex<(HashMap<u64, V>, VecDeque<u64>)>,
}

impl<V: Clone> SocketTable<V> {
    /// An empty one that remembers so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Mutex::default() }
    }

    /// Whether there is nothing to be found.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.entries).0.is_empty()
    }

    /// What is known of a socket.
    pub(super) fn get(&self, inode: u64) -> Option<V> {
        lock(&self.entries).0.get(&inode).cloned()
    }

    /// Forgets what is known of a socket.
    pub(super) fn forget(&self, inode: u64) {
        let (map, order) = &mut *lock(&self.entries);
        if map.remove(&inode).is_some() {
            order.retain(|known| *known != inode);
        }
    }

    /// Remembers this of a socket; the oldest entry makes room.
    pub(super) fn put(&self, inode: u64, value: V) {
        let (map, order) = &mut *lock(&self.entries);
        if map.insert(inode, value).is_none() {
            order.push_back(inode);
        }
        while map.len() > self.most
            && let Some(oldest) = order.pop_front()
        {
            map.remove(&oldest);
        }
    }
}

/// Connections being made. Before Linux 5.19 a signal takes a caller out of its call, and the kernel
/// has it call again: the second call is told how the first one's connection ended.
#[derive(Debug, Default)]
pub(super) struct ConnectionAttempts {
    running: Mutex<HashMap<u64, Arc<ConnectionAttempt>>>,
}

/// One connection being made, for the calls that wait for it.
#[derive(Debug)]
pub(super) struct ConnectionAttempt {
    target: SocketAddr,
    ended: Mutex<Option<Result<(), Errno>>>,
    tell: Condvar,
}

/// More are not remembered: callers that never came back were killed.
const MOST_ATTEMPTS: usize = 4096;

impl ConnectionAttempts {
    /// The connection of this socket to this target, if one is being made or was made for a call that
    /// was interrupted.
    pub(super) fn under_way(
        &self,
        inode: u64,
        target: SocketAddr,
    ) -> Option<Arc<ConnectionAttempt>> {
        lock(&self.running).get(&inode).filter(|attempt| attempt.target == target).cloned()
    }

    /// Notes that a connection of this socket to this target is being made.
    pub(super) fn begin_attempt(&self, inode: u64, target: SocketAddr) -> Arc<ConnectionAttempt> {
        let attempt = Arc::new(ConnectionAttempt {
            target,
            ended: Mutex::default(),
            tell: Condvar::default(),
        });
        let mut running = lock(&self.running);
        if running.len() >= MOST_ATTEMPTS {
            running.retain(|_, attempt| lock(&attempt.ended).is_none());
        }
        running.insert(inode, Arc::clone(&attempt));
        attempt
    }

    /// Tells the caller how it ended: `answer` is whether that reached it, or nobody will ask again.
    /// Until then nobody else looks here: the caller's next call may come at once.
    pub(super) fn deliver_result(&self, inode: u64, answer: impl FnOnce() -> bool) {
        let mut running = lock(&self.running);
        if answer() {
            running.remove(&inode);
        }
    }
}

impl ConnectionAttempt {
    /// Notes how it ended, and wakes the calls that wait for it.
    pub(super) fn record_end(&self, result: Result<(), Errno>) {
        *lock(&self.ended) = Some(result);
        self.tell.notify_all();
    }

    /// Waits for its end, which comes within the gateway's connect timeout.
    pub(super) fn wait_for_end(&self) -> Result<(), Errno> {
        let mut ended = lock(&self.ended);
        loop {
            match *ended {
                Some(result) => return result,
                None => ended = self.tell.wait(ended).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let known = SocketTable::new(2);
        assert!(known.is_empty());
        for inode in [1, 2, 1, 3] {
            known.put(inode, inode * 10);
        }
        assert_eq!((known.get(1), known.get(2), known.get(3)), (None, Some(20), Some(30)));
        known.forget(2);
        [4, 5].into_iter().for_each(|inode| known.put(inode, 0));
        assert_eq!((known.get(2), known.get(3), known.get(4)), (None, None, Some(0)));
    }

    #[test]
    fn a_call_that_comes_again_learns_how_the_first_ended() {
        let attempts = ConnectionAttempts::default();
        let target = "10.0.0.1:80".parse().unwrap();
        let first = attempts.begin_attempt(7, target);
        let again = attempts.under_way(7, target).unwrap();
        assert!(attempts.under_way(7, "10.0.0.2:80".parse().unwrap()).is_none());
        let waiting = std::thread::spawn(move || again.wait_for_end());
        first.record_end(Err(Errno::CONNREFUSED));
        assert_eq!(waiting.join().unwrap(), Err(Errno::CONNREFUSED));
        attempts.deliver_result(7, || false);
        assert!(attempts.under_way(7, target).is_some(), "the second call was interrupted too");
        attempts.deliver_result(7, || true);
        assert!(attempts.under_way(7, target).is_none());
    }
}
