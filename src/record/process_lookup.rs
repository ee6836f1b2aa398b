//! Which program a client is: seen in passing where it called before, else looked for beside the
//! connections, by one thread of its own.
//!
//! The kernel is asked for each client's socket (sock_diag(7)), `/proc` for the process that holds it.
//! No connection ever waits for a search. What it may cost is bounded: a share of one processor, a queue
//! of fixed length; what does not fit is "unknown".
#![forbid(unsafe_code)]

mod caller_slot;
mod cpu_budget;
mod process;
mod search;
mod search_context;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) use self::caller_slot::CallerSlot;
pub use self::process::Process;
use self::search::SearchResult;
use self::search_context::SearchContext;
use super::live::LiveEntry;
use super::log::AccessLog;

/// Connections that wait to be looked at; later ones stay unknown.
const MOST_QUEUED: usize = 1024;
/// Connections looked at together.
const AT_ONCE: usize = 256;
/// Between two searches, so that a busy gateway's clients are looked for together.
const PACE: Duration = Duration::from_millis(2);
/// The same while there is nothing to be spent: lines wait no longer than this.
const REST: Duration = Duration::from_millis(20);
/// When to look again for whom nobody was found though not everybody was looked at.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(2)];
/// How long the end waits for a search under way.
const LAST_SEARCH: Duration = Duration::from_millis(100);

/// Looks for callers until it is dropped.
pub(super) struct ProcessLookup {
    shared: Arc<LookupQueue>,
    looker: Arc<Mutex<SearchContext>>,
    log: AccessLog,
}

struct LookupQueue {
    state: Mutex<QueueState>,
    /// Something to do.
    work: Condvar,
    /// Nothing is done any more.
    over: Condvar,
}

#[derive(Default)]
struct QueueState {
    queue: Vec<QueuedLookup>,
    waiting: bool,
    closing: bool,
    over: bool,
}

/// A connection whose caller is sought.
struct QueuedLookup {
    entry: Arc<LiveEntry>,
    /// Where the client thinks it is connected to.
    server: SocketAddr,
    tries: usize,
}

impl QueuedLookup {
    /// Whether its connection is still there.
    fn is_open(&self) -> bool {
        Arc::strong_count(&self.entry) > 1
    }
}

impl ProcessLookup {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no sock_diag(7) here, or no thread to be had.
    pub(super) fn start(log: AccessLog) -> io::Result<Self> {
        let shared = Arc::new(LookupQueue {
            state: Mutex::default(),
            work: Condvar::new(),
            over: Condvar::new(),
        });
        let now = Instant::now();
        let looker = Arc::new(Mutex::new(SearchContext::new(now)?));
        let seeker = LookupThread {
            shared: Arc::clone(&shared),
            log: log.clone(),
            looker: Arc::clone(&looker),
            later: Vec::new(),
            pace: Duration::ZERO,
            ended: now,
        };
        std::thread::Builder::new().name("callers".to_owned()).spawn(move || seeker.run())?;
        Ok(Self { shared, looker, log })
    }

    /// Has the caller of a connection looked for; `server` is where it thinks it is connected to.
    pub(super) fn look_up(&self, entry: &Arc<LiveEntry>, server: SocketAddr) {
        // While the thread is in a search nobody waits for it here.
        let looker = self.looker.try_lock().ok();
        let seen =
            looker.and_then(|mut l| l.look_at_recent((entry.client, server), Instant::now()));
        if seen.is_some() {
            return entry.caller.settle_lookup(seen, &self.log);
        }
        let mut state = self.shared.lock();
        if state.closing || state.queue.len() >= MOST_QUEUED {
            return;
        }
        entry.caller.begin_lookup();
        state.queue.push(QueuedLookup { entry: Arc::clone(entry), server, tries: 0 });
        if std::mem::take(&mut state.waiting) {
            drop(state);
            self.shared.work.notify_one();
        }
    }

