//! Chapter S: ending. Exact answers at SIGTERM, at a second signal, and at SIGHUP.
//!
//! The child's parts of S2, S5 and S6 belong to a gateway that has one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, pause, timed};
use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, Inbound, Latch, Origin, RawConnection, UpstreamReply,
    accepts, client, sha256,
};

const NAME: &str = "db.corp.example:80";
const FAST: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

fn chained(change: impl FnOnce(&mut tailrace_rig::Setup)) -> (Origin, FakeUpstream, Gateway) {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address());
        change(s);
    });
    (origin, fake, gateway)
}

/// A tunnel that has carried something.
fn busy(gateway: &Gateway, inbound: Inbound) -> RawConnection {
    let mut wire = gateway.open(inbound, NAME);
    wire.send("hello");
    wire.expect("hello");
    wire
}

/// The access lines of tunnels; looking whether the port is free may make lines too.
fn tunnels(gateway: &Gateway) -> Vec<serde_json::Value> {
    gateway.access_lines().into_iter().filter(|line| line["bytes_up"] != 0).collect()
}

#[track_caller]
fn closes_at_once(gateway: &Gateway) {
    let start = Instant::now();
    eventually("the port is free", PATIENCE, || !accepts(gateway.proxy()));
    assert_within("closing the listener", start.elapsed(), FAST);
}

#[test]
fn s1_an_idle_gateway_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_origin, _fake, mut gateway) = chained(|s| {
            s.set("upstream.pool", 8);
        });
        gateway.signal(signal);
        let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert_within("the end", took, 2 * FAST);
        assert!(TcpListener::bind(gateway.proxy()).is_ok(), "the port is free");
        assert!(!gateway.setup().run_dir().join("gateway.json").exists());
    }
}

#[test]
fn s2_streams_finish_exact_while_new_clients_are_turned_away() {
    let (origin, _fake, mut gateway) = chained(|_| ());
    let mut wires: Vec<RawConnection> =
        Inbound::NAMED_TUNNELS.iter().map(|inbound| busy(&gateway, *inbound)).collect();
    gateway.signal(Signal::TERM);
    closes_at_once(&gateway);
    let ready = gateway.admin_get("/readyz");
    assert_eq!((ready.status(), ready.json()["error"].as_str()), (503, Some("draining")));
    assert_eq!(gateway.admin_get("/healthz").status(), 200, "draining is alive");
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(gateway.alive());
    for wire in &mut wires {
        let mut twin = wire.twin();
        let data = sent.clone();
        let writer = std::thread::spawn(move || {
            twin.send(&data);
            twin.fin();
        });
        let (got, end) = wire.rest();
        writer.join().unwrap();
        assert_eq!((sha256(&got), end), (sha256(&sent), ConnectionEnd::Fin));
    }
    let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0));
    assert_within("the end after the last stream", took, 2 * FAST);
    assert_eq!(origin.visits().len(), 3);
    let lines = tunnels(&gateway);
    assert!(lines.iter().all(|l| l["outcome"] == "fin_fin") && lines.len() == 3, "{lines:?}");
}

#[test]
fn s3_what_still_runs_at_the_deadline_is_reset() {
    let (origin, _fake, mut gateway) = chained(|s| {
        s.set("limits.drain_timeout", "1s");
    });
    let mut wires: Vec<RawConnection> = (0..3).map(|_| busy(&gateway, Inbound::Socks5)).collect();
    gateway.signal(Signal::TERM);
    let start = Instant::now();
    for wire in &mut wires {
        wire.expect_end(ConnectionEnd::Reset);
    }
    assert!(start.elapsed() >= SECOND - FAST, "streams live up to drain_timeout");
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
    assert_within("the end", start.elapsed(), SECOND + 5 * FAST);
    let lines = gateway.access_lines();
    assert!(lines.iter().all(|l| l["outcome"] == "drained") && lines.len() == 3, "{lines:?}");
    eventually("both sides saw the reset", PATIENCE, || {
        origin.visits().iter().all(|visit| visit.end == Some(ConnectionEnd::Reset))
    });
}

