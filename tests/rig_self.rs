//! The rig tested against itself: the fakes do what the other chapters rely on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::time::Duration;

use tailrace_rig::client::{self, Inbound};
use tailrace_rig::socks_script::{reply, reply_with_name};
use tailrace_rig::wait::{bound, eventually, timed};
use tailrace_rig::{
    AfterReply, ClosedPort, ConnectionEnd, FakeUpstream, FullBacklog, HalfClose, HttpOrigin,
    HttpReply, Latch, Metrics, Origin, RawConnection, Setup, UpstreamGreeting, UpstreamReply,
    sha256,
};

const TARGET: &str = "db.corp.example:5432";

/// The fake speaks SOCKS5, so the rig's own client can talk to it without a gateway.
fn tunnel(fake: &FakeUpstream) -> RawConnection {
    client::open(fake.address(), Inbound::Socks5, TARGET)
}

#[test]
fn fake_relays_to_the_mapped_origin_and_keeps_half_close() {
    let origin = Origin::send_after_eof("late answer");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut wire = tunnel(&fake);
    wire.send("question");
    wire.fin();
    wire.expect("late answer");
    wire.expect_end(ConnectionEnd::Fin);
    let visit = origin.only_visit();
    assert_eq!(
        (visit.received.as_slice(), visit.end),
        (&b"question"[..], Some(ConnectionEnd::Fin))
    );
    assert_eq!(visit.sha256(), sha256(b"question"));
    let request = &fake.requests()[0];
    assert_eq!((request.host.as_str(), request.port, request.atyp), ("db.corp.example", 5432, 3));
    drop(wire);
    eventually("the fake sees its client leave", Duration::from_secs(2), || fake.open() == 0);
}

#[test]
fn fake_of_old_kills_half_close() {
    let origin = Origin::send_after_eof("never seen");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    fake.half_close(HalfClose::Kill);
    let mut wire = tunnel(&fake);
    wire.fin();
    let (bytes, end) = wire.rest();
    assert!(bytes.is_empty() && end != ConnectionEnd::Open, "{bytes:?} {end:?}");
}

#[test]
fn fake_answers_in_turn_then_by_host_then_by_default() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Rep(5));
    fake.answer_for("db.corp.example", UpstreamReply::Rep(4));
    fake.answer_in_turn([UpstreamReply::Rep(3)]);
    let codes: Vec<u16> = [TARGET, TARGET, "other.corp.example:1"]
        .map(|t| client::ask(fake.address(), Inbound::Socks5, t).1.code())
        .into();
    assert_eq!(codes, [3, 4, 5]);
}

#[test]
fn fake_replies_with_a_name_and_payload_in_one_segment() {
    let fake = FakeUpstream::start();
    let bytes = [reply_with_name(0, "db", 7), b"payload".to_vec()].concat();
    fake.answer(UpstreamReply::Bytes(bytes, AfterReply::Close));
    let mut wire = tunnel(&fake);
    wire.expect("payload");
    wire.expect_end(ConnectionEnd::Fin);
}

#[test]
fn fake_resets_after_greeting_and_after_request() {
    let fake = FakeUpstream::start();
    fake.greet(UpstreamGreeting::Reset);
    let mut wire = RawConnection::dial(fake.address());
    wire.send([5, 1, 0]);
    wire.expect_end(ConnectionEnd::Reset);
    fake.greet(UpstreamGreeting::Normal);
    fake.answer(UpstreamReply::Reset);
    let mut wire = RawConnection::dial(fake.address());
    wire.greet();
    wire.send(client::request(Inbound::Socks5, TARGET));
    wire.expect_end(ConnectionEnd::Reset);
}

#[test]
fn fake_stays_silent_and_knows_when_the_peer_left() {
    let fake = FakeUpstream::start();
    fake.greet(UpstreamGreeting::Silent);
    let mut wire = RawConnection::dial(fake.address());
    wire.send([5, 1, 0]);
    wire.expect_silence(Duration::from_millis(50));
    assert_eq!(fake.open(), 1);
    drop(wire);
    eventually("the silent connection is let go", Duration::from_secs(2), || fake.open() == 0);
}

