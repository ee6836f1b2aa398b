//! The record is a guard: born at accept, told each stage, consumed by `finish(outcome)`.
//!
//! Nothing else writes the access line or the counters of connections. A path that forgets to
//! finish, or panics, is written down as `internal` by `Drop`.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::access_log::AccessLine;
use super::connection_id::LineId;
use super::live_connections::{LiveConnection, LiveEntry, LiveTarget, LiveVerdict};
use super::telemetry::Telemetry;
use crate::labels::{
    ErrorDetail, HostFrom, Inbound, PolicyMode, ResolvedBy, Route, Stage, UpstreamKind, Verdict,
};
use crate::outcome::Outcome;
use crate::target::Target;

/// A client connection. Dropping it takes it off the gauge and the live table.
pub struct ConnectionRecord {
    telemetry: Arc<Telemetry>,
    entry: Arc<LiveEntry>,
}

impl ConnectionRecord {
    pub(super) fn begin(
        telemetry: Arc<Telemetry>,
        key: u64,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Self {
        let entry = telemetry.table.add_connection(key, client);
        telemetry.seek_caller(&entry, server);
        telemetry.metrics.count_opened(entry.inbound());
        Self { telemetry, entry }
    }

    /// The id that its first access line will carry.
    pub fn id(&self) -> impl std::fmt::Display + use<> {
        self.entry.lock_target().id
    }

    #[cfg(test)]
    pub(super) fn entry(&self) -> &Arc<LiveEntry> {
        &self.entry
    }

    /// What the client speaks, once that is known.
    pub fn set_inbound(&mut self, inbound: Inbound) {
        let before = self.entry.set_inbound(inbound);
        self.telemetry.metrics.count_closed(before);
        self.telemetry.metrics.count_opened(inbound);
    }

    /// Opens the record of a target. The first one's clock runs since accept.
    pub fn begin_target(&mut self) -> TargetRecord {
        TargetRecord::begin(Arc::clone(&self.telemetry), Arc::clone(&self.entry))
    }

    /// Ends a connection. It gets a line of its own only if it asked for no target.
    pub fn finish(mut self, outcome: Outcome) {
        self.finish_without_target(outcome);
    }

    fn finish_without_target(&mut self, outcome: Outcome) {
        if self.entry.lines.load(Ordering::Relaxed) == 0 {
            self.begin_target().finish(outcome);
        }
    }
}

impl Drop for ConnectionRecord {
    fn drop(&mut self) {
        self.finish_without_target(Outcome::Internal);
        self.telemetry.metrics.count_closed(self.entry.inbound());
        self.telemetry.table.remove_connection(&self.entry);
    }
}

/// One target asked for. Exactly one access line and one count come of it.
pub struct TargetRecord {
    telemetry: Arc<Telemetry>,
    entry: Arc<LiveEntry>,
    facts: Box<LineFacts>,
}

/// What the access line says beyond what the live table shows.
struct LineFacts {
    id: LineId,
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

impl TargetRecord {
    fn begin(telemetry: Arc<Telemetry>, entry: Arc<LiveEntry>) -> Self {
        let first = entry.lines.fetch_add(1, Ordering::Relaxed) == 0;
        let (id, started) = {
            let mut shown = entry.lock_target();
            let id = if first { shown.id } else { LineId::new(telemetry.next_number()) };
            *shown = LiveTarget { id, ..LiveTarget::default() };
            (id, if first { entry.accepted } else { Instant::now() })
        };
        entry.set_stage(Stage::Head);
        let facts = LineFacts {
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

    /// Address and port the client connects from.
    pub fn client(&self) -> SocketAddr {
        self.entry.client
    }

    /// How far it has come.
    pub fn set_stage(&mut self, stage: Stage) {
        self.entry.set_stage(stage);
    }

    /// What is asked for, and who vouches for the name.
    pub fn set_target(&mut self, target: &Target, host_from: HostFrom) {
        self.facts.host_from = host_from;
        self.entry.lock_target().target = Some(target.clone());
    }

    /// The whole name behind a bare one: the one that is judged and written down.
    pub fn set_qualified_target(&mut self, target: &Target) {
        self.entry.lock_target().target = Some(target.clone());
    }

    /// What a client sent in place of a host, when it is none; escaped, so that it is safe to print
    /// even after the log was decoded.
    pub fn set_asked_text(&mut self, escaped: &str) {
        self.facts.asked = Some(escaped.into());
        self.facts.host_from = HostFrom::Client;
    }

    /// The work's label, already judged (`inbound/label.rs`).
    pub fn set_label(&mut self, label: &str) {
        self.facts.label = Some(label.into());
    }

    /// One word that says more than the outcome.
    pub fn set_error_detail(&mut self, word: ErrorDetail) {
        self.facts.error = Some(word);
    }

    /// What policy said. Counted each time; the line carries the last.
    pub fn set_verdict(&mut self, mode: PolicyMode, verdict: Verdict, rule: Option<String>) {
        self.telemetry.metrics.count_decision(mode, verdict);
        let rule = rule.map(String::into_boxed_str);
        self.entry.lock_target().judged = Some(LiveVerdict { mode, verdict, rule });
    }

    /// Who resolved the name, and to which address.
    pub fn set_resolved(&mut self, by: impl Into<ResolvedBy>, address: Option<SocketAddr>) {
        self.facts.resolved_by = Some(by.into());
        self.entry.lock_target().address = address;
    }

    /// How the target's address was found, once that is known.
    pub fn resolved_by(&self) -> Option<ResolvedBy> {
        self.facts.resolved_by
    }

    /// The address that answered, where there were several.
    pub fn set_dialled_address(&mut self, address: SocketAddr) {
        self.entry.lock_target().address = Some(address);
    }

    /// The upstream kind used.
    pub fn set_upstream(&mut self, kind: UpstreamKind) {
        self.facts.upstream = Some(kind);
    }

    /// Where the address leads, where that is known.
    pub fn set_route(&mut self, route: Option<Route>) {
        self.facts.route = route;
    }

    /// Bytes can be relayed from now on.
    pub fn mark_connected(&mut self) {
        let took = self.facts.started.elapsed();
        self.facts.connected = Some(took);
        self.telemetry.metrics.record_connected(self.entry.inbound(), took);
    }

    /// Bytes read from one side that the other never took.
    pub fn add_lost_bytes(&mut self, bytes: u64) {
        self.telemetry.metrics.add_lost(bytes);
        self.telemetry.totals.add_lost(bytes);
    }

    /// The connection as others see it: what ends it, and where its bytes are counted.
    pub fn live_connection(&self) -> LiveConnection {
        LiveConnection { entry: Arc::clone(&self.entry) }
    }

    /// Writes the line and the counters.
    pub fn finish(mut self, outcome: Outcome) {
        self.finish_once(outcome);
    }

    fn finish_once(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.facts.done, true) {
            return;
        }
        let lasted = self.facts.started.elapsed();
        let bytes = self.bytes_of_target();
        self.entry.count_bytes(&self.telemetry.metrics);
        self.telemetry.metrics.record_ended(self.entry.inbound(), outcome, lasted);
        self.telemetry.totals.add_ended(outcome, bytes);
        let mut shown = self.entry.lock_target();
        if self.telemetry.access.wants_level(outcome.row().level) {
            self.write_line(&shown, outcome, lasted, bytes);
        }
        shown.is_finished = true;
    }

    fn bytes_of_target(&self) -> (u64, u64) {
        let (up, down) = self.facts.before;
        let meter = &self.entry.meter;
        (meter.up().saturating_sub(up), meter.down().saturating_sub(down))
    }

    fn write_line(
        &self,
        shown: &LiveTarget,
        outcome: Outcome,
        lasted: Duration,
        (bytes_up, bytes_down): (u64, u64),
    ) {
        let facts = &self.facts;
        let judged = shown.judged.as_ref();
        let line = AccessLine {
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
        self.entry.caller.write_line(line, &self.telemetry.access);
    }
}

impl Drop for TargetRecord {
    fn drop(&mut self) {
        self.finish_once(Outcome::Internal);
    }
}
