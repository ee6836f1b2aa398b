//! What all connections write into: numbers, the live table, the access log.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::access_log::RunningTotals;
use super::guard::ConnectionRecord;
use super::live::{LiveConnections, LiveEntry, LiveTable};
use super::log::AccessLog;
use super::metrics::MetricHandles;
use super::own_process;
use super::process_lookup::{Process, ProcessLookup};
use crate::api::{ConnectionAnswer, Counters};
use crate::labels::{
    AcceptErrno, DnsResult, DnsRoute, LogStream, PolicyMode, ReloadResult, RestartCause,
    SpliceFallback, TailnetPhase, Verdict,
};
use crate::target::Target;

/// Reads numbers that others keep (pipes, pool, tasks) into the metrics, just before a scrape.
pub type Sampler = Box<dyn Fn(&Telemetry) + Send + Sync>;

/// Shared by every connection of a gateway.
pub struct Telemetry {
    pub(super) metrics: MetricHandles,
    pub(super) table: LiveTable,
    pub(super) access: AccessLog,
    callers: OnceLock<ProcessLookup>,
    next: AtomicU64,
    pub(super) totals: RunningTotals,
    sampler: OnceLock<Sampler>,
    child_lines: Arc<AtomicU64>,
}

impl Telemetry {
    /// All series at 0.
    pub fn new(access: AccessLog) -> Arc<Self> {
        Arc::new(Self {
            metrics: MetricHandles::new(),
            table: LiveTable::default(),
            access,
            callers: OnceLock::new(),
            next: AtomicU64::new(1),
            totals: RunningTotals::default(),
            sampler: OnceLock::new(),
            child_lines: Arc::default(),
        })
    }

    /// Opens the record of a client connection; `server` is where the client thinks it is connected
    /// to.
    pub fn begin_connection(
        self: &Arc<Self>,
        client: SocketAddr,
        server: SocketAddr,
    ) -> ConnectionRecord {
        ConnectionRecord::begin(Arc::clone(self), self.next_number(), client, server)
    }

    /// From now on the programs of clients on this host are looked for and named.
    ///
    /// # Errors
    /// This kernel or a sandbox does not let us look.
    pub fn name_callers(&self) -> io::Result<()> {
        let _first_stays = self.callers.set(ProcessLookup::start(self.access.clone())?);
        Ok(())
    }

    pub(super) fn seek_caller(&self, entry: &Arc<LiveEntry>, server: SocketAddr) {
        if let Some(callers) = self.callers.get() {
            callers.look_up(entry, server);
        }
    }

    #[cfg(test)]
    pub(super) fn callers(&self) -> Option<&ProcessLookup> {
        self.callers.get()
    }

    /// Before the last line: the lines whose caller is still being looked for are written without it.
    pub fn release_held_lines(&self) {
        if let Some(callers) = self.callers.get() {
            callers.end();
        }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// What to read before each scrape. The first one stays.
    pub fn before_scrape(&self, sampler: Sampler) {
        let _first_stays = self.sampler.set(sampler);
    }

    /// The text of `/metrics`. Takes a while with many connections: never call it from a runtime
    /// that carries traffic.
    pub fn metrics_text(&self) -> String {
        self.update_metrics();
        let mut text = self.metrics.render();
        own_process::append_family(&mut text);
        text
    }

    /// Brings sampled and live numbers up to date and keeps memory flat; call it every few seconds.
    pub fn update_metrics(&self) {
        if let Some(sampler) = self.sampler.get() {
            sampler(self);
        }
        for entry in self.table.all_entries() {
            entry.count_bytes(&self.metrics);
        }
        self.metrics.set_dropped(LogStream::Access, self.access.dropped_lines());
        self.metrics.set_dropped(LogStream::Child, self.child_lines.load(Ordering::Relaxed));
        self.metrics.run_upkeep();
    }

    /// Client connections open now.
    pub fn active_connections(&self) -> usize {
        self.table.len()
    }

    /// The rows of `/api/v1/connections`, oldest first.
    pub fn connection_rows(&self) -> Vec<ConnectionAnswer> {
        let mut rows: Vec<_> =
            self.table.all_entries().iter().map(|entry| entry.api_row()).collect();
        rows.sort_by(|a, b| b.age_ms.cmp(&a.age_ms).then_with(|| a.id.cmp(&b.id)));
        rows
    }

    /// Who has connections to `target` open now, and how many; `None` stands for all whose program is
    /// not known. Those with most come first.
    pub fn clients_of(&self, target: &Target) -> Vec<(Option<Arc<Process>>, usize)> {
        let mut clients: Vec<(Option<Arc<Process>>, usize)> = Vec::new();
        self.live_connections().for_each(|live| {
            if live.target().as_ref() != Some(target) {
                return;
            }
            let process = live.process();
            match clients.iter_mut().find(|(known, _)| *known == process) {
                Some((_, count)) => *count += 1,
                None => clients.push((process, 1)),
            }
        });
        let pid = |process: &Option<Arc<Process>>| process.as_ref().map(|process| process.pid);
        clients.sort_by_key(|(process, count)| (std::cmp::Reverse(*count), pid(process)));
        clients
    }

    /// The client connections open now, for those who may end them.
    pub fn live_connections(&self) -> LiveConnections {
        self.table.connections()
    }

    /// The counters of `/api/v1/status` and of the last line: what happened since the start.
    pub fn counters(&self) -> Counters {
        self.totals.counters(self.active_connections(), self.access.dropped_lines())
    }

    /// The log behind it.
    pub fn access_log(&self) -> &AccessLog {
        &self.access
    }

    /// A failed accept.
    pub fn count_accept_error(&self, errno: AcceptErrno) {
        self.metrics.count_accept_error(errno);
    }

    /// A name asked: by which route, with which result, and how long it took.
    pub fn record_dns(&self, route: DnsRoute, result: DnsResult, took: Duration) {
        self.metrics.record_dns(route, result, took);
    }

    /// What policy said of a DNS question; that of a target its record counts.
    pub fn count_decision(&self, mode: PolicyMode, verdict: Verdict) {
        self.metrics.count_decision(mode, verdict);
    }

    /// The settings were read again.
    pub fn count_reload(&self, result: ReloadResult) {
        self.metrics.count_reload(result);
    }

    /// Whether the upstream was reachable when last tried.
    pub fn set_upstream_up(&self, up: bool) {
        self.metrics.set_upstream_up(up);
    }

    /// The upstream pool: connections ready, and being made ready.
    pub fn set_pool(&self, idle: usize, filling: usize) {
        self.metrics.set_pool(idle, filling);
    }

    /// The tailnet's present state.
    pub fn set_tailnet_phase(&self, phase: TailnetPhase) {
        self.metrics.set_tailnet_phase(phase);
    }

    /// A managed tailscaled ended and is started again.
    pub fn count_restart(&self, cause: RestartCause) {
        self.metrics.count_restart(cause);
    }

    /// Counts lines of a child's log that were not passed on.
    pub fn child_lines(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.child_lines)
    }

    /// Pipes that splice now.
    pub fn set_pipes(&self, in_use: usize) {
        self.metrics.set_pipes(in_use);
    }

    /// Tasks alive in the runtime that carries connections.
    pub fn set_tasks(&self, alive: usize) {
        self.metrics.set_tasks(alive);
    }

    /// Fallbacks from splice to copy for `cause` since the start; the number never falls.
    pub fn set_splice_fallbacks(&self, cause: SpliceFallback, total: u64) {
        self.metrics.set_fallbacks(cause, total);
    }
}
