//! Chapter S with a tailscaled to end: the drain first, then the log-out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tailrace_rig::fake_tailnet::script::{Login, Start};
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, eventually_some, pause, timed};
use tailrace_rig::{
    FakeTailnet, Gateway, Inbound, Origin, RawConnection, Setup, accepts, client, sha256,
};

const DB: &str = "db:5432";
const SECOND: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(100);

fn tailnet_with(origin: std::net::SocketAddr) -> FakeTailnet {
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1", origin);
    tailnet
}

#[track_caller]
fn busy(gateway: &Gateway, inbound: Inbound) -> RawConnection {
    let mut wire = gateway.open(inbound, DB);
    wire.send("hello");
    wire.expect("hello");
    wire
}

#[test]
fn s1_an_idle_gateway_ends_when_its_node_is_logged_out() {
    for sealed in [false, true] {
        let tailnet = FakeTailnet::with(|s| s.logout_takes = SECOND);
        let mut gateway = tailnet.gateway(|s| {
            if sealed {
                s.sealed();
            }
        });
        gateway.signal(Signal::TERM);
        let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
        assert_eq!(status.code(), Some(0));
        assert!(took >= SECOND - FAST && took < 3 * SECOND, "{took:?}");
        assert_eq!(tailnet.logouts(), 1);
        assert_eq!(tailnet.signals(), ["terminated"], "SIGTERM, and nothing before it");
        tailnet.assert_secret(&mut gateway);
    }
}

#[test]
fn s1_a_tailscaled_that_does_not_end_is_killed_after_15_s() {
    let tailnet = FakeTailnet::with(|s| s.logout_takes = 60 * SECOND);
    let mut gateway = tailnet.gateway(|s| {
        s.set("tailnet.state", "ephemeral"); // it logs out by itself
    });
    gateway.signal(Signal::TERM);
    let (status, took) = timed(|| gateway.wait_exit(30 * SECOND));
    assert_eq!(status.code(), Some(0));
    assert!(took >= 15 * SECOND - FAST && took < 18 * SECOND, "{took:?}");
    tailnet.wait_end(1, PATIENCE);
    assert_eq!(tailnet.logouts(), 0);
}

#[test]
fn s1_a_log_out_that_nobody_answers_is_waited_for_5_s() {
    let tailnet = FakeTailnet::with(|s| s.logout_takes = 60 * SECOND);
    let mut gateway = tailnet.gateway(|_| ());
    gateway.signal(Signal::TERM);
    let (status, took) = timed(|| gateway.wait_exit(30 * SECOND));
    assert_eq!(status.code(), Some(0));
    assert!(took >= 5 * SECOND - FAST && took < 10 * SECOND, "{took:?}");
    assert_eq!((tailnet.logouts(), tailnet.signals().len()), (0, 1));
    assert!(gateway.log().contains("could not be logged out"), "{}", gateway.log());
}

#[test]
fn s2_streams_finish_exact_before_tailscaled_is_told() {
    let origin = Origin::echo();
    let tailnet = tailnet_with(origin.address());
    let mut gateway = tailnet.gateway(|s| {
        s.set("limits.drain_timeout", "20s");
    });
    let mut wires: Vec<RawConnection> =
        Inbound::NAMED_TUNNELS.iter().map(|inbound| busy(&gateway, *inbound)).collect();
    gateway.signal(Signal::TERM);
    let start = Instant::now();
    eventually("the port is free", PATIENCE, || !accepts(gateway.proxy()));
    assert_within("closing the listener", start.elapsed(), FAST);
    assert_eq!(gateway.not_ready().as_deref(), Some("draining"));
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for wire in &mut wires {
        assert_eq!((tailnet.running(), tailnet.signals().len()), (1, 0), "still wanted");
        let mut twin = wire.twin();
        let data = sent.clone();
        let writer = std::thread::spawn(move || twin.send(&data));
        let got = wire.read_n(sent.len());
        writer.join().unwrap();
        assert_eq!(sha256(&got), sha256(&sent));
    }
    drop(wires);
    let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0));
    assert_within("the end after the last stream", took, 5 * FAST);
    assert_eq!((tailnet.signals(), tailnet.logouts()), (vec!["terminated".to_owned()], 1));
}

#[test]
fn s4_a_second_signal_kills_tailscaled_without_logging_out() {
    let origin = Origin::echo();
    let tailnet = tailnet_with(origin.address());
    tailnet.change(|s| s.logout_takes = 60 * SECOND);
    for busy_at_the_end in [true, false] {
        let before = tailnet.starts().len();
        let mut gateway = tailnet.gateway(|_| ());
        let wire = busy_at_the_end.then(|| busy(&gateway, Inbound::Socks5));
        gateway.signal(Signal::TERM);
        eventually("the port is free", PATIENCE, || !accepts(gateway.proxy()));
        gateway.signal(Signal::TERM);
        let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
        assert_eq!(status.code(), Some(143));
        assert_within("the end", took, 2 * FAST);
        tailnet.wait_end(before + 1, PATIENCE);
        drop(wire);
    }
    assert_eq!(tailnet.logouts(), 0);
}

#[test]
fn s5_a_signal_during_the_start_or_the_login_ends_all() {
    let cases: [fn(&FakeTailnet); 4] = [
        |_| (),
        |tailnet| tailnet.change(|s| s.start = Start::Never),
        |tailnet| tailnet.login(Login::Never),
        |tailnet| tailnet.login(Login::Refused("authkey expired".to_owned())),
    ];
    for (n, prepare) in cases.into_iter().enumerate() {
        for delay in [0, 30, 100, 300] {
            let tailnet = FakeTailnet::new();
            prepare(&tailnet);
            let mut gateway = Gateway::start(|s| {
                s.managed(&tailnet);
            });
            pause(Duration::from_millis(delay));
            gateway.signal(Signal::TERM);
            let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
            assert_eq!(status.code(), Some(0), "case {n} after {delay} ms");
            assert_within("the end", took, 5 * FAST);
            eventually("tailscaled is gone", PATIENCE, || tailnet.running() == 0);
            tailnet.assert_secret(&mut gateway);
        }
    }
}

#[test]
fn s5_a_signal_during_the_back_off_ends_it() {
    let tailnet = FakeTailnet::with(|s| s.start = Start::Exit("boom".to_owned(), 1));
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    tailnet.wait_start(4);
    tailnet.wait_end(4, PATIENCE);
    gateway.signal(Signal::TERM);
    let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0));
    assert_within("the end", took, 2 * FAST);
    assert_eq!(tailnet.starts().len(), 4, "none is started any more");
}

#[test]
fn s6_ctrl_c_does_not_reach_tailscaled_before_the_drain() {
    let origin = Origin::echo();
    let tailnet = tailnet_with(origin.address());
    let mut setup = Setup::new();
    setup.managed(&tailnet).set("limits.drain_timeout", "20s");
    let mut up = setup.up();
    let mut child =
        up.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let told = tailrace_rig::setup::json_file(&setup.run_dir().join("gateway.json"));
    let proxy = told["proxy"][0].as_str().unwrap().parse().unwrap();
    let mut wire = client::open(proxy, Inbound::Socks5, "100.64.0.1:5432");
    let group = tailnet.wait_start(1).process.group;
    assert_ne!(group, child.id() as i32, "tailscaled has a process group of its own");
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    eventually("the port is free", PATIENCE, || !accepts(proxy));
    wire.send("still there");
    wire.expect("still there");
    drop(wire);
    let status = eventually_some("the end", PATIENCE, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!((tailnet.signals(), tailnet.logouts()), (vec!["terminated".to_owned()], 1));
}
