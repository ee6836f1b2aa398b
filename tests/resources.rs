//! Chapter R: what happens when something runs out. R4, R8, R9 and R13 are with the relay, R10, R15
//! and R17 in `leaks.rs`, R16 with the inbounds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tailrace_rig::idle_tunnels::{self, tunnel};
use tailrace_rig::wait::{
    PATIENCE, assert_within, bound, eventually, eventually_some, pause, timed,
};
use tailrace_rig::{
    FakeUpstream, Gateway, IdleTunnels, Inbound, Origin, RawConnection, client, netns, skip,
};

const SECOND: Duration = Duration::from_secs(1);
const NAME: &str = "db.corp.example:80";

#[test]
fn r1_few_descriptors_and_many_clients() {
    let holder = IdleTunnels::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(holder.address()).nofile(64);
    });
    let request = [&[5, 1, 0][..], &client::socks5_request("192.0.2.7", 80)].concat();
    let (before, start) = (gateway.cpu_time(), Instant::now());
    let mut clients: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.proxy()).unwrap();
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    // Whoever waits in the queue waits; everybody else has an answer.
    pause(2 * SECOND);
    let used = gateway.cpu_time() - before;
    assert!(used < start.elapsed() / 20 + Duration::from_millis(50), "{used:?} of CPU while full");
    let answers: Vec<Option<u8>> = clients.iter_mut().map(rep_so_far).collect();
    let count = |rep| answers.iter().filter(|a| **a == rep).count();
    assert!(count(Some(0)) >= 8, "served: {answers:?}");
    assert_eq!(count(Some(0)) + count(Some(1)) + count(None), 200, "{answers:?}");
    assert!(gateway.log().lines().count() <= 300, "{}", gateway.log());
    drop(clients);
    holder.release();
    eventually("it serves again", PATIENCE, || tunnel(gateway.proxy()).is_ok());
    assert!(gateway.alive());
}

/// The REP a client has got, if any has come.
fn rep_so_far(stream: &mut TcpStream) -> Option<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut answer = [0; 12];
    let got = stream.read(&mut answer).unwrap_or(0);
    (got >= 4).then_some(answer[3])
}

#[test]
fn r2_the_soft_limit_is_raised_to_the_hard_one() {
    let fake = FakeUpstream::start();
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).soft_nofile(256);
    });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "soft and hard: {line}");
    let most: u64 = fields[4].parse().unwrap_or(u64::MAX);
    assert!(most == u64::MAX || gateway.metrics().value("process_max_fds", &[]) == most as f64);
}

#[test]
fn r2_too_many_connections_for_the_limit_are_lowered_and_logged_once() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).nofile(64);
    });
    let about = |l: &serde_json::Value| {
        l["message"].as_str().is_some_and(|m| m.contains("limits.max_connections"))
    };
    let told = |g: &Gateway| g.log_lines().into_iter().filter(about).count();
    gateway.wait_for_log(about);
    assert_eq!(told(&gateway), 1, "{}", gateway.log());
    for _ in 0..3 {
        gateway.assert_refused(Inbound::Socks5, NAME, "upstream_failed");
    }
    gateway.settle_and_check(3);
    assert_eq!(told(&gateway), 1, "{}", gateway.log());
}

/// Makes the next accepts of `pid` fail; ends with its `Drop`.
struct Injection(Child);

