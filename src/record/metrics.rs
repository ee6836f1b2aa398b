//! Every number at `/metrics`, each handle resolved once, each series there from the start at 0.
//!
//! Call sites say what happened; only this file knows names and labels. The recorder is a value,
//! not the process's global one, so that two gateways in one process do not share numbers.
#![forbid(unsafe_code)]

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::outcome_counters::outcome_index;
use crate::labels::{
    AcceptErrno, Direction, DnsResult, DnsRoute, Inbound, LabelValue, LogStream, PerLabel,
    PolicyMode, PoolState, ReloadResult, RestartCause, SpliceFallback, TailnetPhase, Verdict,
};
use crate::outcome::Outcome;

/// Seconds; from a loopback upstream (0.1 ms) to a dial that waited for a login (30 s).
const CONNECT_BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Seconds; from one short request to a tunnel held for a day.
const DURATION_BUCKETS: [f64; 15] = [
    0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0,
    86_400.0,
];

const CONNECT_DURATION: &str = "tailrace_connect_duration_seconds";
const CONNECTION_DURATION: &str = "tailrace_connection_duration_seconds";
const DNS_DURATION: &str = "tailrace_dns_duration_seconds";

/// Name, kind and meaning of every metric of the `tailrace_` family.
#[rustfmt::skip]
const HELP: [(&str, MetricKind, &str); 20] = [
    ("tailrace_connections_total", MetricKind::Counter, "Targets asked for, and connections that asked for none, by how they ended."),
    ("tailrace_connections_active", MetricKind::Gauge, "Client connections open now."),
    ("tailrace_relayed_bytes_total", MetricKind::Counter, "Bytes handed to the receiving side; up is towards the target."),
    ("tailrace_lost_bytes_total", MetricKind::Counter, "Bytes read from one side that the other never took."),
    (CONNECT_DURATION, MetricKind::Histogram, "From accept (or the request) until bytes can be relayed."),
    (CONNECTION_DURATION, MetricKind::Histogram, "From accept (or the request) until the target's access line."),
    ("tailrace_policy_decisions_total", MetricKind::Counter, "Policy decisions; would_deny is what enforcement would have refused."),
    ("tailrace_dns_queries_total", MetricKind::Counter, "Names asked, by the way they were asked and the answer."),
    (DNS_DURATION, MetricKind::Histogram, "Time until a name was answered."),
    ("tailrace_upstream_up", MetricKind::Gauge, "1 when the upstream was reachable when last tried."),
    ("tailrace_upstream_pool_connections", MetricKind::Gauge, "Upstream connections held open, greeted or being greeted."),
    ("tailrace_tailnet_state", MetricKind::Gauge, "1 for the present state of the tailnet, 0 for the others."),
    ("tailrace_tailscaled_restarts_total", MetricKind::Counter, "Times a managed tailscaled ended and was started again."),
    ("tailrace_pipes_in_use", MetricKind::Gauge, "Pipes that splice now."),
    ("tailrace_splice_fallback_total", MetricKind::Counter, "Times a direction went on copying instead of splicing."),
    ("tailrace_accept_errors_total", MetricKind::Counter, "Failed accepts."),
    ("tailrace_config_reloads_total", MetricKind::Counter, "Reloads of the settings."),
    ("tailrace_log_dropped_total", MetricKind::Counter, "Log lines dropped because their reader was too slow or the disk full."),
    ("tailrace_tasks", MetricKind::Gauge, "Tasks alive in the runtime that carries connections."),
    ("tailrace_build_info", MetricKind::Gauge, "Always 1; version, commit and target of this binary."),
];

#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The handle of each series.
pub(super) struct MetricHandles {
    handle: PrometheusHandle,
    per_inbound: PerLabel<Inbound, InboundMetrics>,
    lost: Counter,
    decisions: PerLabel<PolicyMode, PerLabel<Verdict, Counter>>,
    dns: PerLabel<DnsRoute, DnsMetrics>,
    upstream_up: Gauge,
    pool: PerLabel<PoolState, Gauge>,
    tailnet: PerLabel<TailnetPhase, Gauge>,
    restarts: PerLabel<RestartCause, Counter>,
    pipes: Gauge,
    fallback: PerLabel<SpliceFallback, Counter>,
    accept_errors: PerLabel<AcceptErrno, Counter>,
    reloads: PerLabel<ReloadResult, Counter>,
    dropped: PerLabel<LogStream, Counter>,
    tasks: Gauge,
}

/// What is counted for one kind of inbound.
struct InboundMetrics {
    /// In the order of [`Outcome::ALL`].
    outcomes: Vec<Counter>,
    active: Gauge,
    bytes: PerLabel<Direction, Counter>,
    connect: Histogram,
    duration: Histogram,
}