#[test]
fn s4_a_second_signal_ends_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (_origin, _fake, mut gateway) = chained(|s| {
            s.set("limits.drain_timeout", "30s");
        });
        let mut wire = busy(&gateway, Inbound::Connect);
        gateway.signal(Signal::TERM);
        closes_at_once(&gateway);
        gateway.signal(signal);
        let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
        assert_eq!(status.code(), Some(code));
        assert_within("the end", took, 2 * FAST);
        wire.expect_end(ConnectionEnd::Reset);
        assert_eq!(tunnels(&gateway)[0]["outcome"], "drained");
    }
}

#[test]
fn s5_a_signal_during_the_start_ends_it() {
    let fake = FakeUpstream::start();
    for delay in (0..20).map(|n| Duration::from_millis(n * 2)) {
        let mut setup = tailrace_rig::Setup::new();
        setup.upstream(fake.address());
        let mut child = setup.up().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(delay);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let start = Instant::now();
        let status = tailrace_rig::wait::eventually_some("it has ended", PATIENCE, || {
            child.try_wait().unwrap()
        });
        assert_within("the end", start.elapsed(), 5 * FAST);
        // Before the handlers are there the kernel ends it; after that it ends by itself with 0.
        use std::os::unix::process::ExitStatusExt as _;
        assert!(
            status.code() == Some(0) || status.signal() == Some(15),
            "{status:?} after {delay:?}"
        );
        assert!(!setup.run_dir().join("gateway.json").exists() || status.code() != Some(0));
    }
}

#[test]
fn s5_a_signal_during_a_reload_ends_it() {
    let (_origin, _fake, mut gateway) = chained(|_| ());
    for _ in 0..20 {
        gateway.signal(Signal::HUP);
    }
    gateway.signal(Signal::TERM);
    let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0));
    assert_within("the end", took, 2 * FAST);
}

#[test]
fn s6_an_interrupt_for_the_whole_group_drains_like_any_other() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut setup = tailrace_rig::Setup::new();
    setup.upstream(fake.address());
    let mut command = setup.up();
    let mut child =
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let told = tailrace_rig::setup::json_file(&setup.run_dir().join("gateway.json"));
    let proxy = told["proxy"][0].as_str().unwrap().parse().unwrap();
    let mut wire = client::open(proxy, Inbound::Socks5, NAME);
    rustix::process::kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    eventually("the port is free", PATIENCE, || !accepts(proxy));
    wire.send("still there");
    wire.expect("still there");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    let status =
        tailrace_rig::wait::eventually_some("it has ended", PATIENCE, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn s7_a_reload_counts_for_new_and_for_live_connections() {
    let (_origin, fake, mut gateway) = chained(|s| {
        s.enforce(&["corp.example"]);
    });
    fake.map("db.other.example", fake.address());
    let mut cut = busy(&gateway, Inbound::Socks5);
    gateway.setup().enforce(&["other.example"]);
    gateway.reload();
    let start = Instant::now();
    cut.expect_end(ConnectionEnd::Reset);
    assert_within("cutting what is refused now", start.elapsed(), SECOND);
    gateway.wait_for_reloads("ok", 1);
    gateway.assert_refused(Inbound::Socks5, NAME, "denied");
    let line = gateway.wait_for_line(|l| l["bytes_up"] == 5);
    assert_eq!(line["outcome"], "denied", "{line}");
    gateway.setup().enforce(&["corp.example"]);
    gateway.reload();
    gateway.wait_for_reloads("ok", 2);
    busy(&gateway, Inbound::Connect);
}

#[test]
fn s7_a_bad_file_keeps_the_old_settings() {
    let (_origin, _fake, mut gateway) = chained(|s| {
        s.enforce(&["corp.example"]);
    });
    let mut live = busy(&gateway, Inbound::Socks5);
    gateway.setup().raw("policy.mode = \"nonsense\"\n[");
    gateway.reload();
    gateway.wait_for_reloads("error", 1);
    live.send("still there");
    live.expect("still there");
    busy(&gateway, Inbound::Connect);
    gateway.assert_refused(Inbound::Socks5, "evil.example:80", "denied");
    eventually("the log names the file", PATIENCE, || gateway.log().contains("config.toml"));
}

#[test]
fn s7_every_reloadable_limit_changes_without_a_restart() {
    let (_origin, _fake, mut gateway) = chained(|s| {
        s.set("limits.head_timeout", "30s");
    });
    gateway.setup().set("limits.head_timeout", "1s").set("relay.splice", false);
    gateway.reload();
    gateway.wait_for_reloads("ok", 1);
    let mut wire = gateway.dial();
    let (_, took) = timed(|| wire.expect_end(ConnectionEnd::Fin));
    assert!(took < 3 * SECOND, "the new head_timeout counts: {took:?}");
    gateway.setup().set("log.access", false);
    gateway.reload();
    gateway.wait_for_reloads("ok", 2);
    let before = gateway.wait_for_access(1).len();
    busy(&gateway, Inbound::Socks5);
    eventually("it is counted", PATIENCE, || {
        gateway.count("fin_fin") + gateway.count("client_rst") == 1
    });
    assert_eq!(gateway.access_lines().len(), before);
}

/// What a client gets that is at `sent` when SIGTERM comes, and the outcome in its line.
#[track_caller]
fn at_sigterm(sent: &[u8], fake: &FakeUpstream) -> (Vec<u8>, ConnectionEnd, String) {
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.drain_timeout", "1s");
    });
    let mut wire = gateway.dial();
    wire.send(sent);
    eventually("it is accepted", PATIENCE, || {
        gateway.metrics().value("tailrace_connections_active", &[]) == 1.0
    });
    pause(FAST / 2);
    gateway.signal(Signal::TERM);
    let (got, end) = wire.rest();
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
    let lines = gateway.access_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    (got, end, lines[0]["outcome"].as_str().unwrap().to_owned())
}

