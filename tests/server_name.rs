//! Chapter B, case 17: the server name that TLS asks for inside an allowed tunnel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "hellos/say.rs"]
mod hellos;
use std::time::{Duration, Instant};

use hellos::{captured, hello_for, in_records, padded};
use serde_json::Value;
use tailrace_rig::wait::{PATIENCE, eventually, pause};
use tailrace_rig::{ConnectionEnd, FakeUpstream, Gateway, Inbound, Origin, RawConnection, Setup};

const TARGET: &str = "db.corp.example:443";
const INSPECTION_TIME: Duration = Duration::from_secs(3);

struct Lab {
    origin: Origin,
    fake: FakeUpstream,
    gateway: Gateway,
}

impl Lab {
    fn new(mode: &str, change: impl FnOnce(&mut Setup)) -> Lab {
        let origin = Origin::echo();
        let fake = FakeUpstream::with("db.corp.example", origin.address());
        let gateway = Gateway::start(|s| {
            s.upstream(fake.address())
                .set("policy.mode", mode)
                .set("policy.allowed_host_suffixes", vec!["corp.example"]);
            change(s);
        });
        Lab { origin, fake, gateway }
    }

    /// The tunnel carries `bytes`, sent in these parts.
    #[track_caller]
    fn passes(&self, inbound: Inbound, parts: &[&[u8]]) {
        let mut wire = self.gateway.open(inbound, TARGET);
        for part in parts {
            wire.send(part);
        }
        wire.expect(parts.concat());
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
    }

    /// The tunnel ends by a reset, and the origin has got no byte and a reset.
    #[track_caller]
    fn resets(&self, inbound: Inbound, parts: &[&[u8]]) {
        let before = self.origin.visits().len();
        let mut wire = self.gateway.open(inbound, TARGET);
        for part in parts {
            // The gateway may have seen enough before the last part.
            let _ = wire.try_send(part);
        }
        wire.expect_end(ConnectionEnd::Reset);
        eventually("the origin's visit has ended", PATIENCE, || {
            self.origin.visits().get(before).is_some_and(|visit| visit.end.is_some())
        });
        let visit = self.origin.visits().remove(before);
        assert_eq!((visit.total, visit.end), (0, Some(ConnectionEnd::Reset)));
    }

    fn lines(&self, count: usize) -> Vec<Value> {
        self.gateway.wait_for_access(count)
    }

    fn decisions(&self, verdict: &str) -> f64 {
        let labels = [("verdict", verdict)];
        self.gateway.metrics().value("tailrace_policy_decisions_total", &labels)
    }
}

fn verdict(line: &Value) -> (&str, &str) {
    (line["outcome"].as_str().unwrap(), line["policy"]["verdict"].as_str().unwrap())
}

#[test]
fn b17_a_name_outside_policy_ends_the_tunnel() {
    let mut lab = Lab::new("enforce", |_| ());
    for inbound in Inbound::NAMED_TUNNELS {
        lab.resets(inbound, &[&hello_for("evil.example")]);
        lab.passes(inbound, &[&hello_for("db.corp.example")]);
        lab.passes(inbound, &[&hello_for("other.corp.example")]);
    }
    lab.gateway.settle_with(&lab.fake, 9, 9);
    let lines = lab.lines(9);
    for line in lines.iter().step_by(3) {
        assert_eq!(verdict(line), ("sni_mismatch", "deny"), "{line}");
        let (host, from, up) = (&line["host"], &line["host_from"], &line["bytes_up"]);
        assert_eq!((host, from, up), (&"db.corp.example".into(), &"client".into(), &0.into()));
        let rule = line["policy"]["rule"].as_str().unwrap();
        assert_eq!(rule, "server name evil.example: no allowed suffix or glob");
    }
    assert!(lines.iter().filter(|line| verdict(line) == ("fin_fin", "allow")).count() == 6);
    assert_eq!((lab.decisions("deny"), lab.decisions("allow")), (3.0, 9.0));
}

#[test]
fn b17_early_bytes_are_looked_at_before_anything_is_dialled() {
    let mut lab = Lab::new("enforce", |_| ());
    let ask = format!("CONNECT {TARGET} HTTP/1.1\r\n\r\n");
    let mut wire = lab.gateway.dial();
    wire.send([ask.as_bytes(), &hello_for("evil.example")].concat());
    wire.expect_end(ConnectionEnd::Reset);
    let mut wire = lab.gateway.dial();
    let hello = hello_for("db.corp.example");
    let (first, rest) = hello.split_at(100);
    wire.send([ask.as_bytes(), first].concat());
    assert_eq!(wire.read_head().status(), 200);
    wire.expect_silence(Duration::from_millis(50));
    wire.send(rest);
    wire.expect(&hello);
    drop(wire);
    lab.gateway.settle_with(&lab.fake, 2, 1);
    assert_eq!(verdict(&lab.lines(2)[0]), ("sni_mismatch", "deny"));
}

#[test]
fn b17_a_hello_in_pieces_is_put_together() {
    let mut lab = Lab::new("enforce", |_| ());
    let (good, evil) = (hello_for("db.corp.example"), hello_for("evil.example"));
    let mut targets = 0;
    for at in (1..good.len()).step_by(7) {
        let (first, rest) = good.split_at(at);
        lab.passes(Inbound::Connect, &[first, rest]);
        let (first, rest) = evil.split_at(at.min(evil.len() - 1));
        lab.resets(Inbound::Connect, &[first, rest]);
        targets += 2;
    }
    for size in [1, 2, 100] {
        lab.passes(Inbound::Socks5, &[&in_records(&good, size)]);
        lab.resets(Inbound::Socks5, &[&in_records(&evil, size)]);
        targets += 2;
    }
    lab.gateway.settle_and_check(targets);
}

