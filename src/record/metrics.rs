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

use super::labels::{
    DIRECTION, DNS_RESULT, DNS_ROUTE, ERRNO, FALLBACK, INBOUND, MODE, POOL_STATE, RELOAD, RESTART,
    STREAM, TAILNET, VERDICT, index, outcome_index,
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

/// The handles. Lists are in the order of the label lists.
pub(super) struct Metrics {
    handle: PrometheusHandle,
    per_inbound: Vec<PerInbound>,
    lost: Counter,
    decisions: Vec<Vec<Counter>>,
    dns: Vec<Vec<Counter>>,
    dns_duration: Vec<Histogram>,
    upstream_up: Gauge,
    pool: Vec<Gauge>,
    tailnet: Vec<Gauge>,
    restarts: Vec<Counter>,
    pipes: Gauge,
    fallback: Vec<Counter>,
    accept_errors: Vec<Counter>,
    reloads: Vec<Counter>,
    dropped: Vec<Counter>,
    tasks: Gauge,
}

/// What is counted for one kind of inbound.
pub(super) struct PerInbound {
    outcomes: Vec<Counter>,
    active: Gauge,
    bytes: Vec<Counter>,
    connect: Histogram,
    duration: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let registrar = Registrar(recorder());
        registrar.describe();
        registrar.fixed();
        Self {
            handle: registrar.0.handle(),
            per_inbound: INBOUND.iter().map(|inbound| registrar.per_inbound(inbound)).collect(),
            lost: registrar.counter("tailrace_lost_bytes_total", &[]),
            decisions: registrar.grid(
                "tailrace_policy_decisions_total",
                ("mode", &MODE),
                ("verdict", &VERDICT),
            ),
            dns: registrar.grid(
                "tailrace_dns_queries_total",
                ("route", &DNS_ROUTE),
                ("result", &DNS_RESULT),
            ),
            dns_duration: DNS_ROUTE
                .iter()
                .map(|route| registrar.histogram(DNS_DURATION, &[("route", route)]))
                .collect(),
            upstream_up: registrar.gauge("tailrace_upstream_up", &[]),
            pool: registrar.gauges("tailrace_upstream_pool_connections", "state", &POOL_STATE),
            tailnet: registrar.gauges("tailrace_tailnet_state", "state", &TAILNET),
            restarts: registrar.counters("tailrace_tailscaled_restarts_total", "cause", &RESTART),
            pipes: registrar.gauge("tailrace_pipes_in_use", &[]),
            fallback: registrar.counters("tailrace_splice_fallback_total", "cause", &FALLBACK),
            accept_errors: registrar.counters("tailrace_accept_errors_total", "errno", &ERRNO),
            reloads: registrar.counters("tailrace_config_reloads_total", "result", &RELOAD),
            dropped: registrar.counters("tailrace_log_dropped_total", "stream", &STREAM),
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

    pub(super) fn ended(&self, inbound: u8, outcome: Outcome, lasted: Duration) {
        let inbound = self.inbound(inbound);
        inbound.outcomes[outcome_index(outcome)].increment(1);
        inbound.duration.record(lasted.as_secs_f64());
    }

    pub(super) fn connected(&self, inbound: u8, took: Duration) {
        self.inbound(inbound).connect.record(took.as_secs_f64());
    }

    pub(super) fn opened(&self, inbound: u8) {
        self.inbound(inbound).active.increment(1.0);
    }

    pub(super) fn closed(&self, inbound: u8) {
        self.inbound(inbound).active.decrement(1.0);
    }

    pub(super) fn relayed(&self, inbound: u8, up: u64, down: u64) {
        let bytes = &self.inbound(inbound).bytes;
        bytes[0].increment(up);
        bytes[1].increment(down);
    }

    pub(super) fn lost(&self, bytes: u64) {
        self.lost.increment(bytes);
    }

    pub(super) fn decision(&self, mode: &str, verdict: &str) {
        self.decisions[index(&MODE, mode)][index(&VERDICT, verdict)].increment(1);
    }

    pub(super) fn dns(&self, route: &str, result: &str, took: Duration) {
        let route = index(&DNS_ROUTE, route);
        self.dns[route][index(&DNS_RESULT, result)].increment(1);
        self.dns_duration[route].record(took.as_secs_f64());
    }

    pub(super) fn upstream_up(&self, up: bool) {
        self.upstream_up.set(f64::from(u8::from(up)));
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 connections")]
    pub(super) fn pool(&self, idle: usize, filling: usize) {
        self.pool[0].set(idle as f64);
        self.pool[1].set(filling as f64);
    }

    pub(super) fn tailnet_state(&self, state: &str) {
        for (gauge, label) in self.tailnet.iter().zip(TAILNET) {
            gauge.set(f64::from(u8::from(label == state)));
        }
    }

    pub(super) fn restarted(&self, cause: &str) {
        self.restarts[index(&RESTART, cause)].increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 pipes")]
    pub(super) fn pipes(&self, in_use: usize) {
        self.pipes.set(in_use as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "never near 2^52 tasks")]
    pub(super) fn tasks(&self, alive: usize) {
        self.tasks.set(alive as f64);
    }

    pub(super) fn fallback(&self, cause: &str, total: u64) {
        self.fallback[index(&FALLBACK, cause)].absolute(total);
    }

    pub(super) fn accept_error(&self, errno: &str) {
        self.accept_errors[index(&ERRNO, errno)].increment(1);
    }

    pub(super) fn reload(&self, result: &str) {
        self.reloads[index(&RELOAD, result)].increment(1);
    }

    pub(super) fn dropped(&self, stream: &str, total: u64) {
        self.dropped[index(&STREAM, stream)].absolute(total);
    }

    fn inbound(&self, at: u8) -> &PerInbound {
        &self.per_inbound[usize::from(at).min(INBOUND.len() - 1)]
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

    fn per_inbound(&self, inbound: &'static str) -> PerInbound {
        let of = |name| self.histogram(name, &[("inbound", inbound)]);
        let total = |outcome: &Outcome| {
            let labels = [("inbound", inbound), ("outcome", outcome.label())];
            self.counter("tailrace_connections_total", &labels)
        };
        let relayed = |direction: &&'static str| {
            let labels = [("inbound", inbound), ("direction", *direction)];
            self.counter("tailrace_relayed_bytes_total", &labels)
        };
        PerInbound {
            outcomes: Outcome::ALL.iter().map(total).collect(),
            active: self.gauge("tailrace_connections_active", &[("inbound", inbound)]),
            bytes: DIRECTION.iter().map(relayed).collect(),
            connect: of(CONNECT_DURATION),
            duration: of(CONNECTION_DURATION),
        }
    }

    fn grid(
        &self,
        name: &'static str,
        (outer, outer_values): (&'static str, &[&'static str]),
        (inner, inner_values): (&'static str, &[&'static str]),
    ) -> Vec<Vec<Counter>> {
        let row = |first: &&'static str| {
            let cell =
                |second: &&'static str| self.counter(name, &[(outer, *first), (inner, *second)]);
            inner_values.iter().map(cell).collect()
        };
        outer_values.iter().map(row).collect()
    }

    fn counters(
        &self,
        name: &'static str,
        label: &'static str,
        values: &[&'static str],
    ) -> Vec<Counter> {
        values.iter().map(|value| self.counter(name, &[(label, value)])).collect()
    }

    fn gauges(
        &self,
        name: &'static str,
        label: &'static str,
        values: &[&'static str],
    ) -> Vec<Gauge> {
        values.iter().map(|value| self.gauge(name, &[(label, value)])).collect()
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
