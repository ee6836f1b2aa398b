//! System calls of the gateway per connection, by strace: each costs as much as everything else the
//! gateway does in between.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{ConnectionEnd, FakeUpstream, Gateway, Inbound, Origin, skip};

/// Connections counted.
const COUNTED: u64 = 100;
/// How a thread waits and wakes another says nothing of the work, and differs from run to run.
const WAITING: [&str; 4] = ["epoll_wait", "futex", "sched_yield", "restart_syscall"];

/// A summary of what the gateway calls, until it is finished.
struct Count {
    strace: Child,
    file: std::path::PathBuf,
}

impl Count {
    /// `None` where this process may not trace that one.
    fn attach(gateway: &Gateway) -> Option<Count> {
        let file = gateway.dir().join("strace");
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-U", "calls,name", "-o"])
            .arg(&file)
            .args(["-p", &gateway.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(strace.stderr.take()?).lines();
        let attached = lines.next().is_some_and(|line| line.is_ok_and(|l| l.contains("attached")));
        tailrace_rig::server::spawn(move || lines.for_each(drop));
        let count = Count { strace, file };
        attached.then_some(count)
    }

    /// Calls by name.
    fn finish(self) -> BTreeMap<String, u64> {
        let file = self.file.clone();
        drop(self);
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let row = |line: &str| {
            let (calls, name) = line.trim().split_once(char::is_whitespace)?;
            Some((name.trim().to_owned(), calls.parse().ok()?))
        };
        let mut rows: BTreeMap<String, u64> = text.lines().filter_map(row).collect();
        rows.remove("total");
        rows
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.strace),
            rustix::process::Signal::INT,
        );
        let _ = self.strace.wait();
    }
}

/// One byte there and back, then both ends.
fn one(gateway: &Gateway, inbound: Inbound) {
    let mut wire = gateway.open(inbound, "db.corp.example:80");
    wire.send(".");
    wire.expect(".");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
}

/// Calls per connection by name; `None` where nothing can be traced.
fn per_connection(inbound: Inbound) -> Option<BTreeMap<String, f64>> {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::start(|s| {
        // A pool, as by default. Callers are looked for beside connections, within a share of time:
        // `benches/versus/callers.rs`.
        s.upstream(fake.address()).set("record.process", false).unset("upstream.pool");
    });
    let finished = |n: u64| {
        eventually("all are written down", PATIENCE, || gateway.count("fin_fin") == n);
    };
    (0..20).for_each(|_| one(&gateway, inbound));
    finished(20);
    let count = Count::attach(&gateway)?;
    (0..COUNTED).for_each(|_| one(&gateway, inbound));
    finished(20 + COUNTED);
    let calls = count.finish();
    let counted = calls.into_iter().filter(|(name, _)| !WAITING.contains(&name.as_str()));
    Some(counted.map(|(name, calls)| (name, calls as f64 / COUNTED as f64)).collect())
}

#[test]
fn a_connection_makes_no_more_calls_than_it_did() {
    let works = Command::new("strace").args(["-f", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("strace is missing or may not trace");
    }
    // Some 38 and 36 were counted, with a pool of 8. Two accepts (the second finds nobody), four looks at
    // epoll, nine options and addresses, two of a debug build's `fcntl`, the dial for the pool, a FIN and a
    // close each way, a line for the log; seven to eight reads. How many lines are written together, and what
    // a debug build reads, depends on timing: that is the room left.
    let limits = [(Inbound::Socks5, 40.0), (Inbound::Connect, 39.0)];
    let mut over = Vec::new();
    for (inbound, most) in limits {
        let Some(calls) = per_connection(inbound) else {
            return skip("strace may not trace the gateway");
        };
        let all: f64 = calls.values().sum();
        println!("{inbound:?}: {all:.1} calls: {calls:.2?}");
        if all > most {
            over.push(format!("{inbound:?}: {all:.1}, at most {most}: {calls:.2?}"));
        }
    }
    assert!(over.is_empty(), "system calls per connection: {}", over.join("; "));
}
