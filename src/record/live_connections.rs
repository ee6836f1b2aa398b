//! The live table: every client connection open now, readable from outside without disturbing it.
//!
//! It never holds up a connection for longer than it takes to copy a few words.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection_id::LineId;
use super::metrics::MetricHandles;
use super::process_lookup::{CallerSlot, Process};
use crate::api::ConnectionAnswer;
use crate::labels::{Direction, Inbound, PolicyMode, Stage, Verdict};
use crate::lifecycle::connection_cut::Cut;
use crate::relay::Meter;
use crate::target::Target;

/// Locks of the table; connections come and go on every worker at once.
const SHARDS: usize = 16;

/// One client connection as others may see it.
pub(super) struct LiveEntry {
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
    pub(super) id: LineId,
    pub(super) target: Option<Target>,
    pub(super) address: Option<SocketAddr>,
    pub(super) judged: Option<LiveVerdict>,
    /// Its access line is written: the client is between two requests, or about to leave.
    pub(super) is_finished: bool,
}

/// What policy said of a target, in which mode, and by which rule.
#[derive(Debug, Clone)]
pub(super) struct LiveVerdict {
    pub(super) mode: PolicyMode,
    pub(super) verdict: Verdict,
    pub(super) rule: Option<Box<str>>,
}

/// A client connection for those who may end it (a reload, the end of a drain) and for its own relay.
pub struct LiveConnection {
    pub(super) entry: Arc<LiveEntry>,
}

impl LiveConnection {
    /// What the client asked for, once that is known.
    pub fn target(&self) -> Option<Target> {
        self.entry.lock_target().target.clone()
    }

    /// Whether what it asked for is over: it is between two requests, or about to end.
    pub fn is_finished(&self) -> bool {
        self.entry.lock_target().is_finished
    }

    /// The address dialled, where we dialled one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.entry.lock_target().address
    }

    /// What policy said, once it was asked.
    pub fn verdict(&self) -> Option<Verdict> {
        self.entry.lock_target().judged.as_ref().map(|judged| judged.verdict)
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
    pub fn set_verdict(&self, mode: PolicyMode, verdict: Verdict, rule: Option<String>) {
        let rule = rule.map(String::into_boxed_str);
        self.entry.lock_target().judged = Some(LiveVerdict { mode, verdict, rule });
    }
}

/// The client connections that were open at one moment.
pub struct LiveConnections(Vec<Arc<LiveEntry>>);

impl LiveConnections {
    /// Shows each of them, in no order.
    pub fn for_each(self, mut look: impl FnMut(&LiveConnection)) {
        for entry in self.0 {
            look(&LiveConnection { entry });
        }
    }
}

/// Every client connection open now.
#[derive(Default)]
pub(super) struct LiveTable {
    shards: [Mutex<HashMap<u64, Arc<LiveEntry>>>; SHARDS],
}

impl LiveTable {
    pub(super) fn add_connection(&self, key: u64, client: SocketAddr) -> Arc<LiveEntry> {
        let entry = Arc::new(LiveEntry {
            key,
            client,
            accepted: Instant::now(),
            lines: AtomicU32::new(0),
            inbound: AtomicU8::new(Inbound::Unknown as u8),
            stage: AtomicU8::new(Stage::Head as u8),
            meter: Meter::default(),
            cut: Cut::default(),
            counted: Default::default(),
            shown: Mutex::new(LiveTarget { id: LineId::new(key), ..LiveTarget::default() }),
            caller: CallerSlot::default(),
        });
        self.lock_shard(key).insert(key, Arc::clone(&entry));
        entry
    }

    pub(super) fn remove_connection(&self, entry: &LiveEntry) {
        let mut shard = self.lock_shard(entry.key);
        shard.remove(&entry.key);
        // A burst must not be paid for until the end of the process.
        if shard.len() * 4 < shard.capacity() && shard.capacity() > 64 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
    }

    pub(super) fn all_entries(&self) -> Vec<Arc<LiveEntry>> {
        let shard = |shard: &Mutex<HashMap<_, Arc<LiveEntry>>>| {
            let entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            entries.values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(shard).collect()
    }

    pub(super) fn connections(&self) -> LiveConnections {
        LiveConnections(self.all_entries())
    }

    pub(super) fn len(&self) -> usize {
        let len = |s: &Mutex<HashMap<_, _>>| s.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }

    fn lock_shard(&self, key: u64) -> MutexGuard<'_, HashMap<u64, Arc<LiveEntry>>> {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below SHARDS")]
        let at = (key % SHARDS as u64) as usize;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveEntry {
    pub(super) fn lock_target(&self) -> MutexGuard<'_, LiveTarget> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbound(&self) -> Inbound {
        inbound_of(self.inbound.load(Ordering::Relaxed))
    }

    /// Returns the one before.
    pub(super) fn set_inbound(&self, inbound: Inbound) -> Inbound {
        inbound_of(self.inbound.swap(inbound as u8, Ordering::Relaxed))
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> Stage {
        let stage = self.stage.load(Ordering::Relaxed);
        Stage::ALL.get(usize::from(stage)).copied().unwrap_or(Stage::Linger)
    }

    /// Brings the metrics up to what the meter says now, so that live flows show (C15).
    pub(super) fn count_bytes(&self, metrics: &MetricHandles) {
        let news = |direction: Direction, now: u64| {
            let counted = &self.counted[direction as usize];
            // Another thread may have counted further already.
            now.saturating_sub(counted.fetch_max(now, Ordering::Relaxed))
        };
        let up = news(Direction::Up, self.meter.up());
        let down = news(Direction::Down, self.meter.down());
        if up | down != 0 {
            metrics.add_relayed(self.inbound(), up, down);
        }
    }

    pub(super) fn api_row(&self) -> ConnectionAnswer {
        let shown = self.lock_target();
        ConnectionAnswer {
            id: shown.id.as_str().to_owned(),
            inbound: self.inbound(),
            client: self.client,
            process: self.caller.process().as_deref().cloned(),
            host: shown.target.as_ref().map(|target| target.host.to_string()),
            port: shown.target.as_ref().map(|target| target.port.get()),
            address: shown.address.map(|address| address.ip()),
            verdict: shown.judged.as_ref().map(|judged| judged.verdict),
            bytes_up: self.meter.up(),
            bytes_down: self.meter.down(),
            age_ms: u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX),
            stage: self.stage(),
        }
    }
}

/// The value behind the number that an entry keeps.
fn inbound_of(number: u8) -> Inbound {
    Inbound::ALL.get(usize::from(number)).copied().unwrap_or(Inbound::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_small() {
        // Memory per idle connection is a promise (2.5 kB in all).
        assert!(size_of::<LiveEntry>() <= 320, "{}", size_of::<LiveEntry>());
    }
}
