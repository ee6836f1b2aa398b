//! Chapter B: policy bypass. Every disguise is judged as what it is, and refused before a byte
//! reaches the upstream. What a redirected connection may do is in `transparent.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "policy_bypass/hosts.rs"]
mod hosts;

use std::time::Duration;

use tailrace_rig::client::{self, socks4_request, socks4a_request, socks5_named};
use tailrace_rig::system_nameserver::Record;
use tailrace_rig::wait::{PATIENCE, bound, eventually, timed};
use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, HttpOrigin, Inbound, Origin, Setup, SystemNameserver,
    ask, ask_raw, assert_http_refused, assert_raw_refused, assert_says, fetch, netns,
};

const MODES: [&str; 3] = ["off", "log", "enforce"];

/// Chained into `fake`, only corp.example allowed.
fn enforcing(fake: &FakeUpstream) -> Gateway {
    Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    })
}

/// The suffix corp.example in `mode`, and what the caller adds.
fn in_mode(fake: &FakeUpstream, mode: &str, change: impl FnOnce(&mut Setup)) -> Gateway {
    Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]).set("policy.mode", mode);
        change(s);
    })
}

/// Every host gets the refusal of `outcome` over every inbound that takes names, and the upstream
/// never hears of it.
#[track_caller]
fn all_refused(hosts: &[&str], outcome: &str) {
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    for host in hosts {
        for inbound in Inbound::NAMED {
            gateway.assert_refused(inbound, &format!("{host}:80"), outcome);
        }
    }
    gateway.settle_with(&fake, (hosts.len() * Inbound::NAMED.len()) as u64, 0);
    assert!(gateway.access_lines().iter().all(|l| l["outcome"] == outcome));
}

/// Raw HTTP requests get the refusal of `outcome`.
#[track_caller]
fn all_http_refused(requests: &[&str], outcome: &str) {
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    for request in requests {
        assert_http_refused(gateway.proxy(), request.as_bytes(), outcome);
    }
    gateway.settle_with(&fake, requests.len() as u64, 0);
}

#[test]
fn b0_allowed_control_passes_in_all_five_protocols() {
    let origin = HttpOrigin::ok("allowed");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    fake.map("192.0.2.7", origin.address());
    let mut gateway = in_mode(&fake, "enforce", |s| {
        s.set("policy.allowed_nets", vec!["192.0.2.0/24"]);
    });
    for inbound in Inbound::ALL {
        let target = if inbound == Inbound::Socks4 { "192.0.2.7:80" } else { "db.corp.example:80" };
        assert_eq!(fetch(gateway.proxy(), inbound, target).body, b"allowed", "{inbound:?}");
    }
    gateway.settle_with(&fake, 5, 5);
    let lines = gateway.access_lines();
    assert!(lines.iter().all(|l| l["policy"]["verdict"] == "allow"), "{lines:?}");
    // A tunnel's line comes when it has ended, so the order is not that of the requests.
    let mut inbounds: Vec<_> = lines.iter().map(|l| l["inbound"].as_str().unwrap()).collect();
    inbounds.sort_unstable();
    assert_eq!(inbounds, ["connect", "http", "socks4", "socks4", "socks5"]);
}

/// One address of every default deny net, and of each form of IPv6 that carries IPv4 (B9, E11); v6 in brackets.
const DENIED: [&str; 22] = [
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "[::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[fd20:ce::254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[::ffff:0:169.254.169.254]",
    "[2001:0:c000:201::5601:5601]",
    "[2001:db8::5efe:169.254.169.254]",
    "[fd7a:115c:a1e0:b1a::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[ff02::1]",
];

#[test]
fn b13_deny_nets_hold_in_every_mode() {
    for mode in MODES {
        let fake = FakeUpstream::start();
        let mut gateway = in_mode(&fake, mode, |s| {
            s.set("policy.allowed_nets", vec!["0.0.0.0/0", "::/0"]);
        });
        let mut asked = 0;
        for host in DENIED {
            let v6 = host.starts_with('[');
            for inbound in Inbound::ALL
                .into_iter()
                .filter(|i| !v6 || *i != Inbound::Socks4 && *i != Inbound::Socks4a)
            {
                // SOCKS4 has no 0.0.0.x: that is SOCKS4a's mark, but 0.1.2.3 is a plain address.
                gateway.assert_refused(inbound, &format!("{host}:7"), "denied");
                asked += 1;
            }
        }
        gateway.settle_with(&fake, asked, 0);
    }
}