#[test]
fn b17_real_programs_pass() {
    let mut lab = Lab::new("enforce", |_| ());
    let hellos = captured();
    for (_, hello) in &hellos {
        lab.passes(Inbound::Connect, &[hello]);
        let bytes: Vec<&[u8]> = hello.chunks(97).collect();
        lab.passes(Inbound::Socks5, &bytes);
    }
    lab.gateway.settle_and_check(2 * hellos.len() as u64);
}

#[test]
fn b17_without_a_server_name() {
    let nameless = captured().into_iter().find(|(name, _)| name == "openssl-no-name").unwrap().1;
    let mut lab = Lab::new("enforce", |_| ());
    lab.passes(Inbound::Connect, &[&nameless]);
    lab.gateway.settle_and_check(1);
    let mut lab = Lab::new("enforce", |s| {
        s.set("policy.require_sni", true);
    });
    lab.resets(Inbound::Connect, &[&nameless]);
    lab.resets(Inbound::Socks5, &[&[0x80, 34, 1, 3, 1, 0, 9, 0, 0, 0, 16], &[7; 25]]);
    lab.passes(Inbound::Connect, &[b"SSH-2.0-client\r\n"]);
    lab.passes(Inbound::Connect, &[b"\x00\x00\x00\x08\x04\xd2\x16\x2f"]);
    lab.passes(Inbound::Connect, &[&hello_for("db.corp.example")]);
    lab.gateway.settle_and_check(5);
    let lines = lab.lines(5);
    assert_eq!(verdict(&lines[0]), ("sni_mismatch", "deny"));
    assert_eq!(lines[0]["policy"]["rule"], "require_sni: TLS without a server name");
    assert_eq!(verdict(&lines[1]).0, "sni_mismatch");
}

#[test]
fn b17_log_mode_says_would_deny_and_passes() {
    let nameless = captured().into_iter().find(|(name, _)| name == "openssl-no-name").unwrap().1;
    let mut lab = Lab::new("log", |s| {
        s.set("policy.require_sni", true);
    });
    lab.passes(Inbound::Connect, &[&hello_for("evil.example")]);
    lab.passes(Inbound::Socks5, &[&nameless]);
    lab.passes(Inbound::Socks4a, &[&hello_for("db.corp.example")]);
    lab.gateway.settle_with(&lab.fake, 3, 3);
    let lines = lab.lines(3);
    assert_eq!(verdict(&lines[0]), ("fin_fin", "would_deny"));
    assert_eq!(verdict(&lines[1]), ("fin_fin", "would_deny"));
    assert_eq!(verdict(&lines[2]), ("fin_fin", "allow"));
    assert_eq!(lab.decisions("would_deny"), 2.0);
}

#[test]
fn b17_off_does_not_look() {
    let mut lab = Lab::new("off", |s| {
        s.set("policy.require_sni", true);
    });
    let evil = hello_for("evil.example");
    let (first, rest) = evil.split_at(50);
    let mut wire = lab.gateway.open(Inbound::Connect, TARGET);
    wire.send(first);
    wire.expect(first);
    wire.send(rest);
    wire.expect(rest);
    drop(wire);
    lab.gateway.settle_and_check(1);
}

#[test]
fn b17_three_seconds_and_16_kib() {
    let mut lab = Lab::new("enforce", |_| ());
    lab.passes(Inbound::Connect, &[&padded("db.corp.example", 16 * 1024)]);
    lab.resets(Inbound::Connect, &[&padded("db.corp.example", 16 * 1024 + 1)]);
    let began = Instant::now();
    lab.resets(Inbound::Connect, &[&hello_for("db.corp.example")[..60]]);
    assert!((INSPECTION_TIME.mul_f64(0.9)..INSPECTION_TIME * 2).contains(&began.elapsed()));
    // One that ends before it is whole is no ClientHello that anybody could answer.
    let mut wire = lab.gateway.open(Inbound::Connect, TARGET);
    wire.send([0x16]);
    wire.fin();
    wire.expect_end(ConnectionEnd::Reset);
    lab.gateway.settle_and_check(4);
    for line in &lab.lines(4)[1..] {
        assert_eq!(verdict(line), ("sni_mismatch", "deny"));
    }
}

#[test]
fn b17_a_server_that_speaks_first_is_not_held_up() {
    let origin = Origin::start(|guest| {
        guest.send(b"220 ready\r\n");
        guest.read_to_end();
        guest.fin();
    });
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]).set("policy.require_sni", true);
    });
    let mut wire = gateway.open(Inbound::Socks5, TARGET);
    wire.expect("220 ready\r\n");
    pause(INSPECTION_TIME + Duration::from_millis(300)); // no clock runs before the first byte
    wire.send("EHLO me\r\n");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    assert_eq!(origin.only_visit().received, b"EHLO me\r\n");
    gateway.settle_and_check(1);
}

#[test]
fn b17_static_forwards_too() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::start(|s| {
        let forward = toml::toml! { listen = "127.0.0.1:0" target = "db.corp.example:443" };
        s.upstream(fake.address())
            .enforce(&["corp.example"])
            .set("forward", vec![toml::Value::Table(forward)]);
    });
    let listen = gateway.forward();
    let mut wire = RawConnection::dial(listen);
    wire.send(hello_for("evil.example"));
    wire.expect_end(ConnectionEnd::Reset);
    let mut wire = RawConnection::dial(listen);
    wire.send(hello_for("db.corp.example"));
    wire.expect(hello_for("db.corp.example"));
    drop(wire);
    gateway.settle_and_check(2);
    assert_eq!(gateway.access_lines()[0]["outcome"], "sni_mismatch");
}
