//! How tunnels end: each side's FIN and reset as it was, silence, and the last error answer.

use std::io::Write as _;
use std::time::Duration;

use super::{Dice, MODES, Mode, SECOND, noise, read_to_fin, send_in_chunks, stuff, tunnel};
use tailrace_rig::raw_connection::small_buffers;
use tailrace_rig::wait::{assert_within, bound, eventually, pause, timed};
use tailrace_rig::{ConnectionEnd, Gateway, Inbound, Latch, Origin, sha256};

const MIB: usize = 1 << 20;

#[test]
fn c4_m4_the_answer_after_the_clients_fin() {
    for mode in MODES {
        let answer = noise(2, MIB);
        let origin = Origin::send_after_eof(answer.clone());
        let mut gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        let up = noise(1, 8 * MIB);
        let got = mode.while_moving(&mut gateway, || {
            send_in_chunks(&wire, &up, 3);
            read_to_fin(&wire)
        });
        assert_eq!(sha256(&got), sha256(&answer), "{mode:?}");
        assert_eq!(origin.only_visit().sha256(), sha256(&up), "{mode:?}");
        assert_eq!(gateway.outcome(1), "fin_fin");
        gateway.settle_and_check(1);
    }
}

#[test]
fn c5_the_upload_goes_on_after_the_upstreams_fin() {
    for mode in MODES {
        let origin = Origin::send("");
        let mut gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        assert_eq!(read_to_fin(&wire), b"");
        let up = noise(1, 16 * MIB);
        mode.while_moving(&mut gateway, || send_in_chunks(&wire, &up, 3));
        assert_eq!(origin.only_visit().sha256(), sha256(&up), "{mode:?}");
        assert_eq!(gateway.outcome(1), "fin_fin");
    }
}

#[test]
fn c7_both_fins_at_once() {
    let gate = Latch::new();
    let go = gate.clone();
    let origin = Origin::start(move |guest| {
        go.wait();
        guest.fin();
        guest.read_to_end();
    });
    let mut gateway = Mode::Splice.gateway();
    let mut wire = tunnel(&gateway, origin.address());
    gate.open();
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    assert_eq!(origin.only_visit().end, Some(ConnectionEnd::Fin));
    assert_eq!(gateway.outcome(1), "fin_fin");
    gateway.settle_and_check(1);
}

#[test]
fn c8_a_clients_reset_reaches_a_stalled_upstream() {
    for mode in [Mode::Copy, Mode::Splice] {
        let gate = Latch::new();
        let go = gate.clone();
        let origin = Origin::start(move |guest| {
            small_buffers(&guest.stream, 16_384);
            go.wait();
            guest.read_to_end();
        });
        let mut gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        stuff(&wire);
        let (_, took) = timed(|| {
            wire.reset();
            gateway.wait_for_access(1)
        });
        assert_within("the end of the relay", took, Duration::from_millis(100));
        gate.open();
        assert_eq!(origin.only_visit().end, Some(ConnectionEnd::Reset), "{mode:?}");
        let line = &gateway.wait_for_access(1)[0];
        assert_eq!(line["outcome"], "client_rst", "{line}");
        let counted = line["bytes_up"].as_u64().unwrap();
        assert!(counted <= origin.only_visit().total, "c15 {line}");
        assert!(gateway.metrics().value("tailrace_lost_bytes_total", &[]) > 0.0);
        gateway.settle_and_check(1);
    }
}

#[test]
fn c9_all_that_came_before_the_upstreams_reset_then_a_reset() {
    for mode in [Mode::Copy, Mode::Splice] {
        let bytes = noise(6, 700 << 10);
        let origin = Origin::send_then_reset(bytes.clone());
        let mut gateway = mode.gateway();
        let mut wire = tunnel(&gateway, origin.address());
        let (got, end) = wire.rest();
        assert_eq!(end, ConnectionEnd::Reset, "{mode:?}");
        assert_eq!(sha256(&got), sha256(&bytes), "{mode:?}");
        assert_eq!(gateway.outcome(1), "upstream_rst");
        gateway.settle_and_check(1);
    }
}

#[test]
fn c10_m5_a_reset_while_the_other_direction_writes_is_still_a_reset() {
    for mode in [Mode::Copy, Mode::Splice] {
        let origin = Origin::start(|guest| {
            let mut dice = Dice(guest.stream.peer_addr().unwrap().port().into());
            guest.read_n(dice.up_to(MIB as u64));
            guest.send(&noise(4, 700 << 10));
            tailrace_rig::raw_connection::abort(&guest.stream);
        });
        let mut gateway = mode.gateway();
        for round in 0..100 {
            let mut wire = tunnel(&gateway, origin.address());
            // Written before anything is read: a socket tells its error once, ours too.
            wire.tcp().write_all(&[1; 2 * MIB]).unwrap();
            let (got, end) = wire.rest();
            assert_eq!(end, ConnectionEnd::Reset, "{mode:?} round {round}: {} bytes", got.len());
        }
        gateway.settle_and_check(100);
        assert_eq!(gateway.count("upstream_rst"), 100);
    }
}

