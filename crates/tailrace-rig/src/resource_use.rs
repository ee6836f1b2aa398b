//! What the gateway under test costs, and the invariants every case must leave behind.

use std::time::Duration;

use super::fake_upstream::FakeUpstream;
use super::gateway::Gateway;
use super::wait::{PATIENCE, eventually, eventually_some, holds_within, pause};

/// What should be the same before and after.
#[derive(Debug)]
pub struct ResourceUse {
    fds: usize,
    tasks: u64,
    rss: u64,
}

/// How soon vitals are quiet and back, and how many bytes of memory may stay, for the allocator's own
/// pages, beside 5 %.
#[derive(Clone, Copy)]
pub struct ResourceBounds {
    pub quiet: Duration,
    pub back: Duration,
    pub slack: u64,
}

/// User and system time of a process so far (proc(5) stat fields 14 and 15, 100 ticks a second).
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

impl Gateway {
    /// Its vitals, once no connection is active.
    #[track_caller]
    pub fn resource_use(&self, bounds: ResourceBounds) -> ResourceUse {
        self.wait_none_active("no active connection", bounds.quiet);
        ResourceUse { fds: self.steady_fds(), tasks: self.tasks(), rss: self.rss() }
    }

    /// Descriptors, tasks and memory come back to what they were before.
    #[track_caller]
    pub fn assert_back_to(&self, before: &ResourceUse, bounds: ResourceBounds) {
        eventually("tasks and descriptors are back", bounds.back, || {
            self.tasks() <= before.tasks && self.fd_count() <= before.fds
        });
        let after = self.resource_use(bounds);
        let allowed = before.rss + before.rss / 20 + bounds.slack;
        assert!(after.rss <= allowed, "memory grew: {before:?}, then {after:?}");
    }

    #[track_caller]
    fn wait_none_active(&self, what: &str, limit: Duration) {
        eventually(what, limit, || self.metrics().value("tailrace_connections_active", &[]) == 0.0);
    }

    /// Open descriptors. A gateway with a key of its own shows them to root alone: then it is asked,
    /// and counts the one for the answer too.
    #[track_caller]
    pub fn fd_count(&self) -> usize {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        listed.map_or_else(
            |_| self.metrics().value("process_open_fds", &[]) as usize,
            Iterator::count,
        )
    }

    /// What its open descriptors are: `socket:[…]`, `pipe:[…]`, paths.
    pub fn fds(&self) -> Vec<String> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let links = entries.into_iter().flatten().flatten();
        let targets = links.filter_map(|l| std::fs::read_link(l.path()).ok());
        targets.map(|t| t.to_string_lossy().into_owned()).collect()
    }

    /// Open descriptors whose link begins so (`socket:`, `pipe:`).
    pub fn fds_of(&self, kind: &str) -> usize {
        self.fds().iter().filter(|t| t.starts_with(kind)).count()
    }

    /// User and system time so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Tasks of the runtime.
    #[track_caller]
    pub fn tasks(&self) -> u64 {
        self.metrics().value("tailrace_tasks", &[]) as u64
    }

    /// The invariants I1 to I4 and I6 of docs/requirements.md after `targets` targets (and
    /// connections that asked for none).
    #[track_caller]
    pub fn settle_and_check(&mut self, targets: u64) {
        let ended = format!("{targets} targets are counted (I3)");
        let total = |g: &Gateway| g.metrics().value("tailrace_connections_total", &[]) as u64;
        eventually(&ended, PATIENCE, || total(self) >= targets);
        self.wait_none_active("no active connection (I1)", PATIENCE);
        let base = self.baseline;
        let back = holds_within(PATIENCE, || self.fd_count() <= base);
        assert!(back, "at most {base} open descriptors (I1): {:#?}", self.fds());
        assert_eq!(total(self), targets, "targets counted (I3)");
        assert!(self.alive(), "the gateway has died (I2)");
        assert!(!self.log().contains("panicked"), "a panic in the log (I2)");
        let lines = self.wait_for_access(targets as usize);
        assert_eq!(lines.len() as u64, targets, "access lines (I4)");
        self.assert_idle();
    }

    /// The same, and that the fake upstream read `requests` requests (I5).
    #[track_caller]
    pub fn settle_with(&mut self, fake: &FakeUpstream, targets: u64, requests: usize) {
        self.settle_and_check(targets);
        assert_eq!(
            fake.requests().len(),
            requests,
            "requests at the upstream (I5): {:?}",
            fake.hosts()
        );
    }

    /// Asserts that an idle gateway uses next to no CPU (I6): the best of three short looks.
    #[track_caller]
    pub fn assert_idle(&self) {
        let look = || {
            let before = self.cpu_time();
            pause(Duration::from_millis(100));
            self.cpu_time() - before
        };
        let best = (0..3).map(|_| look()).find(|used| *used <= Duration::from_millis(10));
        assert!(best.is_some(), "busy while idle (I6)");
    }

    /// The descriptor count once it has stopped moving.
    pub fn steady_fds(&self) -> usize {
        let mut last = 0;
        eventually_some("a steady number of descriptors", PATIENCE, || {
            let now = self.fd_count();
            pause(Duration::from_millis(5));
            (std::mem::replace(&mut last, now) == now).then_some(now)
        })
    }
}
