//! Chapter B, case 28: redirected connections, each in a network namespace of its own and judged by
//! what the client gets and by how often the gateway accepted. `tests/nft.rs` does it with the rules
//! that `tailrace nft` prints.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tailrace_rig::wait::{PATIENCE, eventually, pause};
use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, HalfClose, HttpOrigin, Inbound, Origin, RawConnection,
    Setup, fetch, netns,
};

const NET: &str = "203.0.113.0/24";
const TARGET: &str = "203.0.113.9:8080";
const NET6: &str = "2001:db8:9::/48";
const TARGET6: &str = "[2001:db8:9::9]:8080";

/// A gateway chained into `fake`, allowed `net`, which is redirected to it.
fn redirected(fake: &FakeUpstream, net: &str, change: impl FnOnce(&mut Setup)) -> Gateway {
    netns::add_route(net);
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address())
            .set("policy.mode", "enforce")
            .set("policy.allowed_nets", vec![net]);
        change(s);
    });
    netns::redirect(net, gateway.proxy().port());
    gateway
}

#[track_caller]
fn echoes(mut wire: RawConnection) {
    wire.send("hello");
    wire.expect("hello");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
}

#[test]
fn b28_ipv4_redirect_leads_to_the_original_destination() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, NET, |_| ());
        echoes(RawConnection::dial(TARGET.parse().unwrap()));
        gateway.settle_with(&fake, 1, 1);
        let request = &fake.requests()[0];
        assert_eq!((request.host.as_str(), request.port, request.atyp), ("203.0.113.9", 8080, 1));
        let line = &gateway.access_lines()[0];
        assert_eq!(
            (&line["inbound"], &line["outcome"]),
            (&"transparent".into(), &"fin_fin".into())
        );
        assert_eq!(
            gateway.metrics().value("tailrace_connections_total", &[("inbound", "transparent")]),
            1.0
        );
    });
}

#[test]
fn b28_ipv4_redirect_to_a_dual_stack_socket() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, NET, |s| {
            s.set("listen.proxy", vec!["[::]:0"]).set("listen.allow_remote", true);
        });
        echoes(RawConnection::dial(TARGET.parse().unwrap()));
        gateway.settle_with(&fake, 1, 1);
        assert_eq!(gateway.access_lines()[0]["inbound"], "transparent");
    });
}

#[test]
fn b28_ipv6_redirect_leads_to_the_original_destination() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = FakeUpstream::with("2001:db8:9::9", origin.address());
        let mut gateway = redirected(&fake, NET6, |s| {
            s.set("listen.proxy", vec!["[::1]:0"]);
        });
        echoes(RawConnection::dial(TARGET6.parse().unwrap()));
        gateway.settle_with(&fake, 1, 1);
        let request = &fake.requests()[0];
        assert_eq!((request.host.as_str(), request.port, request.atyp), ("2001:db8:9::9", 8080, 4));
        let line = &gateway.access_lines()[0];
        assert_eq!(
            (&line["inbound"], &line["outcome"]),
            (&"transparent".into(), &"fin_fin".into())
        );
    });
}

#[test]
fn b28_ipv6_redirect_to_a_gateway_on_ipv4_alone_is_refused() {
    netns::inside(|| {
        // Somebody is there: a connection that passed by would be answered.
        netns::add_address("2001:db8:9::9/128");
        let there = Origin::on(TARGET6.parse().unwrap(), |_| ());
        let fake = FakeUpstream::start();
        let mut gateway = redirected(&fake, NET6, |s| {
            s.set("listen.proxy", vec!["127.0.0.1:0"]);
        });
        let error = std::net::TcpStream::connect(TARGET6).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        gateway.settle_with(&fake, 0, 0);
        assert_eq!(there.visits().len(), 0);
    });
}

/// A connection from that very address and port, which others may have too.
fn dial_from(from: SocketAddr, to: &str) -> RawConnection {
    use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, socket, sockopt};
    let to: SocketAddr = to.parse().unwrap();
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let client = socket(family, SocketType::STREAM, Some(ipproto::TCP)).unwrap();
    sockopt::set_socket_reuseaddr(&client, true).unwrap();
    bind(&client, &from).unwrap();
    connect(&client, &to).unwrap();
    let wire = RawConnection::new(TcpStream::from(client));
    assert_eq!(wire.local(), from);
    wire
}

