//! Chapter U: upstream faults. A fake tailscaled misbehaves; each client gets the exact answer.
//!
//! U11 is about an HTTP parent, which is not a kind of upstream.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "upstream/answer_ends.rs"]
mod answer_ends;

use std::time::Duration;

use tailrace_rig::socks_script::{reply, reply_with_name, reply_with_v6};
use tailrace_rig::wait::{PATIENCE, assert_within, bound, eventually, pause, timed};
use tailrace_rig::{
    AfterReply, ClosedPort, ConnectionEnd, FakeUpstream, FullBacklog, Gateway, HttpOrigin,
    HttpReply, Inbound, Origin, RawConnection, UpstreamGreeting, UpstreamReply, ask, client, fetch,
};

const NAME: &str = "db.corp.example:80";
/// For SOCKS4, which knows no names.
const ADDRESS: &str = "192.0.2.7:80";
const SECOND: Duration = Duration::from_secs(1);

fn target(inbound: Inbound) -> &'static str {
    if inbound == Inbound::Socks4 { ADDRESS } else { NAME }
}

/// Every inbound gets the refusal of `outcome`, and nothing is left behind.
#[track_caller]
fn refused_over_all(gateway: &mut Gateway, outcome: &str) {
    for inbound in Inbound::ALL {
        gateway.assert_refused(inbound, target(inbound), outcome);
    }
    settled_with(gateway, Inbound::ALL.len(), outcome);
}

/// All inbounds at once, for answers that take seconds; returns how long each took.
#[track_caller]
fn refused_over_all_at_once(gateway: &mut Gateway, outcome: &str) -> Vec<Duration> {
    let proxy = gateway.proxy();
    let took = at_once(move |inbound| {
        timed(|| tailrace_rig::answers::assert_refused(proxy, inbound, target(inbound), outcome)).1
    });
    settled_with(gateway, Inbound::ALL.len(), outcome);
    took
}

