//! `[[forward]]`: listeners that stand for one target each, for clients that know no proxy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::json;
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{
    ClosedPort, ConnectionEnd, FakeUpstream, Gateway, Inbound, Origin, RawConnection, Setup,
    UpstreamReply, accepts,
};

/// Adds a static forward on a port the kernel picks.
fn forward(setup: &mut Setup, listen: &str, target: &str) {
    let mut table = toml::Table::new();
    table.insert("listen".into(), listen.into());
    table.insert("target".into(), target.into());
    setup.set("forward", vec![toml::Value::Table(table)]);
}

fn leading_to(
    fake: &FakeUpstream,
    target: &str,
    change: impl FnOnce(&mut Setup),
) -> (Gateway, SocketAddr) {
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address());
        forward(s, "127.0.0.1:0", target);
        change(s);
    });
    let listen = gateway.forward();
    (gateway, listen)
}

#[test]
fn it_carries_as_every_inbound_does_and_is_written_down_as_forward() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let (mut gateway, listen) = leading_to(&fake, "DB.corp.example:5432", |s| {
        s.enforce(&["corp.example"]);
    });
    let mut wire = RawConnection::dial(listen);
    wire.send("hello");
    wire.expect("hello");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    let line = &gateway.wait_for_access(1)[0];
    let of = |names: &[&str]| names.iter().map(|name| line[*name].clone()).collect::<Vec<_>>();
    assert_eq!(
        of(&["inbound", "host", "port", "host_from", "outcome", "bytes_up", "bytes_down"]),
        [
            json!("forward"),
            json!("db.corp.example"),
            json!(5432),
            json!("client"),
            json!("fin_fin"),
            json!(5),
            json!(5)
        ]
    );
    assert_eq!(line["policy"]["verdict"], "allow");
    let metrics = gateway.metrics();
    let labels = [("inbound", "forward"), ("outcome", "fin_fin")];
    assert_eq!(metrics.value("tailrace_connections_total", &labels), 1.0);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn the_far_side_may_speak_first_and_end_first() {
    let origin = Origin::send("server first");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let (_gateway, listen) = leading_to(&fake, "db.corp.example:25", |_| {});
    let mut wire = RawConnection::dial(listen);
    wire.expect("server first");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
}

#[test]
fn the_target_is_looked_for_anew_each_time() {
    let (first, second) = (Origin::send("first"), Origin::send("second"));
    let fake = FakeUpstream::with("db.corp.example", first.address());
    let (mut gateway, listen) = leading_to(&fake, "db.corp.example:5432", |_| {});
    RawConnection::dial(listen).expect("first");
    fake.map("db.corp.example", second.address());
    RawConnection::dial(listen).expect("second");
    gateway.settle_with(&fake, 2, 2);
}

#[test]
fn whatever_fails_is_a_reset() {
    let fake = FakeUpstream::start();
    let (mut gateway, listen) = leading_to(&fake, "db.elsewhere.example:5432", |s| {
        s.enforce(&["corp.example"]);
    });
    RawConnection::assert_reset(listen);
    assert_eq!(gateway.outcome(1), "denied");
    gateway.settle_with(&fake, 1, 0);

    let (mut gateway, listen) = leading_to(&fake, "db.corp.example:5432", |_| {});
    fake.answer(UpstreamReply::Rep(5));
    RawConnection::assert_reset(listen);
    assert_eq!(gateway.outcome(1), "refused");
    gateway.settle_and_check(1);

    let gone = ClosedPort::new();
    let gateway = Gateway::start(|s| {
        s.upstream(gone.address());
        forward(s, "127.0.0.1:0", "db.corp.example:5432");
    });
    RawConnection::assert_reset(gateway.forward());
    assert_eq!(gateway.outcome(1), "upstream_down");
}

#[test]
fn log_mode_carries_and_says_would_deny() {
    let origin = Origin::send("carried");
    let fake = FakeUpstream::with("db.elsewhere.example", origin.address());
    let (gateway, listen) = leading_to(&fake, "db.elsewhere.example:5432", |s| {
        s.set("policy.allowed_host_suffixes", vec!["corp.example"]);
    });
    RawConnection::dial(listen).expect("carried");
    assert_eq!(gateway.wait_for_access(1)[0]["policy"]["verdict"], "would_deny");
}

#[test]
fn b14_a_forward_s_listener_is_our_own() {
    let fake = FakeUpstream::start();
    let (gateway, listen) = leading_to(&fake, "db.corp.example:5432", |s| {
        s.allow_loopback();
    });
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
        let target = format!("{host}:{}", listen.port());
        gateway.assert_refused(Inbound::Connect, &target, "loop");
    }
    let address = ClosedPort::new().address();
    let itself = address.to_string();
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).allow_loopback();
        forward(s, &itself, &itself);
    });
    RawConnection::assert_reset(address);
    assert_eq!(gateway.wait_for_access(1)[0]["outcome"], "loop");
    assert_eq!(fake.requests().len(), 0);
}

#[test]
fn it_is_shown_where_listeners_are_shown() {
    let fake = FakeUpstream::start();
    let (mut gateway, listen) = leading_to(&fake, "db.corp.example:5432", |_| {});
    let row = json!([{"listen": listen.to_string(), "target": "db.corp.example:5432"}]);
    assert_eq!(gateway.admin_get("/api/v1/status").json()["listeners"]["forward"], row);
    let file = gateway.setup().write();
    let status = gateway.setup().run(&["status", "--config", file.to_str().unwrap()]);
    let shown = String::from_utf8(status.stdout).unwrap();
    let line = shown.lines().find(|line| line.starts_with("listeners.forward"));
    let line = line.unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains(&listen.to_string()) && line.contains("db.corp.example:5432"), "{line}");
    let logged = gateway.wait_for_log(|line| line["listener"] == "forward");
    assert_eq!(logged["address"], listen.to_string());
    assert_eq!(logged["target"], "db.corp.example:5432");
}

#[test]
fn f6_a_taken_port_is_named_with_its_place_and_nothing_stays_bound() {
    let (taken, free) = (Origin::echo(), ClosedPort::new().address());
    let mut setup = Setup::new();
    setup.direct().set("listen.proxy", vec![free.to_string()]);
    forward(&mut setup, &taken.address().to_string(), "db.corp.example:5432");
    let output = setup.fail();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let place = format!("config: {}:", setup.config().display());
    assert!(said.contains(&place) && said.contains("already in use by process"), "{said}");
    assert!(!accepts(free));
}

#[test]
fn s2_it_closes_with_the_others_and_what_it_carries_finishes() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let (mut gateway, listen) = leading_to(&fake, "db.corp.example:5432", |_| {});
    let mut wire = RawConnection::dial(listen);
    wire.send("a");
    wire.expect("a");
    gateway.signal(Signal::TERM);
    eventually("the port is free", PATIENCE, || !accepts(listen));
    wire.send("b");
    wire.expect("b");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
}
