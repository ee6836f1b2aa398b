//! The live table: every client connection open now, readable from outside without disturbing it.
//!
//! It never holds up a connection for longer than it takes to copy a few words.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::id::Id;
use super::labels::{INBOUND, UNKNOWN};
use super::metrics::Metrics;
use super::process_lookup::{CallerSlot, Process};
use super::stage::{self, Stage};
use crate::lifecycle::cut::Cut;
use crate::relay::Meter;
use crate::target::Target;

/// Locks of the table; connections come and go on every worker at once.
const SHARDS: usize = 16;

/// One client connection as others may see it.
pub(super) struct Entry {
    key: u64,
    pub(super) client: SocketAddr,
    pub(super) accepted: Instant,
    /// Lines written for this connection so far.
    pub(super) lines: AtomicU32,
    inbound: AtomicU8,
    stage: AtomicU8,
    pub(super) meter: Meter,
    pub(super) cut: Cut,
    /// Bytes of `meter` already in the metrics.
    counted: [AtomicU64; 2],
    shown: Mutex<LiveTarget>,
    /// The program at the other end.
    pub(super) caller: CallerSlot,
}

/// What is known of the target asked for now.
#[derive(Default)]
pub(super) struct LiveTarget {
    pub(super) id: Id,
    pub(super) target: Option<Target>,
    pub(super) address: Option<SocketAddr>,
    pub(super) judged: Option<LiveVerdict>,
}

/// What policy said.
#[derive(Debug, Clone)]
pub(super) struct LiveVerdict {
    pub(super) mode: &'static str,
    pub(super) verdict: &'static str,
    pub(super) rule: Option<Box<str>>,
}

/// One row of `/api/v1/connections`.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The id its access line will carry.
    pub id: String,
    /// What the client speaks.
    pub inbound: &'static str,
    /// The client's address.
    pub client: String,
    /// The client program, where it is known.
    pub process: Option<Process>,
    /// The host asked for.
    pub host: Option<String>,
    /// The port asked for.
    pub port: Option<u16>,
    /// The address dialled, where we dialled one.
    pub address: Option<String>,
    /// What policy said.
    pub verdict: Option<&'static str>,
    /// Bytes towards the target so far.
    pub bytes_up: u64,
    /// Bytes towards the client so far.
    pub bytes_down: u64,
    /// Milliseconds since accept.
    pub age_ms: u64,
    /// How far it has come.
    pub stage: &'static str,
}

/// A client connection for those who may end it (a reload, the end of a drain) and for its own relay.
pub struct Live {
    pub(super) entry: Arc<Entry>,
}

impl Live {
    /// What the client asked for, once that is known.
    pub fn target(&self) -> Option<Target> {
        self.entry.shown().target.clone()
    }

    /// The address dialled, where we dialled one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.entry.shown().address
    }

    /// What policy said, once it was asked.
    pub fn verdict(&self) -> Option<&'static str> {
        self.entry.shown().judged.as_ref().map(|judged| judged.verdict)
    }

    /// The client program, where it is known.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.entry.caller.process()
    }

    /// Ends it when told so.
    pub fn cut(&self) -> &Cut {
        &self.entry.cut
    }

    /// Where bytes are counted: those of the whole client connection.
    pub fn meter(&self) -> &Meter {
        &self.entry.meter
    }

    /// Writes down that policy changed its mind; the access line will say so.
    pub fn judged(&self, mode: &'static str, verdict: &'static str, rule: Option<String>) {
        let rule = rule.map(String::into_boxed_str);
        self.entry.shown().judged = Some(LiveVerdict { mode, verdict, rule });
    }
}

/// The client connections that were open at one moment.
pub struct Lives(Vec<Arc<Entry>>);

impl Lives {
    /// Shows each of them, in no order.
    pub fn each(self, mut look: impl FnMut(&Live)) {
        for entry in self.0 {
            look(&Live { entry });
        }
    }
}

/// Every client connection open now.
#[derive(Default)]
pub(super) struct Table {
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
}

impl Table {
    pub(super) fn enter(&self, key: u64, client: SocketAddr) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            key,
            client,
            accepted: Instant::now(),
            lines: AtomicU32::new(0),
            inbound: AtomicU8::new(UNKNOWN),
            stage: AtomicU8::new(Stage::Head as u8),
            meter: Meter::default(),
            cut: Cut::default(),
            counted: Default::default(),
            shown: Mutex::new(LiveTarget { id: Id::new(key), ..LiveTarget::default() }),
            caller: CallerSlot::default(),
        });
        self.shard(key).insert(key, Arc::clone(&entry));
        entry
    }

    pub(super) fn leave(&self, entry: &Entry) {
        let mut shard = self.shard(entry.key);
        shard.remove(&entry.key);
        // A burst must not be paid for until the end of the process.
        if shard.len() * 4 < shard.capacity() && shard.capacity() > 64 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let shard = |shard: &Mutex<HashMap<_, Arc<Entry>>>| {
            let entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            entries.values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(shard).collect()
    }

    pub(super) fn lives(&self) -> Lives {
        Lives(self.all())
    }

    pub(super) fn len(&self) -> usize {
        let len = |s: &Mutex<HashMap<_, _>>| s.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below SHARDS")]
        let at = (key % SHARDS as u64) as usize;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn shown(&self) -> MutexGuard<'_, LiveTarget> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbound(&self) -> u8 {
        self.inbound.load(Ordering::Relaxed)
    }

    pub(super) fn set_inbound(&self, inbound: u8) -> u8 {
        self.inbound.swap(inbound, Ordering::Relaxed)
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> &'static str {
        stage::label_of(self.stage.load(Ordering::Relaxed))
    }

    /// Brings the metrics up to what the meter says now, so that live flows show (C15).
    pub(super) fn count_bytes(&self, metrics: &Metrics) {
        let news = |at: usize, now: u64| {
            // Another thread may have counted further already.
            now.saturating_sub(self.counted[at].fetch_max(now, Ordering::Relaxed))
        };
        let (up, down) = (news(0, self.meter.up()), news(1, self.meter.down()));
        if up | down != 0 {
            metrics.relayed(self.inbound(), up, down);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let shown = self.shown();
        Snapshot {
            id: shown.id.as_str().to_owned(),
            inbound: INBOUND[usize::from(self.inbound())],
            client: self.client.to_string(),
            process: self.caller.process().as_deref().cloned(),
            host: shown.target.as_ref().map(|target| target.host.to_string()),
            port: shown.target.as_ref().map(|target| target.port.get()),
            address: shown.address.map(|address| address.ip().to_string()),
            verdict: shown.judged.as_ref().map(|judged| judged.verdict),
            bytes_up: self.meter.up(),
            bytes_down: self.meter.down(),
            age_ms: u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX),
            stage: self.stage(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_small() {
        // Memory per idle connection is a promise (2.5 kB in all).
        assert!(size_of::<Entry>() <= 320, "{}", size_of::<Entry>());
    }
}