fn at_once<T: Send>(act: impl Fn(Inbound) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads = Inbound::ALL.map(|inbound| {
            scope.spawn({
                let act = &act;
                move || act(inbound)
            })
        });
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[track_caller]
fn settled_with(gateway: &mut Gateway, targets: usize, outcome: &str) {
    gateway.settle_and_check(targets as u64);
    for line in gateway.access_lines() {
        assert_eq!(line["outcome"], outcome, "{line}");
    }
    assert_eq!(gateway.count(outcome), targets as u64);
}

/// Each reply in turn gives every inbound the refusal of `outcome`.
#[track_caller]
fn each_reply_is(outcome: &str, replies: impl IntoIterator<Item = UpstreamReply>) {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    let mut asked = 0;
    for reply in replies {
        fake.answer(reply);
        for inbound in Inbound::ALL {
            let (_, took) = timed(|| gateway.assert_refused(inbound, target(inbound), outcome));
            assert_within("the refusal", took, SECOND);
            asked += 1;
        }
    }
    settled_with(&mut gateway, asked, outcome);
}

#[test]
fn u1_closed_port_is_upstream_down_at_once() {
    let closed = ClosedPort::new();
    let mut gateway = Gateway::start(|s| {
        s.upstream(closed.address());
    });
    for inbound in Inbound::ALL {
        let (_, took) = timed(|| gateway.assert_refused(inbound, target(inbound), "upstream_down"));
        assert_within("upstream_down", took, Duration::from_millis(50));
    }
    settled_with(&mut gateway, 5, "upstream_down");
    let ready = gateway.admin_get("/readyz");
    assert_eq!((ready.status(), ready.json()["error"].as_str()), (503, Some("upstream_down")));
}

/// Failed dials of this network namespace (`Tcp: AttemptFails` of /proc/net/snmp).
fn failed_dials() -> u64 {
    let snmp = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let rows: Vec<Vec<&str>> = snmp
        .lines()
        .filter(|l| l.starts_with("Tcp:"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    let column = rows[0].iter().position(|name| *name == "AttemptFails").unwrap();
    rows[1][column].parse().unwrap()
}

#[test]
fn u1_closed_port_causes_no_retry_storm() {
    tailrace_rig::netns::inside(|| {
        let closed = ClosedPort::new();
        let gateway = Gateway::start(|s| {
            s.upstream(closed.address());
        });
        let before = failed_dials();
        for _ in 0..10 {
            gateway.assert_refused(Inbound::Socks5, NAME, "upstream_down");
        }
        let dials = failed_dials() - before;
        assert!(
            (1..=21).contains(&dials),
            "{dials} dials for 10 requests (one each, one retry, one probe)"
        );
    });
}

#[test]
fn u2_full_backlog_is_connect_timeout_after_local_timeout() {
    let full = FullBacklog::new();
    let mut gateway = Gateway::start(|s| {
        s.upstream(full.address());
    });
    for took in refused_over_all_at_once(&mut gateway, "connect_timeout") {
        assert!(took >= 2 * SECOND && took < 4 * SECOND, "{took:?}, wanted 2 s");
    }
}

#[test]
fn u3_no_answer_to_the_greeting_is_connect_timeout_at_7_s() {
    let fake = FakeUpstream::start();
    fake.greet(UpstreamGreeting::Silent);
    let mut gateway = Gateway::chained(&fake);
    for took in refused_over_all_at_once(&mut gateway, "connect_timeout") {
        assert!(took >= 7 * SECOND && took < 9 * SECOND, "{took:?}, wanted 7 s");
    }
    assert_eq!(gateway.metrics().value("tailrace_upstream_up", &[]), 0.0, "a health miss");
    eventually("no connection to the upstream is left", bound(SECOND), || fake.open() <= 1);
}

#[test]
fn u4_no_answer_to_the_request_is_connect_timeout_at_7_s() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Silent);
    let mut gateway = Gateway::chained(&fake);
    for took in refused_over_all_at_once(&mut gateway, "connect_timeout") {
        assert!(took >= 7 * SECOND && took < 9 * SECOND, "{took:?}, wanted 7 s");
    }
    assert_eq!(fake.requests().len(), 5);
}

#[test]
fn u5_reset_after_the_greeting_is_upstream_failed() {
    for greeting in
        [UpstreamGreeting::Reset, UpstreamGreeting::NormalThenReset, UpstreamGreeting::Close]
    {
        let fake = FakeUpstream::start();
        fake.greet(greeting);
        let mut gateway = Gateway::chained(&fake);
        let before = fake.connections();
        refused_over_all(&mut gateway, "upstream_failed");
        let dials = fake.connections() - before;
        assert!(dials <= 11, "{dials} dials for 5 requests (one each, one retry, one probe)");
    }
}

#[test]
fn u5_reset_after_the_request_is_upstream_failed() {
    each_reply_is("upstream_failed", [UpstreamReply::Reset, UpstreamReply::Close]);
}

#[test]
fn u6_greeting_and_reply_in_single_bytes() {
    let origin = HttpOrigin::ok("slow but whole");
    let fake = FakeUpstream::start();
    fake.greet(UpstreamGreeting::Dribble);
    let mut gateway = Gateway::chained(&fake);
    for bytes in [reply(0), reply_with_name(0, "db.corp.example", 80)] {
        fake.answer(UpstreamReply::Dribble(bytes, AfterReply::Relay(origin.address())));
        for inbound in Inbound::ALL {
            assert_eq!(fetch(gateway.proxy(), inbound, target(inbound)).body, b"slow but whole");
        }
    }
    gateway.settle_with(&fake, 10, 10);
}

#[test]
fn u7_short_failure_is_upstream_failed_without_waiting() {
    let short = [
        UpstreamReply::Bytes(vec![5, 1], AfterReply::Close),
        UpstreamReply::Bytes(vec![5, 1, 0, 0], AfterReply::Close),
        UpstreamReply::Bytes(vec![5, 1, 0, 0], AfterReply::Hold),
        UpstreamReply::Bytes(vec![5, 1, 0, 0, 0, 0, 0, 0, 0, 0], AfterReply::Close),
        UpstreamReply::Bytes(vec![5, 1, 0, 1], AfterReply::Close),
    ];
    each_reply_is("upstream_failed", short);
}

#[test]
fn u7_rep_codes_keep_their_meaning() {
    each_reply_is("upstream_failed", [UpstreamReply::Rep(1)]);
    each_reply_is("unreachable", [UpstreamReply::Rep(3)]);
    each_reply_is("refused", [UpstreamReply::Rep(5)]);
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Rep(4));
    let gateway = Gateway::chained(&fake);
    assert_eq!(gateway.ask(Inbound::Socks5, NAME).1.code(), 4);
    assert_eq!(gateway.outcome(1), "unreachable");
}

