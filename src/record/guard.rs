//! The record is a guard: born at accept, told each stage, consumed by `finish(outcome)`.
//!
//! Nothing else writes the access line or the counters of connections. A path that forgets to
//! finish, or panics, is written down as `internal` by `Drop`.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::access_log::Line;
use super::id::Id;
use super::live::{Entry, Live, LiveTarget, LiveVerdict};
use super::telemetry::Telemetry;
use crate::labels::{
    ErrorDetail, HostFrom, Inbound, PolicyMode, ResolvedBy, Route, Stage, UpstreamKind, Verdict,
};
use crate::outcome::Outcome;
use crate::target::Target;

/// A client connection. Dropping it takes it off the gauge and the live table.
pub struct Connection {
    telemetry: Arc<Telemetry>,
    entry: Arc<Entry>,
}

impl Connection {
    pub(super) fn open(
        telemetry: Arc<Telemetry>,
        key: u64,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Self {
        let entry = telemetry.table.enter(key, client);
        telemetry.seek_caller(&entry, server);
        telemetry.metrics.opened(entry.inbound());
        Self { telemetry, entry }
    }

    /// The id that its first access line will carry.
    pub fn id(&self) -> impl std::fmt::Display + use<> {
        self.entry.shown().id
    }

    #[cfg(test)]
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// What the client speaks, once that is known.
    pub fn set_inbound(&mut self, inbound: Inbound) {
        let before = self.entry.set_inbound(inbound);
        self.telemetry.metrics.closed(before);
        self.telemetry.metrics.opened(inbound);
    }

    /// Opens the record of a target. The first one's clock runs since accept.
    pub fn record(&mut self) -> Record {
        Record::open(Arc::clone(&self.telemetry), Arc::clone(&self.entry))
    }

    /// Ends a connection. It gets a line of its own only if it asked for no target.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if self.entry.lines.load(Ordering::Relaxed) == 0 {
            self.record().finish(outcome);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end(Outcome::Internal);
        self.telemetry.metrics.closed(self.entry.inbound());
        self.telemetry.table.leave(&self.entry);
    }
}

/// One target asked for. Exactly one access line and one count come of it.
pub struct Record {
    telemetry: Arc<Telemetry>,
    entry: Arc<Entry>,
    facts: Box<Facts>,
}

/// What the access line says beyond what the live table shows.
struct Facts {
    id: Id,
    started: Instant,
    done: bool,
    before: (u64, u64),
    asked: Option<Box<str>>,
    host_from: HostFrom,
    label: Option<Box<str>>,
    error: Option<ErrorDetail>,
    resolved_by: Option<ResolvedBy>,
    upstream: Option<UpstreamKind>,
    route: Option<Route>,
    connected: Option<Duration>,
}

impl Record {
    fn open(telemetry: Arc<Telemetry>, entry: Arc<Entry>) -> Self {
        let first = entry.lines.fetch_add(1, Ordering::Relaxed) == 0;
        let (id, started) = {
            let mut shown = entry.shown();
            let id = if first { shown.id } else { Id::new(telemetry.number()) };
            *shown = LiveTarget { id, ..LiveTarget::default() };
            (id, if first { entry.accepted } else { Instant::now() })
        };
        entry.set_stage(Stage::Head);
        let facts = Facts {
            id,
            started,
            done: false,
            before: (entry.meter.up(), entry.meter.down()),
            asked: None,
            host_from: HostFrom::None,
            label: None,
            error: None,
            resolved_by: None,
            upstream: None,
            route: None,
            connected: None,
        };
        Self { telemetry, entry, facts: Box::new(facts) }
    }

    /// The id of its access line.
    pub fn id(&self) -> &str {
        self.facts.id.as_str()
    }

    /// Who asks.
    pub fn client(&self) -> SocketAddr {
        self.entry.client
    }

    /// How far it has come.
    pub fn stage(&mut self, stage: Stage) {
        self.entry.set_stage(stage);
    }

    /// What is asked for, and who vouches for the name.
    pub fn target(&mut self, target: &Target, host_from: HostFrom) {
        self.facts.host_from = host_from;
        self.entry.shown().target = Some(target.clone());
    }

