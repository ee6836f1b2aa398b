//! Chapter T: faults of a tailscaled the gateway started itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tailrace_rig::echo_tailnet::{DB, FAST, busy, down_at_once, echoing, sentence};
use tailrace_rig::fake_tailnet::script::{Answer, Order, Start};
use tailrace_rig::managed_gateway::text;
use tailrace_rig::wait::{
    PATIENCE, assert_within, bound, eventually, eventually_some, pause, timed,
};
use tailrace_rig::{
    ConnectionEnd, FakeTailnet, Gateway, Inbound, Origin, RawConnection, Setup, client,
    idle_tunnels, skip,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn t1_a_killed_tailscaled_resets_its_streams_and_is_started_again() {
    let (_origin, tailnet) = echoing();
    let mut gateway = tailnet.gateway(|_| ());
    let mut wires: Vec<RawConnection> = (0..50).map(|_| busy(&gateway)).collect();
    tailnet.change(|s| s.start = Start::Late(2 * SECOND));
    let (_, took) = timed(|| {
        tailnet.kill(Signal::KILL);
        wires.iter_mut().for_each(|wire| wire.expect_end(ConnectionEnd::Reset));
    });
    assert_within("the resets", took, SECOND);
    down_at_once(&gateway);
    let gap = tailnet.wait_start(2).at - tailnet.wait_end(1, PATIENCE);
    assert!(gap >= FAST && gap <= bound(SECOND / 2), "250 ms and some jitter: {gap:?}");
    gateway.wait_ready();
    busy(&gateway);
    assert_eq!((gateway.restarts("signal"), gateway.restarts("exit")), (1, 0));
    let lines = gateway.access_lines();
    let cut = lines.iter().filter(|l| l["outcome"] == "upstream_rst").count();
    assert_eq!(cut, 50, "{lines:?}");
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn t1_a_killed_tailscaled_resets_its_dials_too() {
    let (_origin, tailnet) = echoing();
    let gateway = tailnet.gateway(|s| {
        s.sealed();
    });
    let mut wires: Vec<RawConnection> = (0..50).map(|_| busy(&gateway)).collect();
    let (_, took) = timed(|| {
        tailnet.kill(Signal::KILL);
        wires.iter_mut().for_each(|wire| wire.expect_end(ConnectionEnd::Reset));
    });
    assert_within("the resets", took, SECOND);
    assert!(tailnet.socks().is_empty() && tailnet.dials().len() == 50);
}

#[test]
fn t2_an_exit_is_counted_as_one() {
    let (_origin, tailnet) = echoing();
    let mut gateway = tailnet.gateway(|_| ());
    let mut wire = busy(&gateway);
    tailnet.order(Order::Exit(1));
    wire.expect_end(ConnectionEnd::Reset);
    tailnet.wait_start(2);
    gateway.wait_ready();
    assert_eq!((gateway.restarts("signal"), gateway.restarts("exit")), (0, 1));
    busy(&gateway);
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn t2_two_thousand_clients_leave_tailscaled_descriptors_enough() {
    idle_tunnels::descriptors();
    let tailnet = FakeTailnet::with(|s| s.open_files = Some(256));
    tailnet.answer("100.64.0.1", Answer::Echo);
    let gateway = tailnet.gateway(|_| ());
    let request = [&[5, 1, 0][..], &client::socks5_request("100.64.0.1", 80)].concat();
    let mut wires: Vec<RawConnection> = (0..2000)
        .map(|_| {
            let mut wire = gateway.dial();
            wire.send(&request);
            wire
        })
        .collect();
    let reply = |wire: &mut RawConnection| {
        wire.expect([5, 0]);
        wire.socks5_reply().rep
    };
    let replies: Vec<u8> = wires.iter_mut().map(reply).collect();
    let served = replies.iter().filter(|rep| **rep == 0).count();
    assert!(replies.iter().all(|rep| *rep <= 1), "01 for those there is no room for");
    assert_eq!(served, 128, "half of its limit");
    assert_eq!(gateway.count("overloaded"), 2000 - 128);
    assert!(tailnet.most_open() < 256 - 16, "{}", tailnet.most_open());
    assert_eq!((tailnet.starts().len(), tailnet.running()), (1, 1), "it never ended");
}

/// Stops it; idle streams live on until it is killed and started again.
fn a_hang_is_found(change: impl FnOnce(&mut Setup)) {
    let (_origin, tailnet) = echoing();
    let mut gateway = tailnet.gateway(change);
    let mut idle = busy(&gateway);
    tailnet.kill(Signal::STOP);
    let stopped = Instant::now();
    idle.expect_silence(5 * SECOND);
    tailnet.wait_end(1, 30 * SECOND);
    let took = stopped.elapsed();
    // A probe every 5 s, 2 s for its answer, three of them.
    assert!(took >= 6 * SECOND && took <= 25 * SECOND, "found after {took:?}");
    idle.expect_end(ConnectionEnd::Reset);
    tailnet.wait_start(2);
    gateway.wait_ready();
    assert_eq!((gateway.restarts("hang"), gateway.restarts("signal")), (1, 0));
    busy(&gateway);
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn t3_a_hang_is_found_by_greeting_the_socks_port() {
    a_hang_is_found(|_| ());
}

#[test]
fn t3_a_hang_is_found_by_asking_localapi() {
    a_hang_is_found(|s| {
        s.sealed();
    });
}

#[test]
fn t4_a_crash_loop_is_named_and_slowed_down() {
    let tailnet = FakeTailnet::with(|s| {
        s.start = Start::Exit("getLocalBackend error: createEngine: boom".to_owned(), 1);
    });
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    gateway.wait_not_ready("crash_loop", 30 * SECOND);
    assert_eq!(gateway.tailnet_state(), "crash_loop");
    let said = sentence(&gateway);
    assert!(said.contains("exit status 1") && said.contains("boom"), "{said}");
    assert_eq!(gateway.admin_get("/healthz").status(), 200);
    down_at_once(&gateway);
    let starts = tailnet.starts();
    assert_eq!(starts.len(), 5);
    for (n, pair) in starts.windows(2).enumerate() {
        let gap = pair[1].at - pair[0].ended.unwrap();
        let nominal = Duration::from_millis(250 << n);
        assert!(gap >= nominal / 2 && gap <= nominal * 2 + bound(SECOND / 2), "{n}: {gap:?}");
    }
    pause(4 * SECOND);
    assert_eq!(tailnet.starts().len(), 5, "a minute's pause");
    assert!(gateway.alive());
    tailnet.assert_secret(&mut gateway);
    gateway.signal(Signal::TERM);
    let (status, took) = timed(|| gateway.wait_exit(PATIENCE));
    assert_eq!(status.code(), Some(0));
    assert_within("the end in the middle of the pause", took, 2 * FAST);
}

#[test]
fn t7_requests_wait_for_the_first_login_and_no_longer_than_ready_wait() {
    let tailnet = FakeTailnet::with(|s| s.start = Start::Never);
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet).set("tailnet.ready_wait", "2s");
    });
    let proxy = gateway.proxy();
    std::thread::scope(|scope| {
        for inbound in Inbound::NAMED {
            scope.spawn(move || {
                let refuse =
                    || tailrace_rig::answers::assert_refused(proxy, inbound, DB, "upstream_down");
                let (_, took) = timed(refuse);
                assert!(took >= 2 * SECOND - FAST && took <= 4 * SECOND, "{inbound:?}: {took:?}");
            });
        }
    });
    assert_eq!(gateway.not_ready().as_deref(), Some("starting"));
}

#[test]
fn t7_a_request_that_waited_is_carried() {
    let (_origin, tailnet) = echoing();
    tailnet.change(|s| s.start = Start::Late(2 * SECOND));
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    let target = "100.64.0.1:5432";
    let (mut wire, took) = timed(|| gateway.open(Inbound::Socks5, target));
    assert!(took >= SECOND, "{took:?}");
    wire.send("hello");
    wire.expect("hello");
}

#[test]
fn t7_a_bare_name_that_waited_is_judged_and_found_as_the_tailnet_has_it() {
    let (_origin, tailnet) = echoing();
    tailnet.change(|s| s.start = Start::Late(SECOND));
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet).enforce(&[".lab.ts.net"]);
    });
    busy(&gateway);
    gateway.wait_for_line(|l| l["host"] == "db.lab.ts.net");
}