#[test]
fn b13_a_name_that_leads_to_a_denied_net_is_denied() {
    for mode in MODES {
        let origin = Origin::echo();
        let mut gateway = Gateway::start(|s| {
            s.direct().enforce(&["localhost"]).set("policy.mode", mode).unset("policy.deny_nets");
        });
        let target = format!("localhost:{}", origin.address().port());
        for inbound in Inbound::NAMED {
            gateway.assert_refused(inbound, &target, "denied");
        }
        gateway.settle_and_check(4);
        assert!(origin.visits().is_empty());
    }
}

/// The IPv4 addresses of this host beyond loopback.
fn interface_addresses() -> Vec<std::net::IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap();
    all.iter().map(if_addrs::Interface::ip).filter(|ip| ip.is_ipv4() && !ip.is_loopback()).collect()
}

#[test]
fn b14_targets_that_are_this_gateway_are_loops_in_every_mode_and_kind() {
    for mode in MODES {
        let fake = FakeUpstream::start();
        let open = |s: &mut Setup| {
            s.allow_loopback().set("policy.allowed_nets", vec!["0.0.0.0/0", "::/0"]);
        };
        loops(in_mode(&fake, mode, open), Some(&fake));
        loops(
            Gateway::start(|s| {
                s.direct().enforce(&["corp.example"]).set("policy.mode", mode);
                open(s);
            }),
            None,
        );
    }
}

#[track_caller]
fn loops(mut gateway: Gateway, fake: Option<&FakeUpstream>) {
    let (proxy, admin) = (gateway.proxy().port(), gateway.admin().port());
    let mut hosts: Vec<String> =
        ["127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]"]
            .map(Into::into)
            .into();
    hosts.extend(interface_addresses().iter().map(ToString::to_string));
    let internal = fake.map(|f| f.address().port());
    let mut asked = 0;
    for host in &hosts {
        for port in [Some(proxy), Some(admin), internal].into_iter().flatten() {
            for inbound in inbounds_for(host) {
                gateway.assert_refused(inbound, &format!("{host}:{port}"), "loop");
                asked += 1;
            }
        }
    }
    gateway.settle_and_check(asked);
    assert_eq!(gateway.count("loop"), asked);
    assert_eq!(fake.map_or(0, |f| f.requests().len()), 0);
}

/// The inbounds that can carry this host.
fn inbounds_for(host: &str) -> Vec<Inbound> {
    let v6 = host.starts_with('[');
    let v4 = host.parse::<std::net::Ipv4Addr>().is_ok();
    let fits = |i: &Inbound| match i {
        Inbound::Socks4 => v4,
        Inbound::Socks4a => !v6,
        _ => true,
    };
    Inbound::ALL.into_iter().filter(fits).collect()
}

/// One request by hand; its answer and its access line.
fn exchange(gateway: &Gateway, request: &str) -> (client::Answer, serde_json::Value) {
    let before = gateway.access_lines().len();
    let inbound = if request.starts_with("CONNECT") { Inbound::Connect } else { Inbound::Forward };
    let (wire, answer) = ask_raw(gateway.proxy(), inbound, request.as_bytes());
    drop(wire);
    (answer, gateway.wait_for_access(before + 1)[before].clone())
}

#[test]
fn b15_forward_host_is_rewritten_from_the_target_in_every_mode() {
    let origin = HttpOrigin::ok("db");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    for mode in MODES {
        let gateway = in_mode(&fake, mode, |_| ());
        let (answer, line) =
            exchange(&gateway, "GET http://db.corp.example/x HTTP/1.1\r\nHost: evil.com\r\n\r\n");
        assert_eq!(answer.http().body, b"db");
        assert_eq!(
            (&line["error"], &line["host"]),
            (&"host_mismatch".into(), &"db.corp.example".into())
        );
        assert_eq!(origin.requests().last().unwrap().head.all("host"), ["db.corp.example"]);
        let (_, line) = exchange(
            &gateway,
            "GET http://db.corp.example/x HTTP/1.1\r\nHost: db.corp.example\r\n\r\n",
        );
        assert!(line["error"].is_null(), "{line}");
    }
    let gateway = enforcing(&fake);
    let (answer, _) =
        exchange(&gateway, "GET http://evil.com/ HTTP/1.1\r\nHost: db.corp.example\r\n\r\n");
    assert_says(&answer, "denied");
}

#[test]
fn b16_connect_ignores_the_host_field_in_every_mode() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    for mode in MODES {
        let gateway = in_mode(&fake, mode, |_| ());
        let (answer, line) = exchange(
            &gateway,
            "CONNECT db.corp.example:443 HTTP/1.1\r\nHost: evil.com:443\r\n\r\n",
        );
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(
            (&line["error"], &line["host"]),
            (&"host_mismatch".into(), &"db.corp.example".into())
        );
    }
    let gateway = enforcing(&fake);
    let (answer, _) =
        exchange(&gateway, "CONNECT evil.com:443 HTTP/1.1\r\nHost: db.corp.example:443\r\n\r\n");
    assert_says(&answer, "denied");
}

