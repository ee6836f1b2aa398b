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

use super::outcomes::outcome_index;
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
const HELP: [(&str, Kind, &str); 20] = [
    ("tailrace_connections_total", Kind::Counter, "Targets asked for, and connections that asked for none, by how they ended."),
    ("tailrace_connections_active", Kind::Gauge, "Client connections open now."),
    ("tailrace_relayed_bytes_total", Kind::Counter, "Bytes handed to the receiving side; up is towards the target."),
    ("tailrace_lost_bytes_total", Kind::Counter, "Bytes read from one side that the other never took."),
    (CONNECT_DURATION, Kind::Histogram, "From accept (or the request) until bytes can be relayed."),
    (CONNECTION_DURATION, Kind::Histogram, "From accept (or the request) until the target's story ended."),
    ("tailrace_policy_decisions_total", Kind::Counter, "Policy decisions; would_deny is what enforcement would have refused."),
    ("tailrace_dns_queries_total", Kind::Counter, "Names asked, by the way they were asked and the answer."),
    (DNS_DURATION, Kind::Histogram, "Time until a name was answered."),
    ("tailrace_upstream_up", Kind::Gauge, "1 when the upstream was reachable when last tried."),
    ("tailrace_upstream_pool_connections", Kind::Gauge, "Upstream connections held open, greeted or being greeted."),
    ("tailrace_tailnet_state", Kind::Gauge, "1 for the present state of the tailnet, 0 for the others."),
    ("tailrace_tailscaled_restarts_total", Kind::Counter, "Times a managed tailscaled ended and was started again."),
    ("tailrace_pipes_in_use", Kind::Gauge, "Pipes that splice now."),
    ("tailrace_splice_fallback_total", Kind::Counter, "Times a direction went on copying instead of splicing."),
    ("tailrace_accept_errors_total", Kind::Counter, "Failed accepts."),
    ("tailrace_config_reloads_total", Kind::Counter, "Reloads of the settings."),
    ("tailrace_log_dropped_total", Kind::Counter, "Log lines dropped because their reader was too slow or the disk full."),
    ("tailrace_tasks", Kind::Gauge, "Tasks alive in the runtime that carries connections."),
    ("tailrace_build_info", Kind::Gauge, "Always 1; version, commit and target of this binary."),
];

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The handle of each series.
pub(super) struct Metrics {
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

impl Metrics {
    pub(super) fn new() -> Self {
        let registrar = Registrar(recorder());
        registrar.describe();
        registrar.fixed();
        Self {
            handle: registrar.0.handle(),
            per_inbound: PerLabel::from_fn(|inbound| registrar.per_inbound(inbound)),
            lost: registrar.counter("tailrace_lost_bytes_total", &[]),
            decisions: PerLabel::from_fn(|mode| registrar.decisions(mode)),
            dns: PerLabel::from_fn(|route| registrar.per_dns_route(route)),
            upstream_up: registrar.gauge("tailrace_upstream_up", &[]),
            pool: registrar.gauges("tailrace_upstream_pool_connections", "state"),
            tailnet: registrar.gauges("tailrace_tailnet_state", "state"),
            restarts: registrar.counters("tailrace_tailscaled_restarts_total", "cause"),
            pipes: registrar.gauge("tailrace_pipes_in_use", &[]),
            fallback: registrar.counters("tailrace_splice_fallback_total", "cause"),
            accept_errors: registrar.counters("tailrace_accept_errors_total", "errno"),
            reloads: registrar.counters("tailrace_config_reloads_total", "result"),
            dropped: registrar.counters("tailrace_log_dropped_total", "stream"),
            tasks: registrar.gauge("tailrace_tasks", &[]),
        }
    }

    /// The text format (Prometheus exposition format 0.0.4).
    pub(super) fn render(&self) -> String {
        sorted(&self.handle.render())
    }

    /// Moves recorded durations into their buckets, so that memory stays flat between scrapes.
    pub(super) fn tidy(&self) {
        self.handle.run_upkeep();
    }

    pub(super) fn ended(&self, inbound: Inbound, outcome: Outcome, lasted: Duration) {
        let inbound = &self.per_inbound[inbound];
        inbound.outcomes[outcome_index(outcome)].increment(1);
        inbound.duration.record(lasted.as_secs_f64());
    }

    pub(super) fn connected(&self, inbound: Inbound, took: Duration) {
        self.per_inbound[inbound].connect.record(took.as_secs_f64());
    }

    pub(super) fn opened(&self, inbound: Inbound) {
        self.per_inbound[inbound].active.increment(1.0);
    }

    pub(super) fn closed(&self, inbound: Inbound) {
        self.per_inbound[inbound].active.decrement(1.0);
    }

    pub(super) fn relayed(&self, inbound: Inbound, up: u64, down: u64) {
        let bytes = &self.per_inbound[inbound].bytes;
        bytes[Direction::Up].increment(up);
        bytes[Direction::Down].increment(down);
    }