#[test]
fn c11_m3_the_tail_after_a_readers_pause_beyond_the_origins_close() {
    for mode in [Mode::Copy, Mode::Splice] {
        let bytes = noise(9, 12 * MIB);
        let origin = Origin::send(bytes.clone());
        let gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        small_buffers(wire.tcp(), 65_536);
        let mut head = wire.twin().read_n(300_000);
        pause(2 * SECOND);
        head.extend(read_to_fin(&wire));
        assert_eq!(sha256(&head), sha256(&bytes), "{mode:?}");
        drop(wire);
        assert_eq!(gateway.outcome(1), "fin_fin");
    }
}

#[test]
fn c12_half_closed_then_silent_ends_after_the_linger() {
    let over = Latch::new();
    let until = over.clone();
    let origin = Origin::start(move |guest| {
        guest.read_to_end();
        until.wait(); // and says nothing, not even FIN
    });
    let mut gateway = Mode::Splice.gateway_with(|s| {
        s.set("limits.half_close_timeout", "1s");
    });
    let mut wire = tunnel(&gateway, origin.address());
    wire.fin();
    let (_, took) = timed(|| wire.expect_end(ConnectionEnd::Fin));
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert_within("the end", took, SECOND);
    assert_eq!(gateway.outcome(1), "half_close_idle");
    let waiting = sockets(&gateway).into_iter().filter(|s| s.state == "08").count();
    assert_eq!(waiting, 0, "sockets in CLOSE_WAIT");
    over.open();
    gateway.settle_and_check(1);
}

#[test]
fn c13_silence_ends_by_fin_and_a_byte_in_time_keeps_it() {
    let origin = Origin::echo();
    let mut gateway = Mode::Splice.gateway_with(|s| {
        s.set("limits.idle_timeout", "2s");
    });
    let mut wire = tunnel(&gateway, origin.address());
    for _ in 0..2 {
        pause(Duration::from_millis(1_900));
        wire.send(".");
        wire.expect(".");
    }
    let (_, took) = timed(|| wire.expect_end(ConnectionEnd::Fin));
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
    assert!(took <= 5 * SECOND, "{took:?}");
    assert_eq!(origin.only_visit().end, Some(ConnectionEnd::Fin));
    assert_eq!(gateway.outcome(1), "idle");
    gateway.settle_and_check(1);
}

#[test]
fn c17_a_refused_upload_can_read_the_whole_answer() {
    let mut gateway = Gateway::start(|s| {
        s.direct().enforce(&["corp.example"]);
    });
    let mut wire = gateway.dial();
    let head = "POST http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n";
    wire.send(format!("{head}Content-Length: {MIB}\r\n\r\n"));
    let body = vec![b'b'; MIB];
    let mut out = wire.twin();
    let sender = std::thread::spawn(move || body.chunks(4_096).all(|c| out.try_send(c).is_ok()));
    let answer = wire.read_answer();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.json()["error"], "denied");
    let _whether_all_was_taken = sender.join().unwrap();
    drop(wire);
    gateway.settle_and_check(1);
}

struct Socket {
    state: String,
    timer: String,
    ports: [u16; 2],
}

/// The gateway's TCP sockets in `/proc/<pid>/net/tcp` that belong to its proxy port or origins.
fn sockets(gateway: &Gateway) -> Vec<Socket> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", gateway.pid())).unwrap();
    let port = |f: &str| u16::from_str_radix(f.rsplit(':').next().unwrap(), 16).unwrap();
    let parse = |line: &str| {
        let f: Vec<&str> = line.split_whitespace().collect();
        let timer = f[5].split(':').next().unwrap().to_owned();
        Socket { state: f[3].into(), timer, ports: [port(f[1]), port(f[2])] }
    };
    let ours = gateway.proxy().port();
    table.lines().skip(1).map(parse).filter(|s| s.ports.contains(&ours)).collect()
}

/// Sockets of the whole table that have `port` on their far side.
fn towards(gateway: &Gateway, port: u16) -> Vec<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", gateway.pid())).unwrap();
    let far = format!(":{port:04X}");
    let fields = table.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    fields.filter(|f| f[2].ends_with(&far) && f[3] == "01").map(|f| f[5].into()).collect()
}

#[test]
fn c18_both_sockets_send_keepalives() {
    let origin = Origin::never_reader();
    let gateway = Mode::Splice.gateway();
    let wire = tunnel(&gateway, origin.address());
    let proxy = gateway.proxy().port();
    // Timer 02 is the keepalive timer (kernel, Documentation/networking/proc_net_tcp).
    eventually("a keepalive timer towards the client", bound(SECOND), || {
        let side = sockets(&gateway).into_iter().find(|s| s.ports[0] == proxy && s.state == "01");
        side.is_some_and(|s| s.timer == "02")
    });
    eventually("a keepalive timer towards the origin", bound(SECOND), || {
        towards(&gateway, origin.address().port()).iter().any(|timer| timer.starts_with("02:"))
    });
    drop(wire);
}

#[test]
fn m4_every_inbound_propagates_a_half_close() {
    let origin = Origin::send_after_eof("answer");
    let mut gateway = Mode::Splice.gateway();
    for inbound in Inbound::TUNNELS {
        let mut wire = gateway.open(inbound, &origin.address().to_string());
        wire.send("question");
        wire.fin();
        wire.expect("answer");
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_and_check(4);
}