#[test]
fn b20_origin_form_on_a_direct_connection_is_bad_request() {
    all_http_refused(
        &[
            "GET / HTTP/1.1\r\nHost: db.corp.example\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: db.corp.example\r\n\r\n",
        ],
        "bad_request",
    );
}

#[test]
fn log_mode_carries_what_it_would_deny_and_says_so() {
    let origin = HttpOrigin::ok("carried");
    let fake = FakeUpstream::with("evil.com", origin.address());
    let mut gateway = in_mode(&fake, "log", |_| ());
    for inbound in Inbound::NAMED {
        assert_eq!(fetch(gateway.proxy(), inbound, "evil.com:80").body, b"carried");
    }
    gateway.settle_with(&fake, 4, 4);
    assert!(gateway.access_lines().iter().all(|l| l["policy"]["verdict"] == "would_deny"));
    let metrics = gateway.metrics();
    let would_deny = [("mode", "log"), ("verdict", "would_deny")];
    assert_eq!(metrics.value("tailrace_policy_decisions_total", &would_deny), 4.0);
}

const OUTSIDE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(203, 0, 113, 9);
const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;

fn record(address: std::net::Ipv4Addr) -> Record {
    Record { alias: None, address }
}

#[test]
fn b22_the_checked_address_is_the_dialled_one() {
    netns::inside(|| {
        netns::add_address("203.0.113.9/32");
        let trap = Origin::send("loopback");
        let port = trap.address().port();
        let origin = Origin::on((OUTSIDE, port).into(), |guest| {
            guest.send(b"outside");
        });
        // Every second answer is the attack.
        let flips = (0..8).flat_map(|_| [record(OUTSIDE), record(LOOPBACK)]);
        let dns = SystemNameserver::take_over(flips);
        let gateway = Gateway::start(|s| {
            s.direct().enforce(&["corp.example"]).unset("policy.deny_nets");
        });
        for (n, inbound) in Inbound::NAMED_TUNNELS.into_iter().enumerate() {
            let target = format!("flip{n}.corp.example:{port}");
            gateway.open(inbound, &target).expect("outside");
            assert_eq!(
                dns.asked(&format!("flip{n}.corp.example")),
                1,
                "one look-up, no second one"
            );
            gateway.assert_refused(inbound, &target, "denied");
        }
        assert_eq!(origin.visits().len(), 3);
        assert!(trap.visits().is_empty());
    });
}

#[test]
fn b22_the_checked_address_is_what_the_upstream_is_asked_for() {
    netns::inside(|| {
        let origin = Origin::send("pinned");
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        let dns = SystemNameserver::take_over([record(OUTSIDE), record(LOOPBACK)]);
        let gateway = Gateway::start(|s| {
            s.upstream(fake.address()).set("dns.mode", "system").enforce(&["corp.example"]);
        });
        gateway.open(Inbound::Socks5, "db.corp.example:80").expect("pinned");
        gateway.assert_refused(Inbound::Socks5, "db.corp.example:80", "denied");
        assert_eq!(
            (fake.hosts(), dns.asked("db.corp.example")),
            (vec!["203.0.113.9".to_owned()], 2)
        );
        let line = &gateway.wait_for_access(2)[0];
        assert_eq!(line["address"], "203.0.113.9", "{line}");
    });
}

#[test]
fn b23_policy_is_on_the_asked_name_and_a_denied_one_is_never_looked_up() {
    netns::inside(|| {
        netns::add_address("203.0.113.9/32");
        let origin = Origin::on((OUTSIDE, 0).into(), |guest| {
            guest.send(b"aliased");
        });
        let dns =
            SystemNameserver::take_over([Record { alias: Some("other.com"), address: OUTSIDE }]);
        let gateway = Gateway::start(|s| {
            s.direct().enforce(&["corp.example"]).unset("policy.deny_nets");
        });
        let port = origin.address().port();
        gateway.open(Inbound::Socks5, &format!("db.corp.example:{port}")).expect("aliased");
        let before = dns.questions().len();
        for inbound in Inbound::NAMED {
            gateway.assert_refused(inbound, &format!("other.com:{port}"), "denied");
        }
        assert_eq!(
            dns.questions().len(),
            before,
            "no question for a denied name: {:?}",
            dns.questions()
        );
    });
}