impl Injection {
    /// `None` where this process may not trace that one.
    fn attach(pid: u32, errno: &str) -> Option<Injection> {
        let mut strace = Command::new("strace")
            .args(["-f", "-e", "trace=accept4", "-e"])
            .arg(format!("inject=accept4:error={errno}:when=1..3"))
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = lines.next().is_some_and(|line| line.unwrap().contains("attached"));
        tailrace_rig::server::spawn(move || lines.for_each(drop));
        let injection = Injection(strace);
        attached.then_some(injection)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

#[test]
fn r3_failing_accepts_are_counted_and_never_spin() {
    let works = Command::new("strace").args(["-f", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("strace is missing or may not trace");
    }
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::chained(&fake);
    for errno in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EPERM"] {
        let before = gateway.cpu_time();
        let Some(injection) = Injection::attach(gateway.pid(), errno) else {
            return skip("strace may not trace the gateway");
        };
        // One out of descriptors may be told so with the spare one; then it is served.
        let spare = matches!(errno, "EMFILE" | "ENFILE");
        let (mut wire, _) = eventually_some(errno, bound(SECOND), || {
            let (wire, answer) = gateway.ask(Inbound::Socks5, NAME);
            assert!(answer.is_ok() || (spare && answer.code() == 1), "{errno}: {answer:?}");
            answer.is_ok().then_some((wire, answer))
        });
        wire.send("ping");
        wire.expect("ping");
        wire.fin();
        wire.rest();
        drop(injection);
        assert!(gateway.cpu_time() - before < Duration::from_millis(200), "{errno}: spins");
        let counted = gateway.metrics().value("tailrace_accept_errors_total", &[("errno", errno)]);
        assert!((1.0..=12.0).contains(&counted), "{errno}: {counted} errors");
    }
    assert!(gateway.log_lines().len() <= 100, "{}", gateway.log());
}

#[test]
fn r5_nine_thousand_idle_tunnels() {
    let room = idle_tunnels::descriptors().saturating_sub(1000) / 2;
    let tunnels = room.min(9000) as usize;
    if tunnels < 1000 {
        return skip("fewer than 3,000 descriptors for this process");
    }
    let holder = IdleTunnels::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(holder.address())
            .set("limits.max_connections", 9500)
            .set("upstream.max_connections", 9500);
    });
    let (fds, pipes, rss) = (gateway.fd_count(), gateway.fds_of("pipe:"), gateway.rss());
    let proxy = gateway.proxy();
    let held: Vec<TcpStream> = (0..tunnels).map(|_| tunnel(proxy).unwrap()).collect();
    let each = gateway.rss().saturating_sub(rss) / tunnels as u64;
    assert!(each <= 16 << 10, "{each} bytes of memory for each of {tunnels}");
    let used = gateway.fd_count() - fds;
    assert!((2 * tunnels..=2 * tunnels + 16).contains(&used), "{used} descriptors");
    assert_eq!(gateway.fds_of("pipe:"), pipes);
    gateway.assert_idle();
    // Their programs are looked for in the first seconds, at a 25th of a processor.
    let nothing = |_| {
        let cpu = gateway.cpu_time();
        pause(3 * SECOND);
        gateway.cpu_time() - cpu
    };
    let idle = (0..8).map(nothing).find(|idle| *idle < Duration::from_millis(60));
    assert!(idle.is_some(), "over 60 ms of CPU in each of 8 times 3 s of nothing");
    let best = (0..3).map(|_| timed(|| drop(tunnel(proxy))).1).min().unwrap();
    assert_within("a new request", best, Duration::from_millis(50));
    drop(held);
    holder.release();
    gateway.settle_and_check(tunnels as u64 + 3);
}

#[test]
fn r6_one_greedy_client_is_capped_and_others_are_not() {
    netns::inside(|| {
        for address in ["10.99.0.1/32", "10.99.0.2/32", "10.99.0.3/32"] {
            netns::add_address(address);
        }
        idle_tunnels::descriptors();
        let holder = IdleTunnels::start();
        let gateway = Gateway::start(|s| {
            s.upstream(holder.address())
                .set("listen.proxy", vec!["10.99.0.1:0"])
                .set("listen.allow_remote", true)
                .set("limits.per_client", 1000);
        });
        let proxy = gateway.proxy();
        let greedy = |_| idle_tunnels::ask(from("10.99.0.2", proxy));
        let held: Vec<TcpStream> = (0..1000).map(|n| greedy(n).unwrap()).collect();
        for n in 0..4000 {
            assert_eq!(greedy(n).err(), Some(1), "connection {} of the greedy client", 1000 + n);
        }
        let (other, took) = timed(|| idle_tunnels::ask(from("10.99.0.3", proxy)));
        assert!(other.is_ok());
        assert_within("another client's request", took, Duration::from_millis(50));
        assert_eq!(gateway.count("overloaded"), 4000);
        drop(held);
        holder.release();
        eventually("it may come again", PATIENCE, || greedy(0).is_ok());
    });
}

/// A connection to `to` that comes from the address `source`.
fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn r7_slow_heads_are_cut_and_slow_nobody_down() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.head_timeout", "4s");
    });
    let proxy = gateway.proxy();
    let start = Instant::now();
    let mut slow: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(proxy).unwrap()).collect();
    let mut rounds = Vec::new();
    for byte in b"GET" {
        for stream in &mut slow {
            stream.write_all(&[*byte]).unwrap();
        }
        rounds.extend((0..40).map(|_| timed(|| healthy(&gateway)).1));
        let next = start + SECOND * (1 + rounds.len() as u32 / 40);
        pause(next.saturating_duration_since(Instant::now()));
    }
    rounds.sort();
    let p99 = rounds[rounds.len() * 99 / 100 - 1];
    assert!(p99 < bound(Duration::from_millis(50)), "p99 of a healthy client: {p99:?}");
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    }
    let cut = start.elapsed();
    assert!((4..7).contains(&cut.as_secs()), "cut after {cut:?}");
    assert_eq!(gateway.count("head_timeout"), 500);
    gateway.settle_and_check(500 + rounds.len() as u64);
}