#[test]
fn s8_no_client_gets_half_a_reply() {
    let silent = FakeUpstream::start();
    silent.answer(UpstreamReply::Silent);
    let (got, _, outcome) = at_sigterm(b"", &silent);
    assert_eq!((got.len(), outcome.as_str()), (0, "draining"));
    let (got, _, outcome) = at_sigterm(&[5, 1, 0], &silent);
    assert!(got == [5, 0] || got == [5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0], "{got:02x?}");
    assert_eq!(outcome, "draining");
    let asked = [&[5, 1, 0][..], &client::socks5_named(b"db.corp.example", 80)].concat();
    let (got, end, outcome) = at_sigterm(&asked, &silent);
    assert_eq!(got, [5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0], "{outcome}");
    assert_eq!((end, outcome.as_str()), (ConnectionEnd::Fin, "draining"));
    let connect = b"CONNECT db.corp.example:80 HTTP/1.1\r\n\r\n";
    let (got, end, outcome) = at_sigterm(connect, &silent);
    assert!(got.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&got));
    assert_eq!((end, outcome.as_str()), (ConnectionEnd::Fin, "draining"));
}

#[test]
fn s8_a_handshake_under_way_may_complete() {
    let gate = Latch::new();
    let wait = gate.clone();
    let origin = Origin::start(move |guest| {
        wait.wait();
        guest.send(b"late");
        guest.fin();
        guest.read_to_end();
    });
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.open(Inbound::Socks5, NAME);
    gateway.signal(Signal::TERM);
    closes_at_once(&gateway);
    gate.open();
    wire.expect("late");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn s9_the_last_line_has_the_totals() {
    let (_origin, _fake, mut gateway) = chained(|_| ());
    for _ in 0..20 {
        let mut wire = busy(&gateway, Inbound::Socks5);
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.assert_refused(Inbound::Connect, &gateway.proxy().to_string(), "loop");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
    let lines = gateway.log_lines();
    let last = lines.last().unwrap();
    assert_eq!(last["message"], "totals", "{last}");
    let totals = &last["totals"];
    for (key, value) in
        [("targets", 21), ("bytes_up", 100), ("bytes_down", 100), ("active", 0), ("log_dropped", 0)]
    {
        assert_eq!(totals[key], value, "{key}: {last}");
    }
    assert_eq!(
        (&totals["outcomes"]["fin_fin"], &totals["outcomes"]["loop"]),
        (&20.into(), &1.into())
    );
    assert_eq!(gateway.access_lines().len(), 21, "every line is out");
}