#[test]
fn b24_a_reload_that_denies_cuts_live_tunnels() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = enforcing(&fake);
    let mut wires: Vec<_> =
        Inbound::NAMED_TUNNELS.map(|i| gateway.open(i, "db.corp.example:80")).into();
    for wire in &mut wires {
        wire.send("alive");
        wire.expect("alive");
    }
    gateway.setup().enforce(&["other.example"]);
    gateway.reload();
    let (_, took) = timed(|| wires.iter_mut().for_each(|w| w.expect_end(ConnectionEnd::Reset)));
    assert!(took <= bound(Duration::from_secs(1)), "{took:?}");
    eventually("the origin side is reset", PATIENCE, || {
        origin.visits().iter().all(|v| v.end == Some(ConnectionEnd::Reset))
    });
    gateway.settle_with(&fake, 3, 3);
    assert!(gateway.access_lines().iter().all(|l| l["outcome"] == "denied"));
}

#[test]
fn b24_a_reload_that_denies_cuts_a_forward_exchange_under_way() {
    let origin = Origin::never_reader();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = enforcing(&fake);
    let mut wire = gateway.dial();
    wire.send(client::request(Inbound::Forward, "db.corp.example:80"));
    // Not when the origin has been reached: the gateway may not know yet, and would say so in words.
    eventually("the request is under way", PATIENCE, || {
        gateway.admin_get("/api/v1/connections").json()[0]["stage"] == "relay"
    });
    gateway.setup().enforce(&["other.example"]);
    gateway.reload();
    let (_, took) = timed(|| wire.expect_end(ConnectionEnd::Reset));
    assert!(took <= bound(Duration::from_secs(1)), "{took:?}");
    gateway.settle_with(&fake, 1, 1);
    assert_eq!(gateway.outcome(1), "denied");
}

/// Between two requests a kept upstream connection belongs to no target that a reload could judge.
#[test]
fn b24_a_kept_upstream_connection_is_judged_by_its_address_for_each_request() {
    let origin = HttpOrigin::ok("inside");
    let mut gateway = Gateway::start(|s| {
        s.direct().enforce(&["localhost"]);
    });
    let target = format!("localhost:{}", origin.address().port());
    let mut wire = gateway.dial();
    let mut ask = || {
        wire.send(format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        wire.read_answer().status()
    };
    assert_eq!((ask(), ask()), (200, 200));
    assert_eq!(origin.visits().len(), 1, "one connection is kept for both");
    gateway.setup().unset("policy.deny_nets");
    gateway.reload();
    gateway.wait_for_reloads("ok", 1);
    assert_eq!(ask(), 403, "deny_nets hold its address by now");
    assert_eq!(origin.requests().len(), 2);
    let lines = gateway.wait_for_access(3);
    let said = |line: &serde_json::Value| {
        (line["outcome"].clone(), line["resolved_by"].clone(), line["address"].clone())
    };
    assert_eq!(said(&lines[0]), said(&lines[1]), "the reused one is described as the first");
    assert_eq!(lines[2]["outcome"], "denied");
    assert!(lines[2]["policy"]["rule"].as_str().unwrap().starts_with("deny_net "), "{}", lines[2]);
}

#[test]
fn b24_what_a_reload_refuses_has_no_say_in_the_next_target_of_its_client() {
    let origin = HttpOrigin::ok("there");
    let fake = FakeUpstream::with("a.corp.example", origin.address());
    fake.map("b.corp.example", origin.address());
    let mut gateway = enforcing(&fake);
    let mut wire = gateway.dial();
    let mut ask = |host: &str| {
        wire.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        wire.read_answer().status()
    };
    assert_eq!(ask("a.corp.example"), 200);
    gateway.setup().enforce(&["b.corp.example"]);
    gateway.reload();
    gateway.wait_for_reloads("ok", 1);
    assert_eq!(ask("b.corp.example"), 200);
    assert_eq!(ask("a.corp.example"), 403);
}

#[test]
fn b24_a_reload_that_still_allows_cuts_nothing() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = enforcing(&fake);
    let mut wire = gateway.open(Inbound::Socks5, "db.corp.example:80");
    gateway.setup().enforce(&["db.corp.example", "other.example"]);
    gateway.reload();
    gateway.wait_for_reloads("ok", 1);
    gateway.assert_refused(Inbound::Socks5, "x.corp.example:80", "denied");
    wire.send("alive");
    wire.expect("alive");
}

#[test]
fn socks4_to_a_denied_address_never_reaches_the_upstream() {
    let fake = FakeUpstream::start();
    let mut gateway = enforcing(&fake);
    let request = socks4_request("198.51.100.1".parse().unwrap(), 80, b"user");
    assert_raw_refused(gateway.proxy(), Inbound::Socks4, &request, "denied");
    gateway.settle_with(&fake, 1, 0);
}
