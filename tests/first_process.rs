//! Case T13: the gateway as the first process of its namespace, where orphans become its children.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tailrace_rig::fake_tailnet::script::Order;
use tailrace_rig::setup::json_file;
use tailrace_rig::wait::{PATIENCE, eventually, eventually_some};
use tailrace_rig::{FakeTailnet, Metrics, RawConnection, Setup, skip};

/// `unshare` and the gateway below it, which ends with it.
struct First {
    child: Child,
    admin: SocketAddr,
}

impl First {
    /// Starts `up` as process 1 of a namespace of its own, with a /proc of its own.
    fn start(setup: &Setup) -> First {
        let up = setup.up();
        let mut command = unshare();
        command.arg(up.get_program()).args(up.get_args()).env_clear();
        command.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = std::fs::File::create(setup.dir().join("stderr")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let told = json_file(&setup.run_dir().join("gateway.json"));
        assert_eq!(told["pid"], 1);
        First { child, admin: told["admin"].as_str().unwrap().parse().unwrap() }
    }

    fn get(&self, path: &str) -> tailrace_rig::HttpAnswer {
        let mut wire = RawConnection::dial(self.admin);
        let host = self.admin;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        wire.read_answer()
    }

    fn wait_ready(&self) {
        eventually("/readyz says 200", PATIENCE, || self.get("/readyz").status() == 200);
    }

    fn restarts(&self, cause: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let metrics = Metrics::parse(&text);
        metrics.value("tailrace_tailscaled_restarts_total", &[("cause", cause)]) as u64
    }

    /// The gateway's id out here: the one child of unshare.
    fn pid(&self) -> u32 {
        children(self.child.id())[0]
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    let root = rustix::process::geteuid().is_root();
    command.args(if root { &["-pf"][..] } else { &["-Urpf"] });
    command.args(["--mount-proc", "--kill-child"]);
    command
}

/// The processes whose parent this is, zombies too (proc(5) stat, field 4).
fn children(pid: u32) -> Vec<u32> {
    let is_child = |child: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(1) == Some(pid.to_string().as_str())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let all = entries.filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()));
    all.filter(is_child).collect()
}

#[test]
fn t13_orphans_are_reaped_and_tailscaled_keeps_its_own_exit_status() {
    let probe = unshare().arg("true").output();
    if !probe.is_ok_and(|o| o.status.success()) {
        return skip("needs a pid namespace (unshare -pf --mount-proc)");
    }
    let tailnet = FakeTailnet::new();
    let mut setup = Setup::new();
    setup.managed(&tailnet);
    let gateway = First::start(&setup);
    gateway.wait_ready();
    for (n, cause) in ["exit", "signal"].into_iter().enumerate() {
        tailnet.order(Order::Orphans(100));
        let alone = || children(gateway.pid()) == [tailnet.pid()];
        eventually("no orphan is left, no zombie", PATIENCE, alone);
        match cause {
            "exit" => tailnet.order(Order::Exit(1)),
            _ => tailnet.kill(Signal::KILL),
        }
        tailnet.wait_start(n + 2);
        gateway.wait_ready();
        let restarts = eventually_some("it is counted", PATIENCE, || {
            Some(gateway.restarts(cause)).filter(|n| *n > 0)
        });
        assert_eq!(restarts, 1, "{cause}");
    }
}

#[test]
fn t13_the_end_of_the_first_process_logs_the_node_out() {
    let probe = unshare().arg("true").output();
    if !probe.is_ok_and(|o| o.status.success()) {
        return skip("needs a pid namespace (unshare -pf --mount-proc)");
    }
    let tailnet = FakeTailnet::new();
    let mut setup = Setup::new();
    setup.managed(&tailnet);
    let mut gateway = First::start(&setup);
    gateway.wait_ready();
    let pid = rustix::process::Pid::from_raw(gateway.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = eventually_some("the end", PATIENCE + Duration::from_secs(5), || {
        gateway.child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(0));
    eventually("the node is logged out", PATIENCE, || tailnet.logouts() == 1);
}