fn healthy(gateway: &Gateway) {
    let mut wire = gateway.open(Inbound::Socks5, NAME);
    wire.send("ping");
    wire.expect("ping");
    wire.fin();
    wire.rest();
}

#[test]
fn r11_ten_thousand_long_targets_leave_no_memory_behind() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    let proxy = gateway.proxy();
    let ask = |range: std::ops::Range<u32>| {
        for n in range {
            let mut wire = RawConnection::dial(proxy);
            let path = format!("{n:08}").repeat(1024);
            wire.send(format!(
                "GET http://h{n}.evil.example/{path} HTTP/1.1\r\nHost: h{n}.evil.example\r\n\r\n"
            ));
            wire.rest();
        }
    };
    ask(0..3000);
    let before = gateway.rss();
    std::thread::scope(|scope| {
        scope.spawn(|| ask(3000..6500));
        scope.spawn(|| ask(6500..10_000));
    });
    let grown = gateway.rss().saturating_sub(before);
    assert!(grown < 3 << 20, "{grown} bytes more after 7,000 further requests");
    gateway.settle_and_check(10_000);
}

/// The gateway carries traffic at its usual pace and ends in time, whatever its log does.
#[track_caller]
fn works_with_log(gateway: &mut Gateway, requests: usize) {
    for _ in 0..requests {
        let (_, took) = timed(|| healthy(gateway));
        assert!(took < SECOND, "one request took {took:?}");
    }
    eventually("all are counted", PATIENCE, || gateway.count("fin_fin") as usize == requests);
}

fn dropped(gateway: &Gateway) -> u64 {
    gateway.metrics().value("tailrace_log_dropped_total", &[("stream", "access")]) as u64
}

#[track_caller]
fn ends_in_time(gateway: &mut Gateway) {
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.wait_exit(2 * SECOND).success());
}

#[test]
fn r12_a_full_disk_costs_lines_only() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("log.to", "/dev/full");
    });
    works_with_log(&mut gateway, 50);
    eventually("the drops are counted", PATIENCE, || dropped(&gateway) >= 50);
    ends_in_time(&mut gateway);
}

/// A gateway that logs into a pipe, and the pipe's only reader.
fn piped(fake: &FakeUpstream) -> (Gateway, std::fs::File) {
    let mut setup = tailrace_rig::Setup::new();
    let pipe = setup.dir().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let reader =
        std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(&pipe).unwrap();
    setup.upstream(fake.address()).set("log.to", pipe.to_string_lossy().into_owned());
    (setup.start(), reader)
}

#[test]
fn r12_a_closed_reader_costs_lines_only() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let (mut gateway, reader) = piped(&fake);
    drop(reader);
    works_with_log(&mut gateway, 50);
    eventually("the drops are counted", PATIENCE, || dropped(&gateway) >= 50);
    ends_in_time(&mut gateway);
}

#[test]
fn r12_a_stalled_reader_costs_nothing_else() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let (mut gateway, mut reader) = piped(&fake);
    works_with_log(&mut gateway, 400); // some 200 KiB of lines, more than the pipe holds
    let mut read = vec![0; 1 << 20];
    assert!(reader.read(&mut read).unwrap() >= 32 << 10, "the pipe is full");
    works_with_log_again(&mut gateway);
    ends_in_time(&mut gateway);
}

#[track_caller]
fn works_with_log_again(gateway: &mut Gateway) {
    let (_, took) = timed(|| healthy(gateway));
    assert_within("one more request", took, Duration::from_millis(50));
    assert_eq!(dropped(gateway), 0, "nothing was dropped yet");
}

#[test]
fn r14_no_local_port_left_is_overloaded_at_once() {
    netns::inside(|| {
        let holder = IdleTunnels::start();
        let gateway = Gateway::start(|s| {
            s.upstream(holder.address());
        });
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        let mut answers = Vec::new();
        for client in ["127.0.1.1", "127.0.1.2", "127.0.1.3"] {
            for _ in 0..60 {
                let (answer, took) = timed(|| idle_tunnels::ask(from(client, gateway.proxy())));
                assert!(took < 2 * SECOND, "a hang of {took:?}");
                answers.push(answer);
            }
        }
        let served = answers.iter().filter(|answer| answer.is_ok()).count();
        // Ports the clients are bound to cannot be dialled from: fewer than 100 are left.
        assert!((30..=100).contains(&served), "{served} of 180 served with 100 ports");
        assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(1))));
        assert_eq!(gateway.count("overloaded") as usize, 180 - served);
        holder.release();
        drop(answers);
    });
}