/// `up` ends with 78 and one line that names the binary.
#[track_caller]
fn cannot_run(binary: &std::path::Path) {
    let tailnet = FakeTailnet::new();
    let mut setup = Setup::new();
    setup.managed(&tailnet).set("tailnet.tailscaled", binary.to_str().unwrap());
    let output = setup.fail();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    let named = said.lines().filter(|line| line.contains(binary.to_str().unwrap())).count();
    assert_eq!(named, 1, "{said}");
    assert!(tailnet.starts().is_empty());
    setup.set("tailnet.manage", "auto");
    let gateway = setup.start();
    assert_eq!(gateway.admin_get("/readyz").status(), 503);
    assert_eq!(gateway.admin_get("/healthz").status(), 200);
    assert!(sentence(&gateway).contains(binary.to_str().unwrap()), "{}", sentence(&gateway));
    down_at_once(&gateway);
}

#[test]
fn t8_a_binary_that_is_not_there_is_a_matter_of_configuration() {
    cannot_run(std::path::Path::new("/nonexistent/tailscaled"));
}

#[test]
fn t8_a_binary_that_may_not_be_run_or_is_for_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    cannot_run(&plain);
    let foreign = dir.path().join("foreign");
    std::fs::write(&foreign, b"\x7fELF\x02\x01\x01not for this machine").unwrap();
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o755)).unwrap();
    // No other thread may be between fork and exec with the file open for writing.
    eventually("it can be executed", PATIENCE, || {
        let tried = std::process::Command::new(&foreign).spawn();
        tried.is_err_and(|e| e.raw_os_error() != Some(26))
    });
    cannot_run(&foreign);
}