/// 300 bytes that are the same in every run and never begin with 05 (xorshift).
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::once(0xa7).chain(std::iter::repeat_with(&mut next)).take(300).collect()
}

#[test]
fn u8_garbage_is_upstream_protocol_and_never_reaches_the_client() {
    let garbage = [
        vec![4, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        noise(),
        vec![5, 0, 0, 9, 0, 0, 0, 0, 0, 0],
        vec![5, 9, 0, 1, 0, 0, 0, 0, 0, 0],
        vec![5, 0xff, 0, 1, 0, 0, 0, 0, 0, 0],
    ];
    each_reply_is(
        "upstream_protocol",
        garbage.map(|bytes| UpstreamReply::Bytes(bytes, AfterReply::Close)),
    );
}

#[test]
fn u8_garbage_instead_of_a_greeting_is_upstream_protocol() {
    for bytes in [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), noise(), vec![4, 0]] {
        let fake = FakeUpstream::start();
        fake.greet(UpstreamGreeting::Bytes(bytes));
        let mut gateway = Gateway::chained(&fake);
        refused_over_all(&mut gateway, "upstream_protocol");
    }
}

#[test]
fn u9_name_or_v6_as_bound_address_and_payload_in_the_same_segment() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    let replies = [
        reply_with_name(0, "db.corp.example", 80),
        reply_with_v6(0, "fd7a::1".parse().unwrap(), 80),
        reply(0),
    ];
    for bytes in replies {
        fake.answer(UpstreamReply::Bytes([&bytes[..], b"first bytes"].concat(), AfterReply::Echo));
        for inbound in Inbound::TUNNELS {
            let mut wire = gateway.open(inbound, target(inbound));
            wire.expect("first bytes");
            wire.send("and then");
            wire.expect("and then");
            drop(wire);
        }
    }
    gateway.settle_with(&fake, 12, 12);
}

#[test]
fn u10_success_then_fin_is_a_clean_empty_tunnel() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Bytes(reply(0), AfterReply::Close));
    let mut gateway = Gateway::chained(&fake);
    for inbound in Inbound::TUNNELS {
        let mut wire = gateway.open(inbound, target(inbound));
        wire.expect_end(ConnectionEnd::Fin);
        wire.fin();
    }
    gateway.settle_with(&fake, 4, 4);
    for line in gateway.access_lines() {
        assert_eq!(
            (&line["outcome"], &line["bytes_up"], &line["bytes_down"]),
            (&"fin_fin".into(), &0.into(), &0.into())
        );
    }
}