/// What is counted for one DNS route.
struct DnsMetrics {
    queries: PerLabel<DnsResult, Counter>,
    duration: Histogram,
}

impl MetricHandles {
    pub(super) fn new() -> Self {
        let registrar = MetricRegistrar(build_recorder());
        registrar.describe_all();
        registrar.register_build_info();
        Self {
            handle: registrar.0.handle(),
            per_inbound: PerLabel::from_fn(|inbound| registrar.per_inbound(inbound)),
            lost: registrar.register_counter("tailrace_lost_bytes_total", &[]),
            decisions: PerLabel::from_fn(|mode| registrar.register_decisions(mode)),
            dns: PerLabel::from_fn(|route| registrar.per_dns_route(route)),
            upstream_up: registrar.register_gauge("tailrace_upstream_up", &[]),
            pool: registrar.register_gauges("tailrace_upstream_pool_connections", "state"),
            tailnet: registrar.register_gauges("tailrace_tailnet_state", "state"),
            restarts: registrar.register_counters("tailrace_tailscaled_restarts_total", "cause"),
            pipes: registrar.register_gauge("tailrace_pipes_in_use", &[]),
            fallback: registrar.register_counters("tailrace_splice_fallback_total", "cause"),
            accept_errors: registrar.register_counters("tailrace_accept_errors_total", "errno"),
            reloads: registrar.register_counters("tailrace_config_reloads_total", "result"),
            dropped: registrar.register_counters("tailrace_log_dropped_total", "stream"),
            tasks: registrar.register_gauge("tailrace_tasks", &[]),
        }
    }

    /// The text format (Prometheus exposition format 0.0.4).
    pub(super) fn render(&self) -> String {
        sort_families(&self.handle.render())
    }

    /// Moves recorded durations into their buckets, so that memory stays flat between scrapes.
    pub(super) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub(super) fn record_ended(&self, inbound: Inbound, outcome: Outcome, lasted: Duration) {
        let inbound = &self.per_inbound[inbound];
        inbound.outcomes[outcome_index(outcome)].increment(1);
        inbound.duration.record(lasted.as_secs_f64());
    }

    pub(super) fn record_connected(&self, inbound: Inbound, took: Duration) {
        self.per_inbound[inbound].connect.record(took.as_secs_f64());
    }

    pub(super) fn count_opened(&self, inbound: Inbound) {
        self.per_inbound[inbound].active.increment(1.0);
    }

    pub(super) fn count_closed(&self, inbound: Inbound) {
        self.per_inbound[inbound].active.decrement(1.0);
    }

    pub(super) fn add_relayed(&self, inbound: Inbound, up: u64, down: u64) {
        let bytes = &self.per_inbound[inbound].bytes;
        bytes[Direction::Up].increment(up);
        bytes[Direction::Down].increment(down);
    }

    pub(super) fn add_lost(&self, bytes: u64) {
        self.lost.increment(bytes);
    }

    pub(super) fn count_decision(&self, mode: PolicyMode, verdict: Verdict) {
        self.decisions[mode][verdict].increment(1);
    }

    pub(super) fn record_dns(&self, route: DnsRoute, result: DnsResult, took: Duration) {
        let route = &self.dns[route];
        route.queries[result].increment(1);
        route.duration.record(took.as_secs_f64());
    }