    pub(super) fn lost(&self, bytes: u64) {
        self.lost.increment(bytes);
    }

    pub(super) fn decision(&self, mode: PolicyMode, verdict: Verdict) {
        self.decisions[mode][verdict].increment(1);
    }

    pub(super) fn dns(&self, route: DnsRoute, result: DnsResult, took: Duration) {
        let route = &self.dns[route];
        route.queries[result].increment(1);
        route.duration.record(took.as_secs_f64());
    }

    pub(super) fn upstream_up(&self, up: bool) {
        self.upstream_up.set(f64::from(u8::from(up)));
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 connections")]
    pub(super) fn pool(&self, idle: usize, filling: usize) {
        self.pool[PoolState::Idle].set(idle as f64);
        self.pool[PoolState::Filling].set(filling as f64);
    }

    pub(super) fn tailnet_state(&self, present: TailnetPhase) {
        for (phase, gauge) in self.tailnet.iter() {
            gauge.set(f64::from(u8::from(phase == present)));
        }
    }

    pub(super) fn restarted(&self, cause: RestartCause) {
        self.restarts[cause].increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 pipes")]
    pub(super) fn pipes(&self, in_use: usize) {
        self.pipes.set(in_use as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 tasks")]
    pub(super) fn tasks(&self, alive: usize) {
        self.tasks.set(alive as f64);
    }

    pub(super) fn fallback(&self, cause: SpliceFallback, total: u64) {
        self.fallback[cause].absolute(total);
    }

    pub(super) fn accept_error(&self, errno: AcceptErrno) {
        self.accept_errors[errno].increment(1);
    }

    pub(super) fn reload(&self, result: ReloadResult) {
        self.reloads[result].increment(1);
    }

    pub(super) fn dropped(&self, stream: LogStream, total: u64) {
        self.dropped[stream].absolute(total);
    }
}

/// Families by name, and counters and gauges by label, so that two scrapes can be compared by eye.
/// A histogram's buckets stay in their own order.
fn sorted(text: &str) -> String {
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

fn recorder() -> PrometheusRecorder {
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
struct Registrar(PrometheusRecorder);

/// What the recorder wants to know of the caller; it ignores it.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl Registrar {
    fn describe(&self) {
        for (name, kind, help) in HELP {
            match kind {
                Kind::Counter => self.0.describe_counter(name.into(), None, help.into()),
                Kind::Gauge => self.0.describe_gauge(name.into(), None, help.into()),
                Kind::Histogram => self.0.describe_histogram(name.into(), None, help.into()),
            }
        }
    }

    /// The series that never change.
    fn fixed(&self) {
        let (version, commit, target) = super::build();
        let labels = [("version", version), ("commit", commit), ("target", target)];
        self.gauge("tailrace_build_info", &labels).set(1.0);
    }

    fn per_inbound(&self, inbound: Inbound) -> InboundMetrics {
        let of_inbound = ("inbound", inbound.label());
        let total = |outcome: &Outcome| {
            let labels = [of_inbound, ("outcome", outcome.label())];
            self.counter("tailrace_connections_total", &labels)
        };
        InboundMetrics {
            outcomes: Outcome::ALL.iter().map(total).collect(),
            active: self.gauge("tailrace_connections_active", &[of_inbound]),
            bytes: PerLabel::from_fn(|direction: Direction| {
                let labels = [of_inbound, ("direction", direction.label())];
                self.counter("tailrace_relayed_bytes_total", &labels)
            }),
            connect: self.histogram(CONNECT_DURATION, &[of_inbound]),
            duration: self.histogram(CONNECTION_DURATION, &[of_inbound]),
        }
    }

    fn decisions(&self, mode: PolicyMode) -> PerLabel<Verdict, Counter> {
        PerLabel::from_fn(|verdict: Verdict| {
            let labels = [("mode", mode.label()), ("verdict", verdict.label())];
            self.counter("tailrace_policy_decisions_total", &labels)
        })
    }

    fn per_dns_route(&self, route: DnsRoute) -> DnsMetrics {
        let of_route = ("route", route.label());
        DnsMetrics {
            queries: PerLabel::from_fn(|result: DnsResult| {
                let labels = [of_route, ("result", result.label())];
                self.counter("tailrace_dns_queries_total", &labels)
            }),
            duration: self.histogram(DNS_DURATION, &[of_route]),
        }
    }

    fn counters<L: LabelValue>(
        &self,
        name: &'static str,
        label: &'static str,
    ) -> PerLabel<L, Counter> {
        PerLabel::from_fn(|value: L| self.counter(name, &[(label, value.label())]))
    }

    fn gauges<L: LabelValue>(&self, name: &'static str, label: &'static str) -> PerLabel<L, Gauge> {
        PerLabel::from_fn(|value: L| self.gauge(name, &[(label, value.label())]))
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Gauge {
        self.0.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Histogram {
        self.0.register_histogram(&key(name, labels), &METADATA)
    }
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::from_static_parts(k, v)).collect();
    Key::from_parts(name, labels)
}