/// Three hosts, and where clients of theirs dial from.
const CLASHING: [(&str, [&str; 3], &str); 2] = [
    (NET, ["203.0.113.9", "203.0.113.10", "203.0.113.11"], "10.99.0.1:40000"),
    (NET6, ["2001:db8:9::9", "2001:db8:9::10", "2001:db8:9::11"], "[fd99::1]:40000"),
];

/// A gateway that holds a client's FIN back, as behind an old tailscaled.
fn deferring(fake: &FakeUpstream, net: &str) -> Gateway {
    redirected(fake, net, |s| {
        s.set("listen.proxy", vec!["127.0.0.1:1055", "[::1]:1055"]);
        s.set("upstream.half_close", "defer");
    })
}

/// The access lines of clients that came from another port than theirs.
fn changed(gateway: &Gateway, from: SocketAddr) -> Vec<serde_json::Value> {
    let mut lines = gateway.access_lines();
    lines.retain(|line| line["client"] != from.to_string());
    lines
}

/// Two connections from one address and port to two hosts come to the same port of the gateway, so that
/// conntrack has to change the second one's.
#[test]
fn b28_a_client_whose_port_conntrack_changed_is_seen_to_leave() {
    netns::inside(|| {
        for (net, hosts, from) in CLASHING {
            let from: SocketAddr = from.parse().unwrap();
            let (near, far) = (Origin::echo(), Origin::echo());
            let fake = FakeUpstream::with(hosts[0], near.address());
            fake.map(hosts[1], far.address());
            let mut gateway = deferring(&fake, net);
            let targets =
                hosts.map(|host| SocketAddr::new(host.parse().unwrap(), 8080).to_string());
            let mut first = dial_from(from, &targets[0]);
            let mut second = dial_from(from, &targets[1]);
            for wire in [&mut first, &mut second] {
                wire.send("hello");
                wire.expect("hello");
            }
            drop(second);
            eventually("its FIN is passed on", PATIENCE, || {
                far.visits().first().is_some_and(|visit| visit.end == Some(ConnectionEnd::Fin))
            });
            first.send("still here");
            first.expect("still here");
            drop(first);
            gateway.settle_with(&fake, 2, 2);
            let changed = changed(&gateway, from);
            assert_eq!(changed.len(), 1, "{changed:?}");
            assert!(changed[0]["process"].is_null(), "nobody is guessed: {}", changed[0]);
            let family = if from.is_ipv4() { "ip" } else { "ip6" };
            netns::nft(&format!("delete table {family} tailrace_test"));
        }
    });
}

/// The same, and it has only said that it sends no more: others to the same host have left.
#[test]
fn b28_a_client_whose_port_conntrack_changed_may_wait_for_its_answer() {
    netns::inside(|| {
        let (net, hosts, from) = CLASHING[0];
        let from: SocketAddr = from.parse().unwrap();
        let answers = tailrace_rig::Latch::new();
        let (near, gate) = (Origin::echo(), answers.clone());
        let far = Origin::start(move |guest| {
            let mut word = [0; 4];
            guest.stream.read_exact(&mut word).unwrap();
            if word == *b"GET\n" {
                gate.wait();
                guest.send(b"the answer");
                guest.fin();
            }
            guest.read_to_end();
        });
        let fake = FakeUpstream::with(hosts[0], near.address());
        fake.map(hosts[1], far.address());
        fake.half_close(HalfClose::Kill);
        let mut gateway = deferring(&fake, net);
        let far_target = format!("{}:8080", hosts[1]);
        let first = dial_from(from, &format!("{}:8080", hosts[0]));
        let mut waiting = dial_from(from, &far_target);
        waiting.send("GET\n");
        waiting.fin();
        let mut left = RawConnection::dial(far_target.parse().unwrap());
        left.send("BYE\n");
        drop(left);
        eventually("the one that left is passed on", PATIENCE, || {
            far.visits().iter().any(|visit| visit.end == Some(ConnectionEnd::Fin))
        });
        // The gateway looks after a client whose FIN it holds every second.
        pause(Duration::from_millis(2_500));
        answers.open();
        waiting.expect("the answer");
        waiting.expect_end(ConnectionEnd::Fin);
        drop(first);
        gateway.settle_with(&fake, 3, 3);
    });
}

