//! Chapter R, what is left behind: R10 (a small memory cgroup), R15 (descriptors, memory and tasks
//! after 20,000 endings), R17 (tasks after clients vanish in every phase).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tailrace_rig::cgroup::Cgroup;
use tailrace_rig::raw_connection::abort;
use tailrace_rig::resource_use::ResourceBounds;
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{
    FakeUpstream, Gateway, Inbound, Origin, SystemNameserver, UpstreamReply, client, netns,
};

const SECOND: Duration = Duration::from_secs(1);

const BOUNDS: ResourceBounds = ResourceBounds { quiet: PATIENCE, back: PATIENCE, slack: 2 << 20 };

/// One short connection with the `n`th of many endings; never waits for long.
fn short(proxy: SocketAddr, n: usize) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A cheap shuffle with a fixed seed: endings come in no order, the same in every run.
    match (n.wrapping_mul(2_654_435_761) >> 7) % 8 {
        0 => abort(&stream),
        1 => drop(stream.write_all(&[5, 1])),
        2 => {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
        3 => {
            let _ = stream.write_all(&client::socks4a_request(b"db.corp.example", 80, b""));
            abort(&stream);
        }
        4 => {
            let _ = stream.write_all(&client::socks4a_request(b"evil.example", 80, b""));
            let _ = stream.read_to_end(&mut Vec::new());
        }
        ending => relayed(stream, ending),
    }
}

/// A connection that carries 1 KiB there and back, and then ends one way or the other.
fn relayed(mut stream: TcpStream, ending: usize) {
    stream.write_all(&client::socks4a_request(b"db.corp.example", 80, b"soak")).unwrap();
    let mut reply = [0; 8];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[1], 0x5a);
    let mut data = [7; 1024];
    stream.write_all(&data).unwrap();
    stream.read_exact(&mut data).unwrap();
    if ending == 5 {
        return abort(&stream);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    if ending == 6 {
        assert_eq!(stream.read(&mut data).unwrap(), 0);
    }
}

/// Runs `act` for each of `count` numbers on a few threads.
fn on_threads(count: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    act(n);
                }
            });
        }
    });
}

#[test]
fn r15_twenty_thousand_endings_leave_nothing_behind() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    let proxy = gateway.proxy();
    on_threads(4000, |n| short(proxy, n));
    let before = gateway.resource_use(BOUNDS);
    on_threads(16_000, |n| short(proxy, 4000 + n));
    gateway.assert_back_to(&before, BOUNDS);
    eventually("each is counted once (I3)", PATIENCE, || {
        gateway.metrics().value("tailrace_connections_total", &[]) as u64 == 20_000
    });
    assert!(!gateway.log().contains("panicked"));
    assert_eq!(gateway.count("internal"), 0);
}

/// A phase in which clients vanish.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Sniff,
    Dial,
    Reply,
    Relay,
    Linger,
}

/// Opens a connection, brings it to `phase`, and is gone.
fn vanish(proxy: SocketAddr, phase: Phase) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host: &[u8] = match phase {
        Phase::Sniff => {
            stream.write_all(&[5]).unwrap();
            return abort(&stream);
        }
        Phase::Dial => b"silent.example",
        Phase::Reply | Phase::Relay | Phase::Linger => b"db.corp.example",
    };
    stream.write_all(&client::socks4a_request(host, 80, b"")).unwrap();
    if matches!(phase, Phase::Relay | Phase::Linger) {
        stream.read_exact(&mut [0; 8]).unwrap();
        stream.write_all(b"some").unwrap();
    }
    if matches!(phase, Phase::Linger) {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read(&mut [0; 1]);
    }
    abort(&stream);
}