#[test]
fn u12_an_origin_that_takes_5_s_is_not_cut() {
    let origin = HttpOrigin::start(|_| {
        pause(5 * SECOND);
        HttpReply::ok("at last")
    });
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    fake.map("192.0.2.7", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let proxy = gateway.proxy();
    for answer in at_once(|inbound| fetch(proxy, inbound, target(inbound))) {
        assert_eq!(answer.body, b"at last");
    }
    gateway.settle_with(&fake, 5, 5);
}

/// 100 ms either side of the deadline are judged as 500 ms, like every short bound.
#[test]
fn u13_reply_just_before_the_deadline_counts_and_just_after_it_does_not() {
    let origin = HttpOrigin::ok("in time");
    let fake = FakeUpstream::start();
    let late =
        |ms| UpstreamReply::Late(Duration::from_millis(ms), Box::new(UpstreamReply::Connect));
    for host in ["early.corp.example", "late.corp.example"] {
        fake.map(host, origin.address());
    }
    fake.answer_for("early.corp.example", late(6_500));
    fake.answer_for("late.corp.example", late(7_500));
    let mut gateway = Gateway::chained(&fake);
    let proxy = gateway.proxy();
    std::thread::scope(|scope| {
        for inbound in Inbound::NAMED {
            scope.spawn(move || {
                assert_eq!(fetch(proxy, inbound, "early.corp.example:80").body, b"in time")
            });
            scope.spawn(move || {
                tailrace_rig::answers::assert_refused(
                    proxy,
                    inbound,
                    "late.corp.example:80",
                    "connect_timeout",
                )
            });
        }
    });
    eventually("the late upstream sockets are closed", PATIENCE, || fake.open() == 0);
    gateway.settle_with(&fake, 8, 8);
    assert_eq!(gateway.count("connect_timeout"), 4);
}

/// Asks over `inbound` of a silent upstream, leaves by `leave`, and waits until nothing is dialled.
#[track_caller]
fn leave_while_dialling(
    gateway: &Gateway,
    fake: &FakeUpstream,
    inbound: Inbound,
    leave: fn(RawConnection),
) {
    let before = fake.requests().len();
    let mut wire = gateway.dial();
    if inbound == Inbound::Socks5 {
        wire.greet();
    }
    wire.send(client::request(inbound, target(inbound)));
    eventually("the dial is under way", PATIENCE, || fake.requests().len() == before + 1);
    leave(wire);
    let what = format!("the dial for {inbound:?} is cancelled");
    eventually(&what, bound(SECOND), || fake.open() == 0);
}

#[test]
fn u14_client_that_resets_while_dialling_cancels_the_dial() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Silent);
    let mut gateway = Gateway::chained(&fake);
    for inbound in Inbound::ALL {
        leave_while_dialling(&gateway, &fake, inbound, RawConnection::reset);
    }
    settled_with(&mut gateway, 5, "client_gone");
}

/// Not for HTTP forward: there FIN after a whole request is a client that still reads.
#[test]
fn u14_client_that_closes_while_dialling_cancels_the_dial() {
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Silent);
    let mut gateway = Gateway::chained(&fake);
    for inbound in Inbound::TUNNELS {
        leave_while_dialling(&gateway, &fake, inbound, drop);
    }
    settled_with(&mut gateway, 4, "client_gone");
}

#[test]
fn empty_pool_sends_greeting_and_request_in_one_segment() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.open(Inbound::Socks5, NAME);
    wire.send("x");
    wire.expect("x");
    assert!(fake.requests()[0].one_segment);
    drop(wire);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn pool_hands_out_greeted_connections_and_fills_up_again() {
    let origin = HttpOrigin::ok("pooled");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("upstream.pool", 3);
    });
    eventually("the pool is filled", PATIENCE, || fake.greetings() >= 3);
    let idle =
        || gateway.metrics().value("tailrace_upstream_pool_connections", &[("state", "idle")]);
    eventually("the pool says so", PATIENCE, || idle() == 3.0);
    assert_eq!(fetch(gateway.proxy(), Inbound::Socks5, NAME).body, b"pooled");
    let request = &fake.requests()[0];
    assert!(!request.one_segment, "the greeting was long done");
    eventually("the pool is full again", PATIENCE, || idle() == 3.0);
}

#[test]
fn pool_of_dead_connections_is_noticed() {
    let origin = HttpOrigin::ok("alive");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("upstream.pool", 4);
    });
    eventually("the pool is filled", PATIENCE, || fake.greetings() >= 4);
    fake.reset_all();
    for inbound in Inbound::NAMED {
        assert_eq!(fetch(gateway.proxy(), inbound, NAME).body, b"alive");
    }
}

#[test]
fn success_is_said_only_after_the_upstream_said_so() {
    let fake = FakeUpstream::start();
    let later = Box::new(UpstreamReply::Bytes(reply(0), AfterReply::Echo));
    fake.answer(UpstreamReply::Late(Duration::from_millis(300), later));
    let gateway = Gateway::chained(&fake);
    for inbound in Inbound::TUNNELS {
        let ((_, answer), took) = timed(|| ask(gateway.proxy(), inbound, target(inbound)));
        assert!(answer.is_ok() && took >= Duration::from_millis(300), "{answer:?} after {took:?}");
    }
}