/// A gateway with a listener for TPROXY, which leads `net` there.
fn intercepting(fake: &FakeUpstream, net: &str, listen: &str) -> (Gateway, SocketAddr) {
    netns::add_route(net);
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address())
            .set("listen.tproxy", vec![listen])
            .set("policy.mode", "enforce")
            .set("policy.allowed_nets", vec![net]);
    });
    let tproxy = gateway.status()["listeners"]["tproxy"][0].as_str().unwrap().parse().unwrap();
    netns::tproxy(net, tproxy);
    (gateway, tproxy)
}

#[test]
fn b28_tproxy_leads_to_the_address_it_came_in_on() {
    netns::inside(|| {
        for (net, target, host, listen, atyp) in [
            (NET, TARGET, "203.0.113.9", "127.0.0.1:0", 1),
            (NET6, TARGET6, "2001:db8:9::9", "[::1]:0", 4),
        ] {
            let origin = Origin::echo();
            let fake = FakeUpstream::with(host, origin.address());
            let (mut gateway, _) = intercepting(&fake, net, listen);
            let wire = RawConnection::dial(target.parse().unwrap());
            assert_eq!(wire.tcp().peer_addr().unwrap().to_string(), target);
            echoes(wire);
            gateway.settle_with(&fake, 1, 1);
            let request = &fake.requests()[0];
            assert_eq!((request.host.as_str(), request.port, request.atyp), (host, 8080, atyp));
            assert_eq!(gateway.access_lines()[0]["inbound"], "transparent");
        }
    });
}

#[test]
fn b28_tproxy_obeys_the_policy_and_serves_who_dials_it() {
    netns::inside(|| {
        let origin = HttpOrigin::ok("direct");
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let (mut gateway, tproxy) = intercepting(&fake, NET, "127.0.0.1:0");
        assert_eq!(fetch(tproxy, Inbound::Socks5, TARGET).body, b"direct");
        gateway.settle_with(&fake, 1, 1);
        // The listener is ours: asked for through the proxy port it is a loop.
        gateway.assert_refused(Inbound::Connect, &tproxy.to_string(), "loop");
        gateway.settle_with(&fake, 2, 1);
        gateway.setup().set("policy.allowed_nets", vec!["198.51.100.0/24"]);
        gateway.reload();
        eventually("the new policy", PATIENCE, || gateway.log().contains("settings read again"));
        RawConnection::assert_reset(TARGET.parse().unwrap());
        gateway.settle_with(&fake, 3, 1);
        assert_eq!(gateway.access_lines()[2]["outcome"], "denied");
    });
}

/// The block of docs/transparent.md that begins so.
fn documented(start: &str) -> String {
    let page = include_str!("../docs/transparent.md");
    let from = page.find(start).unwrap_or_else(|| panic!("no {start:?} in docs/transparent.md"));
    page[from..].split("\n```").next().unwrap().to_owned() + "\n"
}

#[test]
fn b28_tproxy_by_the_rules_of_the_documentation() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        fake.map("2001:db8:9::9", origin.address());
        netns::add_route(NET);
        netns::add_route(NET6);
        let mut gateway = Gateway::start(|s| {
            s.upstream(fake.address())
                .set("listen.tproxy", vec!["127.0.0.1:1056", "[::1]:1056"])
                .set("policy.mode", "enforce")
                .set("policy.allowed_nets", vec![NET, NET6]);
        });
        // All here is one user's, whom the rules are not to exempt.
        netns::nft(&documented("table inet tailrace_tproxy").replace("skuid 990", "skuid 12345"));
        let routes = documented("ip rule add fwmark 1");
        netns::must("sh", &["-ec", &routes]);
        echoes(RawConnection::dial(TARGET.parse().unwrap()));
        echoes(RawConnection::dial(TARGET6.parse().unwrap()));
        gateway.settle_with(&fake, 2, 2);
        netns::nft("delete table inet tailrace_tproxy");
        netns::must("sh", &["-ec", &routes.replace(" add ", " del ")]);
        assert_eq!(netns::ruleset(), "");
    });
}