    /// The whole name behind a bare one: the one that is judged and written down.
    pub fn whole(&mut self, target: &Target) {
        self.entry.shown().target = Some(target.clone());
    }

    /// What a client sent in place of a host, when it is none; escaped, so that it is safe to print
    /// even after the log was decoded.
    pub fn asked(&mut self, escaped: &str) {
        self.facts.asked = Some(escaped.into());
        self.facts.host_from = HostFrom::Client;
    }

    /// The work's label, already judged (`inbound/label.rs`).
    pub fn label(&mut self, label: &str) {
        self.facts.label = Some(label.into());
    }

    /// One word that says more than the outcome.
    pub fn error_word(&mut self, word: ErrorDetail) {
        self.facts.error = Some(word);
    }

    /// What policy said. Counted each time; the line carries the last.
    pub fn verdict(&mut self, mode: PolicyMode, verdict: Verdict, rule: Option<String>) {
        self.telemetry.metrics.decision(mode, verdict);
        let rule = rule.map(String::into_boxed_str);
        self.entry.shown().judged = Some(LiveVerdict { mode, verdict, rule });
    }

    /// Who resolved the name, and to which address.
    pub fn resolved(&mut self, by: impl Into<ResolvedBy>, address: Option<SocketAddr>) {
        self.facts.resolved_by = Some(by.into());
        self.entry.shown().address = address;
    }

    /// The address that answered, where there were several.
    pub fn dialled(&mut self, address: SocketAddr) {
        self.entry.shown().address = Some(address);
    }

    /// The upstream kind used.
    pub fn upstream(&mut self, kind: UpstreamKind) {
        self.facts.upstream = Some(kind);
    }

    /// Where the address leads, where that is known.
    pub fn route(&mut self, route: Option<Route>) {
        self.facts.route = route;
    }

    /// Bytes can be relayed from now on.
    pub fn connected(&mut self) {
        let took = self.facts.started.elapsed();
        self.facts.connected = Some(took);
        self.telemetry.metrics.connected(self.entry.inbound(), took);
    }

    /// Bytes read from one side that the other never took.
    pub fn lost(&mut self, bytes: u64) {
        self.telemetry.metrics.lost(bytes);
        self.telemetry.totals.lost(bytes);
    }

    /// The connection as others see it: what ends it, and where its bytes are counted.
    pub fn live(&self) -> Live {
        Live { entry: Arc::clone(&self.entry) }
    }

    /// Writes the line and the counters.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.facts.done, true) {
            return;
        }
        let lasted = self.facts.started.elapsed();
        let bytes = self.bytes();
        self.entry.count_bytes(&self.telemetry.metrics);
        self.telemetry.metrics.ended(self.entry.inbound(), outcome, lasted);
        self.telemetry.totals.ended(outcome, bytes);
        if self.telemetry.access.wants(outcome.row().level) {
            self.write(outcome, lasted, bytes);
        }
    }

    fn bytes(&self) -> (u64, u64) {
        let (up, down) = self.facts.before;
        let meter = &self.entry.meter;
        (meter.up().saturating_sub(up), meter.down().saturating_sub(down))
    }

    fn write(&self, outcome: Outcome, lasted: Duration, (bytes_up, bytes_down): (u64, u64)) {
        let facts = &self.facts;
        let shown = self.entry.shown();
        let judged = shown.judged.as_ref();
        let line = Line {
            id: facts.id.as_str(),
            inbound: self.entry.inbound(),
            client: self.entry.client,
            process: None,
            target: shown.target.as_ref(),
            asked: facts.asked.as_deref(),
            host_from: facts.host_from,
            address: shown.address,
            resolved_by: facts.resolved_by,
            route: facts.route,
            mode: judged.map(|judged| judged.mode),
            verdict: judged.map(|judged| judged.verdict),
            rule: judged.and_then(|judged| judged.rule.as_deref()),
            outcome,
            error: facts.error,
            bytes_up,
            bytes_down,
            connect: facts.connected,
            lasted,
            upstream: facts.upstream,
            stage: self.entry.stage(),
            label: facts.label.as_deref(),
        };
        self.entry.caller.write(line, &self.telemetry.access);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(Outcome::Internal);
    }
}