    pub(super) fn set_upstream_up(&self, up: bool) {
        self.upstream_up.set(f64::from(u8::from(up)));
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 connections")]
    pub(super) fn set_pool(&self, idle: usize, filling: usize) {
        self.pool[PoolState::Idle].set(idle as f64);
        self.pool[PoolState::Filling].set(filling as f64);
    }

    pub(super) fn set_tailnet_phase(&self, present: TailnetPhase) {
        for (phase, gauge) in self.tailnet.iter() {
            gauge.set(f64::from(u8::from(phase == present)));
        }
    }

    pub(super) fn count_restart(&self, cause: RestartCause) {
        self.restarts[cause].increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 pipes")]
    pub(super) fn set_pipes(&self, in_use: usize) {
        self.pipes.set(in_use as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 tasks")]
    pub(super) fn set_tasks(&self, alive: usize) {
        self.tasks.set(alive as f64);
    }

    pub(super) fn set_fallbacks(&self, cause: SpliceFallback, total: u64) {
        self.fallback[cause].absolute(total);
    }

    pub(super) fn count_accept_error(&self, errno: AcceptErrno) {
        self.accept_errors[errno].increment(1);
    }

    pub(super) fn count_reload(&self, result: ReloadResult) {
        self.reloads[result].increment(1);
    }

    pub(super) fn set_dropped(&self, stream: LogStream, total: u64) {
        self.dropped[stream].absolute(total);
    }
}

/// Families by name, and counters and gauges by label, so that two scrapes can be compared by eye.
/// A histogram's buckets stay in their own order.
fn sort_families(text: &str) -> String {
    let mut families: Vec<Vec<&str>> =
        text.split("\n\n").map(|family| family.lines().collect()).collect();
    families.sort();
    let mut out = String::with_capacity(text.len());
    for family in &mut families {
        if !family.iter().any(|line| line.starts_with("# TYPE ") && line.ends_with(" histogram")) {
            family.sort_unstable(); // '#' comes before any name
        }
        for line in family.iter() {
            out.push_str(line);
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

fn build_recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in [
        (CONNECT_DURATION, &CONNECT_BUCKETS[..]),
        (CONNECTION_DURATION, &DURATION_BUCKETS[..]),
        (DNS_DURATION, &CONNECT_BUCKETS[..]),
    ] {
        // It fails for an empty list of buckets only.
        builder = match builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets) {
            Ok(builder) => builder,
            Err(_) => PrometheusBuilder::new(),
        };
    }
    builder.build_recorder()
}

/// Makes handles of the recorder's.
struct MetricRegistrar(PrometheusRecorder);

/// What the recorder wants to know of the caller; it ignores it.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl MetricRegistrar {
    fn describe_all(&self) {
        for (name, kind, help) in HELP {
            match kind {
                MetricKind::Counter => self.0.describe_counter(name.into(), None, help.into()),
                MetricKind::Gauge => self.0.describe_gauge(name.into(), None, help.into()),
                MetricKind::Histogram => self.0.describe_histogram(name.into(), None, help.into()),
            }
        }
    }

    /// The series that never change.
    fn register_build_info(&self) {
        let (version, commit, target) = super::build_info();
        let labels = [("version", version), ("commit", commit), ("target", target)];
        self.register_gauge("tailrace_build_info", &labels).set(1.0);
    }

    fn per_inbound(&self, inbound: Inbound) -> InboundMetrics {
        let of_inbound = ("inbound", inbound.label());
        let total = |outcome: &Outcome| {
            let labels = [of_inbound, ("outcome", outcome.label())];
            self.register_counter("tailrace_connections_total", &labels)
        };
        InboundMetrics {
            outcomes: Outcome::ALL.iter().map(total).collect(),
            active: self.register_gauge("tailrace_connections_active", &[of_inbound]),
            bytes: PerLabel::from_fn(|direction: Direction| {
                let labels = [of_inbound, ("direction", direction.label())];
                self.register_counter("tailrace_relayed_bytes_total", &labels)
            }),
            connect: self.register_histogram(CONNECT_DURATION, &[of_inbound]),
            duration: self.register_histogram(CONNECTION_DURATION, &[of_inbound]),
        }
    }

    fn register_decisions(&self, mode: PolicyMode) -> PerLabel<Verdict, Counter> {
        PerLabel::from_fn(|verdict: Verdict| {
            let labels = [("mode", mode.label()), ("verdict", verdict.label())];
            self.register_counter("tailrace_policy_decisions_total", &labels)
        })
    }

    fn per_dns_route(&self, route: DnsRoute) -> DnsMetrics {
        let of_route = ("route", route.label());
        DnsMetrics {
            queries: PerLabel::from_fn(|result: DnsResult| {
                let labels = [of_route, ("result", result.label())];
                self.register_counter("tailrace_dns_queries_total", &labels)
            }),
            duration: self.register_histogram(DNS_DURATION, &[of_route]),
        }
    }

    fn register_counters<L: LabelValue>(
        &self,
        name: &'static str,
        label: &'static str,
    ) -> PerLabel<L, Counter> {
        PerLabel::from_fn(|value: L| self.register_counter(name, &[(label, value.label())]))
    }

    fn register_gauges<L: LabelValue>(
        &self,
        name: &'static str,
        label: &'static str,
    ) -> PerLabel<L, Gauge> {
        PerLabel::from_fn(|value: L| self.register_gauge(name, &[(label, value.label())]))
    }

    fn register_counter(
        &self,
        name: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Counter {
        self.0.register_counter(&metric_key(name, labels), &METADATA)
    }

    fn register_gauge(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Gauge {
        self.0.register_gauge(&metric_key(name, labels), &METADATA)
    }

    fn register_histogram(
        &self,
        name: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Histogram {
        self.0.register_histogram(&metric_key(name, labels), &METADATA)
    }
}

fn metric_key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::from_static_parts(k, v)).collect();
    Key::from_parts(name, labels)
}