#[test]
fn fake_tells_one_segment_from_two() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Rep(1));
    let mut wire = RawConnection::dial(fake.address());
    wire.send([&[5, 1, 0][..], &client::request(Inbound::Socks5, TARGET)].concat());
    wire.expect([5, 0]);
    wire.expect(reply(1));
    assert!(fake.requests()[0].one_segment);
    client::ask(fake.address(), Inbound::Socks5, TARGET);
    assert!(!fake.requests()[1].one_segment);
}

#[test]
fn fake_resets_all_streams_like_a_killed_process() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut wire = tunnel(&fake);
    wire.send("x");
    wire.expect("x");
    fake.reset_all();
    wire.expect_end(ConnectionEnd::Reset);
}

#[test]
fn a_late_answer_is_late() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Late(Duration::from_millis(300), Box::new(UpstreamReply::Rep(5))));
    let ((_, answer), took) = timed(|| client::ask(fake.address(), Inbound::Socks5, TARGET));
    assert_eq!(answer.code(), 5);
    assert!(took >= Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_closed_port_refuses_and_a_full_backlog_swallows() {
    let (closed, full) = (ClosedPort::new(), FullBacklog::new());
    let dial = |to| {
        std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)).unwrap_err().kind()
    };
    assert_eq!(dial(closed.address()), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(dial(full.address()), std::io::ErrorKind::TimedOut);
}

#[test]
fn origin_reset_arrives_after_all_it_sent() {
    let bytes = vec![7; 700 << 10];
    let origin = Origin::send_then_reset(bytes.clone());
    let (got, end) = RawConnection::dial(origin.address()).rest();
    assert_eq!((got.len(), end), (bytes.len(), ConnectionEnd::Reset));
}

#[test]
fn scripts_wait_for_their_gate() {
    let gate = Latch::new();
    let script = gate.clone();
    let origin = Origin::start(move |guest| {
        script.wait();
        guest.send(b"go");
    });
    let mut wire = RawConnection::dial(origin.address());
    wire.expect_silence(Duration::from_millis(30));
    gate.open();
    wire.expect("go");
}

#[test]
fn http_origin_keeps_raw_requests_and_chunks() {
    let origin = HttpOrigin::start(|_| HttpReply::ok("fine"));
    let mut wire = RawConnection::dial(origin.address());
    let head = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n";
    wire.send(format!("{head}{body}GET /b HTTP/1.1\r\n\r\n"));
    assert_eq!(wire.read_answer().body, b"fine");
    assert_eq!(wire.read_answer().status(), 200);
    let requests = origin.requests();
    assert_eq!(requests[0].head.raw, head.as_bytes());
    assert_eq!(requests[0].body, body.as_bytes());
    assert_eq!(requests[1].head.start, "GET /b HTTP/1.1");
}

#[test]
fn metrics_are_parsed_with_labels_in_any_order() {
    let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"}\"} 2\na{y=\"z\",x=\"1\"} 3\nb 1.5\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.value("a", &[("x", "1")]), 5.0);
    assert_eq!(metrics.value("a", &[("y", "q\"}")]), 2.0);
    assert_eq!(metrics.value("b", &[]), 1.5);
}

#[test]
fn short_bounds_are_widened_for_noisy_machines() {
    assert_eq!(bound(Duration::from_millis(50)), Duration::from_millis(250));
    assert_eq!(bound(Duration::from_secs(7)), Duration::from_secs(7));
}

#[test]
fn a_namespace_redirects_to_a_port_of_ours() {
    tailrace_rig::netns::inside(|| {
        let origin = Origin::send("redirected");
        tailrace_rig::netns::add_route("203.0.113.0/24");
        tailrace_rig::netns::redirect("203.0.113.0/24", origin.address().port());
        let mut wire = RawConnection::dial("203.0.113.9:80".parse().unwrap());
        wire.expect("redirected");
    });
}

/// A reload that finds an empty file finds good settings: all the defaults.
#[test]
fn settings_are_never_seen_half_written() {
    let setup = Setup::new();
    let config = setup.write();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..2_000 {
                assert_eq!(std::fs::read(&config).unwrap(), setup.text());
            }
        });
        while !reader.is_finished() {
            setup.write();
        }
    });
}