    /// Looks for nobody any more; lines that wait go out.
    pub(super) fn end(&self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.work.notify_one();
        let over = self.shared.over.wait_timeout_while(state, LAST_SEARCH, |state| !state.over);
        drop(over.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for ProcessLookup {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
    }
}

impl LookupQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread has.
struct LookupThread {
    shared: Arc<LookupQueue>,
    log: AccessLog,
    looker: Arc<Mutex<SearchContext>>,
    /// To be looked at again, and when.
    later: Vec<(Instant, QueuedLookup)>,
    pace: Duration,
    ended: Instant,
}

impl LookupThread {
    fn run(mut self) {
        while let Some(batch) = self.next() {
            let wait = self.lock_context().wait_time(Instant::now());
            if wait.is_zero() {
                self.look_up_batch(batch);
                self.pace = PACE;
            } else {
                self.put_off(batch, wait);
                self.pace = REST;
            }
            self.ended = Instant::now();
        }
        for (_, item) in self.later.drain(..) {
            item.entry.caller.settle_lookup(None, &self.log);
        }
        let mut state = self.shared.lock();
        for item in state.queue.drain(..) {
            item.entry.caller.settle_lookup(None, &self.log);
        }
        state.over = true;
        self.shared.over.notify_all();
    }

    /// Waits for something to do; `None` at the end.
    fn next(&mut self) -> Option<Vec<QueuedLookup>> {
        self.wait_for_work();
        let pace = self.pace.saturating_sub(self.ended.elapsed());
        let state = self.shared.lock();
        let paced = self.shared.work.wait_timeout_while(state, pace, |state| !state.closing);
        let (mut state, _) = paced.unwrap_or_else(PoisonError::into_inner);
        if state.closing {
            return None;
        }
        let few = state.queue.len().min(AT_ONCE);
        let mut batch: Vec<QueuedLookup> = state.queue.drain(..few).collect();
        drop(state);
        let now = Instant::now();
        let due = self.later.extract_if(.., |(due, _)| *due <= now).map(|(_, item)| item);
        batch.extend(due.filter(QueuedLookup::is_open).take(AT_ONCE));
        Some(batch)
    }

    fn wait_for_work(&self) {
        let next = self.later.iter().map(|(due, _)| *due).min();
        let idle = |state: &mut QueueState| state.queue.is_empty() && !state.closing;
        let mut state = self.shared.lock();
        state.waiting = idle(&mut state);
        let work = &self.shared.work;
        let mut state = match next.map(|due| due.saturating_duration_since(Instant::now())) {
            Some(left) => {
                let waited = work.wait_timeout_while(state, left, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
        };
        state.waiting = false;
    }

    /// Lines do not wait for better days; connections that last may be looked at then.
    fn put_off(&mut self, batch: Vec<QueuedLookup>, wait: Duration) {
        let due = Instant::now() + wait;
        for item in batch {
            item.entry.caller.settle_lookup(None, &self.log);
            self.look_later(due, item);
        }
    }

    fn look_later(&mut self, due: Instant, item: QueuedLookup) {
        if item.is_open() && self.later.len() < MOST_QUEUED {
            self.later.push((due, item));
        }
    }

    fn look_up_batch(&mut self, batch: Vec<QueuedLookup>) {
        let pairs: Vec<_> = batch.iter().map(|item| (item.entry.client, item.server)).collect();
        let found = self.lock_context().look_up(&pairs);
        let now = Instant::now();
        // In the order they came in, so that their lines are.
        for (item, found) in batch.into_iter().zip(found) {
            self.settle_lookup(item, found, now);
        }
    }

    fn lock_context(&self) -> MutexGuard<'_, SearchContext> {
        self.looker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle_lookup(&mut self, mut item: QueuedLookup, found: SearchResult, now: Instant) {
        let (process, again) = match found {
            SearchResult::Holder(process) => (Some(process), false),
            SearchResult::Intermediary(process) => (Some(process), true),
            SearchResult::Unfinished => (None, true),
            SearchResult::Nobody => (None, false),
        };
        item.entry.caller.settle_lookup(process, &self.log);
        if let Some(pause) = AGAIN.get(item.tries).filter(|_| again) {
            item.tries += 1;
            self.look_later(now + *pause, item);
        }
    }
}

#[cfg(test)]
mod tests;
