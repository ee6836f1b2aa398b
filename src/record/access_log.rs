//! The access line, as JSON and as text, and the sums of all of them.
//!
//! Host and port only: no path, no query, no credential ever gets here.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::escape;
use super::json_object::JsonObject;
use super::outcome_counters::outcome_index;
use super::process_lookup::Process;
use crate::api::Counters;
use crate::labels::{
    ErrorDetail, HostFrom, Inbound, PolicyMode, ResolvedBy, Route, Stage, UpstreamKind, Verdict,
};
use crate::outcome::{Level, Outcome};
use crate::target::{Host, Target};

/// Most bytes of one field, escaped (A6).
pub(super) const FIELD: usize = 1024;

/// What one access line says (docs/requirements.md, The access line).
pub(super) struct AccessLine<'a> {
    pub(super) id: &'a str,
    pub(super) inbound: Inbound,
    pub(super) client: SocketAddr,
    pub(super) process: Option<&'a Process>,
    pub(super) target: Option<&'a Target>,
    pub(super) asked: Option<&'a str>,
    pub(super) host_from: HostFrom,
    pub(super) address: Option<SocketAddr>,
    pub(super) resolved_by: Option<ResolvedBy>,
    pub(super) route: Option<Route>,
    pub(super) mode: Option<PolicyMode>,
    pub(super) verdict: Option<Verdict>,
    pub(super) rule: Option<&'a str>,
    pub(super) outcome: Outcome,
    pub(super) error: Option<ErrorDetail>,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) connect: Option<Duration>,
    pub(super) lasted: Duration,
    pub(super) upstream: Option<UpstreamKind>,
    pub(super) stage: Stage,
    pub(super) label: Option<&'a str>,
}

impl AccessLine<'_> {
    fn host_text(&self) -> Option<Cow<'_, str>> {
        let host = match self.target.map(|target| &target.host) {
            Some(Host::Name(name)) => Some(name.as_str()),
            Some(Host::Address(address)) => return Some(address.to_string().into()),
            None => self.asked,
        };
        host.map(Cow::Borrowed)
    }

    /// One JSON object and LF; returns where in `out` the value of `process` is.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, now: jiff::Timestamp) -> Range<usize> {
        let mut object = JsonObject::open(out);
        object.add_time("ts", now);
        object.add_text("id", Some(self.id));
        object.add_label("inbound", Some(self.inbound));
        object.add_address("client", self.client);
        let process = object.add_with("process", |out| {
            let from = out.len();
            process_json(out, self.process);
            from..out.len()
        });
        object.add_text("host", self.host_text().as_deref());
        object.add_label("host_from", Some(self.host_from));
        object.add_number("port", self.target.map(|target| target.port.get().into()));
        object.add_ip("address", self.address.map(|address| address.ip()));
        object.add_word("resolved_by", self.resolved_by.map(ResolvedBy::label));
        object.add_label("route", self.route);
        object.add_object("policy", |policy| {
            policy.add_label("mode", self.mode);
            policy.add_label("verdict", self.verdict);
            policy.add_text("rule", self.rule);
        });
        object.add_word("outcome", Some(self.outcome.label()));
        object.add_label("error", self.error);
        object.add_number("bytes_up", Some(self.bytes_up));
        object.add_number("bytes_down", Some(self.bytes_down));
        object.add_millis("connect_ms", self.connect);
        object.add_millis("duration_ms", Some(self.lasted));
        object.add_label("upstream", self.upstream);
        object.add_label("stage", Some(self.stage));
        object.add_text("label", self.label);
        object.close();
        out.push(b'\n');
        process
    }

    /// One line for people; returns where in `out` the process is.
    pub(super) fn write_text(&self, out: &mut Vec<u8>, now: jiff::Timestamp) -> Range<usize> {
        let level = match self.outcome.row().level {
            Level::Info => "INFO ",
            Level::Warn => "WARN ",
            Level::Error => "ERROR",
        };
        // Writing to a vector cannot fail.
        let _ = write!(out, "{now:.3} {level} {} ", self.inbound);
        escape::write_word(out, self.host_text().as_deref().unwrap_or("-"));
        if let Some(target) = self.target {
            let _ = write!(out, ":{}", target.port);
        }
        let _ = write!(out, " {}", self.outcome.label());
        let _ = write!(
            out,
            " up={} down={} ms={}",
            self.bytes_up,
            self.bytes_down,
            self.lasted.as_millis()
        );
        let client = self.client.to_string();
        for (key, value) in [
            ("verdict", self.verdict.map(Verdict::label)),
            ("rule", self.rule),
            ("error", self.error.map(ErrorDetail::label)),
            ("stage", Some(self.stage.label())),
            ("label", self.label),
            ("client", Some(&client)),
            ("id", Some(self.id)),
        ] {
            if let Some(value) = value {
                let _ = write!(out, " {key}=");
                escape::write_word(out, value);
            }
        }
        let from = out.len();
        process_text(out, self.process);
        let process = from..out.len();
        out.push(b'\n');
        process
    }
}

/// The value of `process`: `null` where it is not known.
pub(super) fn process_json(out: &mut Vec<u8>, process: Option<&Process>) {
    let Some(process) = process else { return out.extend(b"null") };
    let mut object = JsonObject::open(out);
    object.add_number("pid", Some(process.pid.into()));
    object.add_text("name", Some(&process.name));
    object.add_text("started", Some(&process.started));
    object.close();
}

/// The same for people: nothing where it is not known.
pub(super) fn process_text(out: &mut Vec<u8>, process: Option<&Process>) {
    if let Some(process) = process {
        out.extend(b" process=");
        escape::write_word(out, &process.name);
        // Writing to a vector cannot fail.
        let _ = write!(out, " pid={}", process.pid);
    }
}

/// Sums since the start.
#[derive(Default)]
pub(super) struct RunningTotals {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    up: AtomicU64,
    down: AtomicU64,
    lost: AtomicU64,
}

impl RunningTotals {
    pub(super) fn add_ended(&self, outcome: Outcome, (up, down): (u64, u64)) {
        self.outcomes[outcome_index(outcome)].fetch_add(1, Ordering::Relaxed);
        self.up.fetch_add(up, Ordering::Relaxed);
        self.down.fetch_add(down, Ordering::Relaxed);
    }

    pub(super) fn add_lost(&self, bytes: u64) {
        self.lost.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn counters(&self, active: usize, log_dropped: u64) -> Counters {
        let mut outcomes = BTreeMap::new();
        for (outcome, count) in Outcome::ALL.iter().zip(&self.outcomes) {
            let count = count.load(Ordering::Relaxed);
            if count != 0 {
                *outcomes.entry(outcome.label().into()).or_default() += count;
            }
        }
        Counters {
            targets: outcomes.values().sum(),
            active: active as u64,
            bytes_up: self.up.load(Ordering::Relaxed),
            bytes_down: self.down.load(Ordering::Relaxed),
            lost_bytes: self.lost.load(Ordering::Relaxed),
            log_dropped,
            outcomes,
        }
    }
}