#[test]
fn t9_an_unknown_flag_is_named_with_the_version() {
    let tailnet = FakeTailnet::with(|s| {
        s.version = "1.40.0".to_owned();
        s.start = Start::UnknownFlag("no-logs-no-support".to_owned());
    });
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    eventually("flag and version are in the log", PATIENCE, || {
        let lines = gateway.log_lines();
        lines.iter().any(|l| text(l, "no-logs-no-support").is_some_and(|t| t.contains("1.40.0")))
    });
    pause(6 * SECOND);
    assert!(tailnet.starts().len() <= 5, "{} starts", tailnet.starts().len());
    assert_eq!(gateway.admin_get("/readyz").status(), 503);
    let told = sentence(&gateway);
    assert!(told.contains("no-logs-no-support") && told.contains("1.40.0"), "{told}");
}

#[test]
fn t10_a_stranger_on_the_internal_port_is_never_spoken_to() {
    let stranger = Origin::sink();
    let tailnet = FakeTailnet::with(|s| s.claims = Some(stranger.address()));
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet).set("upstream.pool", 8).set("tailnet.ready_wait", "2s");
    });
    eventually("the node is up", PATIENCE, || tailnet.logins().len() == 1);
    gateway.assert_refused(Inbound::Socks5, DB, "upstream_down");
    let line = gateway.wait_for_line(|l| l["outcome"] == "upstream_down");
    assert_eq!(line["error"], "internal_port_stolen", "{line}");
    assert_eq!(gateway.admin_get("/readyz").status(), 503);
    pause(6 * SECOND); // a probe's time
    let said: u64 = stranger.visits().iter().map(|visit| visit.total).sum();
    assert_eq!(said, 0, "not a byte to a stranger");
}

#[test]
fn t11_tailscaled_goes_with_its_gateway_and_the_next_one_takes_over() {
    let (_origin, tailnet) = echoing();
    let mut gateway = tailnet.gateway(|_| ());
    gateway.signal(Signal::KILL);
    gateway.wait_exit(PATIENCE);
    let (_, took) = timed(|| tailnet.wait_end(1, PATIENCE));
    assert!(took <= 2 * SECOND, "{took:?}");
    let stale = gateway.setup().run_dir();
    assert!(stale.join("tailscaled.sock").exists() && stale.join("gateway.json").exists());
    let mut next = Setup::new();
    next.managed(&tailnet);
    // The rig looks for gateway.json in the folder of its own setup.
    std::fs::rename(&stale, next.run_dir()).unwrap();
    let mut next = next.start();
    next.wait_ready();
    busy(&next);
    tailnet.assert_secret(&mut next);
}