#[test]
fn r17_clients_that_vanish_leave_no_task_behind() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    fake.answer_for("silent.example", UpstreamReply::Silent);
    let gateway = Gateway::chained(&fake);
    let proxy = gateway.proxy();
    for phase in [Phase::Sniff, Phase::Dial, Phase::Reply, Phase::Relay, Phase::Linger] {
        on_threads(50, |_| vanish(proxy, phase)); // warm
        let before = gateway.resource_use(BOUNDS);
        on_threads(1000, |_| vanish(proxy, phase));
        gateway.assert_back_to(&before, BOUNDS);
        assert_eq!(gateway.count("internal"), 0, "{phase:?}");
    }
    eventually("the fake has none left either", PATIENCE, || fake.open() == 0);
}

#[test]
fn r17_clients_that_vanish_while_a_name_is_asked_leave_no_task_behind() {
    netns::inside(|| {
        let _dns = SystemNameserver::silent();
        let gateway = Gateway::start(|s| {
            s.direct();
        });
        let proxy = gateway.proxy();
        let ask = |_| {
            let mut stream = TcpStream::connect(proxy).unwrap();
            stream.write_all(&client::socks4a_request(b"silent.example", 80, b"")).unwrap();
            abort(&stream);
        };
        // A client is gone before the gateway has even accepted it: each is waited for by its line.
        let gone = |n| {
            eventually("every client is noticed", PATIENCE, || gateway.count("client_gone") == n);
        };
        on_threads(200, ask); // warm: the resolver's threads
        gone(200);
        let before = gateway.resource_use(BOUNDS);
        on_threads(200, ask);
        gone(400);
        gateway.assert_back_to(&before, BOUNDS);
    });
}

/// Bytes each relay of R10 carries.
const EACH: usize = 10 << 20;

#[test]
fn r10_a_thousand_relays_fit_64_mib() {
    netns::inside(|| {
        // Loopback's segments of 64 KiB make send buffers of megabytes each; past net.ipv4.tcp_mem
        // the kernel would reset connections, and the gateway's own memory is the matter here.
        netns::must("ip", &["link", "set", "lo", "mtu", "9000"]);
        a_thousand_relays();
    });
}

fn a_thousand_relays() {
    const LIMIT: u64 = 64 << 20;
    // Where no cgroup can be made, what the kernel wrote down of the highest mark has to do.
    let group = Cgroup::new(LIMIT);
    let origin = Origin::start(|guest| {
        tailrace_rig::raw_connection::small_buffers(&guest.stream, 32 << 10);
        let block = [42; 64 << 10];
        let _sent = (0..EACH / block.len()).all(|_| guest.send(&block));
        guest.fin();
        guest.read_to_end();
    });
    let mut gateway = Gateway::start(|s| {
        s.direct();
    });
    if let Some(group) = &group {
        assert!(group.take(gateway.pid()), "the gateway moves into the cgroup");
    }
    let proxy = gateway.proxy();
    let streams: Vec<TcpStream> = (0..1000).map(|_| started(proxy, origin.address())).collect();
    std::thread::scope(|scope| {
        for mut stream in streams {
            let thread = std::thread::Builder::new().stack_size(128 << 10);
            thread.spawn_scoped(scope, move || finished(&mut stream)).unwrap();
        }
    });
    assert!(gateway.alive(), "killed for want of memory");
    let peak = highest_mark(gateway.pid());
    assert!((1..LIMIT).contains(&peak), "{peak} bytes of memory at the most");
    gateway.settle_and_check(1000);
    drop(gateway);
    if let Some(group) = group {
        eventually("the cgroup can go", 5 * SECOND, || group.remove());
    }
}

/// Most resident memory so far, in bytes (proc(5), `VmHWM`).
fn highest_mark(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn started(proxy: SocketAddr, origin: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    tailrace_rig::raw_connection::small_buffers(&stream, 64 << 10);
    stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
    stream.write_all(&client::request(Inbound::Socks4, &origin.to_string())).unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    stream
}

fn finished(stream: &mut TcpStream) {
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert_eq!(total, EACH);
}