/// A gateway without capabilities, even as root.
const POWERLESS: &str = r#"[ -n "$POWERLESS" ] || { export POWERLESS=1; exec setpriv --bounding-set=-net_admin,-net_raw --inh-caps=-net_admin,-net_raw -- "$0" "$@"; }"#;

#[test]
fn b28_without_the_capability_tproxy_and_marks_are_refused_by_name() {
    for (key, value) in [
        ("listen.tproxy", toml::Value::from(vec!["127.0.0.1:0"])),
        ("upstream.mark", toml::Value::from(77)),
    ] {
        let mut setup = Setup::new();
        setup.direct().set(key, value);
        if rustix::process::geteuid().is_root() {
            setup.prelude(POWERLESS);
        }
        let failed = setup.fail();
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert_eq!(failed.status.code(), Some(78), "{said}");
        assert!(said.contains(key) && said.contains("CAP_NET_ADMIN"), "{said}");
    }
}

#[test]
fn b28_direct_connections_are_told_apart_with_a_nat_table() {
    netns::inside(|| {
        let origin = HttpOrigin::ok("direct");
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, NET, |_| ());
        for inbound in Inbound::ALL {
            assert_eq!(fetch(gateway.proxy(), inbound, TARGET).body, b"direct", "{inbound:?}");
        }
        gateway.settle_with(&fake, 5, 5);
        let metrics = gateway.metrics();
        let of = |inbound| metrics.value("tailrace_connections_total", &[("inbound", inbound)]);
        assert_eq!(
            ["socks4", "socks5", "connect", "http", "transparent"].map(of),
            [2.0, 1.0, 1.0, 1.0, 0.0]
        );
    });
}

#[test]
fn b28_direct_connections_without_a_nat_table() {
    netns::inside(|| {
        let origin = HttpOrigin::ok("direct");
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let gateway = Gateway::chained(&fake);
        for inbound in Inbound::ALL {
            assert_eq!(fetch(gateway.proxy(), inbound, TARGET).body, b"direct", "{inbound:?}");
        }
    });
}

#[test]
fn b28_a_denied_destination_is_reset_and_never_dialled() {
    netns::inside(|| {
        let fake = FakeUpstream::start();
        let mut gateway = redirected(&fake, NET, |s| {
            s.set("policy.allowed_nets", vec!["198.51.100.0/24"]);
        });
        RawConnection::assert_reset(TARGET.parse().unwrap());
        gateway.settle_with(&fake, 1, 0);
        assert_eq!(gateway.access_lines()[0]["outcome"], "denied");
    });
}

#[test]
fn b28_server_that_speaks_first_is_waited_for() {
    netns::inside(|| {
        let origin = Origin::send("220 ready\r\n");
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, NET, |_| ());
        let mut wire = RawConnection::dial(TARGET.parse().unwrap());
        wire.expect("220 ready\r\n");
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
        gateway.settle_with(&fake, 1, 1);
    });
}

#[test]
fn b28_own_dials_are_exempt_by_mark() {
    netns::inside(|| {
        netns::add_address("203.0.113.9/32");
        let origin = Origin::echo_on(TARGET.parse().unwrap());
        let mut gateway = Gateway::start(|s| {
            s.direct().set("upstream.mark", 77).set("policy.allowed_nets", vec![NET]);
        });
        netns::nft(&format!(
            "table ip t {{\n chain out {{\n type nat hook output priority -100\n meta mark 77 return\n \
             ip daddr {NET} tcp dport 1-65535 redirect to :{}\n }}\n}}\n",
            gateway.proxy().port()
        ));
        echoes(RawConnection::dial(TARGET.parse().unwrap()));
        gateway.settle_and_check(1);
        eventually("one visit", PATIENCE, || origin.visits().len() == 1);
    });
}

#[test]
fn b28_own_address_as_original_destination_is_no_redirect() {
    netns::inside(|| {
        let fake = FakeUpstream::start();
        let mut gateway = redirected(&fake, NET, |_| ());
        let mut wire = gateway.dial();
        wire.send("GET / HTTP/1.1\r\nHost: db.corp.example\r\n\r\n");
        assert_eq!(wire.read_answer().status(), 400);
        gateway.settle_with(&fake, 1, 0);
    });
}