#[test]
fn t11_tailscaled_outlives_the_thread_that_started_it() {
    let (_origin, tailnet) = echoing();
    let gateway = tailnet.gateway(|_| ());
    let mut wire = busy(&gateway);
    pause(13 * SECOND); // a blocking thread of the runtime ends after 10 s without work
    wire.send("still there");
    wire.expect("still there");
    assert_eq!((tailnet.starts().len(), tailnet.running()), (1, 1));
}

#[test]
fn t12_a_kill_for_want_of_memory_is_told_from_any_other() {
    let Some(group) = tailrace_rig::cgroup::Cgroup::new(128 << 20) else {
        return skip("needs to make a memory cgroup (root, /sys/fs/cgroup)");
    };
    let (_origin, tailnet) = echoing();
    let mut gateway = tailnet.gateway(|s| {
        s.prelude(&format!("echo $$ > {}", group.members().display()));
    });
    // Of those in the group the fake is the one to go.
    let adjust = format!("/proc/{}/oom_score_adj", tailnet.pid());
    std::fs::write(adjust, "1000").unwrap();
    tailnet.order(Order::Eat(512 << 20));
    tailnet.wait_end(1, 30 * SECOND);
    tailnet.wait_start(2);
    gateway.wait_ready();
    assert_eq!((gateway.restarts("oom"), gateway.restarts("signal")), (1, 0));
    busy(&gateway);
    drop(gateway);
    drop(tailnet);
    eventually("the cgroup can go", PATIENCE, || group.remove());
}

#[test]
fn t14_a_flood_on_stderr_is_thinned_and_blocks_nobody() {
    const BYTES: u64 = 64 << 20;
    let (_origin, tailnet) = echoing();
    let gateway = tailnet.gateway(|s| {
        s.set("log.level", "debug"); // tailscaled's own lines are for those who look
    });
    let line = format!("FLOOD {}", "x".repeat(200));
    let start = Instant::now();
    tailnet.order(Order::Flood(line.clone(), BYTES));
    busy(&gateway);
    eventually("the flood is over", 60 * SECOND, || tailnet.flooded() >= BYTES);
    let seconds = start.elapsed().as_secs() + 1;
    pause(SECOND + FAST); // the next second's lines
    tailnet.say(&[b"MARK the end\n"]);
    let marked = || gateway.log_lines().iter().any(|l| text(l, "MARK the end").is_some());
    eventually("a line after the flood", PATIENCE, marked);
    let lines = gateway.log_lines();
    let kept = lines.iter().filter(|l| text(l, "FLOOD ").is_some()).count() as u64;
    assert!(kept >= 1 && kept <= 100 * (seconds + 1), "{kept} lines in {seconds} s");
    let written = BYTES / (line.len() as u64 + 1);
    let metrics = gateway.metrics();
    let dropped = metrics.value("tailrace_log_dropped_total", &[("stream", "child")]) as u64;
    assert!(dropped >= written - kept - written / 100, "{dropped} of {written}");
    busy(&gateway);
    assert_eq!(tailnet.starts().len(), 1);
}

#[test]
fn t14_lines_are_cut_at_4_kib_and_bytes_escaped() {
    let (_origin, tailnet) = echoing();
    let gateway = tailnet.gateway(|s| {
        s.set("log.level", "debug"); // tailscaled's own lines are for those who look
    });
    let long = format!("LONG {} TAIL\n", "x".repeat(10_000));
    tailnet.say(&[long.as_bytes(), b"BINARY \x00\x1b[2J\xff\xfe\xe2\x80\xae\n", b"MARK\n"]);
    let found = |needle: &str| {
        eventually_some(needle, PATIENCE, || {
            gateway.log_lines().iter().find_map(|l| text(l, needle).map(str::to_owned))
        })
    };
    found("MARK");
    let kept = found("LONG");
    assert!(kept.len() <= 4096 + 64 && !kept.contains("TAIL"), "{} bytes", kept.len());
    found("BINARY");
    let raw = std::fs::read(gateway.log_path()).unwrap();
    let bad = raw.iter().find(|b| **b != b'\n' && !(b' '..=b'~').contains(*b));
    assert_eq!(bad, None, "printable ASCII only");
}
