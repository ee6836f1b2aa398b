//! The DNS server: the private port for `run`, and `listen.dns` for clients.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "dns_server/bounds.rs"]
mod bounds;
#[path = "dns_server/clients.rs"]
mod clients;
#[path = "dns_server/fixture.rs"]
mod fixture;
#[path = "dns_server/kinds.rs"]
mod kinds;
#[path = "dns_server/lent.rs"]
mod lent;
#[path = "dns_server/policy.rs"]
mod policy;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use fixture::{Nameserver, ask, ask_by_tcp, code, query, shown, tailnet};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use rustix::process::Signal;
use tailrace_rig::fake_tailnet::script::State;
use tailrace_rig::wait::{PATIENCE, assert_within, eventually};
use tailrace_rig::{
    ClosedPort, FakeUpstream, Gateway, Inbound, Origin, Setup, SystemNameserver, netns,
};

#[test]
fn names_of_the_tailnet_by_both_ways() {
    let nameserver = Nameserver::start(&["10.50.0.7", "fd00::7"]);
    let tailnet = tailnet(&nameserver);
    let mut gateway = tailnet.gateway(|_| {});
    let dns = gateway.private_dns();
    assert!(dns.ip().is_loopback());
    for ask in [ask, ask_by_tcp] {
        let of = |name: &str, kind| shown(&ask(dns, name, kind));
        assert_eq!(of("db.lab.ts.net.", RecordType::A), ["db.lab.ts.net. A 100.64.0.1"]);
        assert_eq!(
            of("DB.lab.ts.net.", RecordType::AAAA),
            ["DB.lab.ts.net. AAAA fd7a:115c:a1e0::1"]
        );
        assert_eq!(
            of("db.", RecordType::A),
            ["db. CNAME db.lab.ts.net.", "db.lab.ts.net. A 100.64.0.1"]
        );
        assert_eq!(of("x.corp.example.", RecordType::A), ["x.corp.example. A 10.50.0.7"]);
        assert_eq!(of("x.corp.example.", RecordType::AAAA), ["x.corp.example. AAAA fd00::7"]);
        assert_eq!(
            of("alias.corp.example.", RecordType::A),
            ["alias.corp.example. CNAME end.corp.example.", "end.corp.example. A 10.50.0.7"]
        );
        assert_eq!(of("localhost.", RecordType::A), ["localhost. A 127.0.0.1"]);
        assert_eq!(of("x.localhost.", RecordType::AAAA), ["x.localhost. AAAA ::1"]);
        for name in ["none.corp.example.", "nobody.lab.ts.net."] {
            assert_eq!(code(&ask(dns, name, RecordType::A)), ResponseCode::NXDomain, "{name}");
        }
        let other = ask(dns, "x.corp.example.", RecordType::HTTPS);
        assert_eq!((code(&other), other.answers.len()), (ResponseCode::NoError, 0));
    }
    let asked = nameserver.asked();
    let times = |name: &str| asked.iter().filter(|asked| *asked == name).count();
    assert_eq!((times("x.corp.example"), times("none.corp.example")), (2, 1), "remembered");
    let metrics = gateway.metrics();
    for (route, result) in
        [("split", "ok"), ("split", "nxdomain"), ("magicdns", "ok"), ("cache", "ok")]
    {
        let labels = [("route", route), ("result", result)];
        assert!(metrics.value("tailrace_dns_queries_total", &labels) >= 1.0, "{route} {result}");
    }
    gateway.settle_and_check(0);
}

#[test]
fn d7_lives_count_down() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = tailnet(&nameserver);
    let gateway = tailnet.gateway(|_| {});
    let dns = gateway.private_dns();
    let ttl = || ask(dns, "x.corp.example.", RecordType::A).answers[0].ttl;
    assert_eq!(ttl(), 60);
    eventually("less is left", PATIENCE, || ttl() < 60);
    assert!(ttl() >= 50);
    assert_eq!(nameserver.asked().len(), 1);
}

#[test]
fn b18_an_address_we_gave_is_taken_at_its_name_and_only_where_that_is_allowed() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let (tailnet, origin) = (tailnet(&nameserver), Origin::echo());
    tailnet.place("10.50.0.7:5432", origin.address());
    let gateway = tailnet.gateway(|s| {
        s.enforce(&["ok.corp.example"]);
    });
    gateway.assert_refused(Inbound::Socks5, "10.50.0.7:5432", "denied");
    ask(gateway.private_dns(), "secret.corp.example.", RecordType::A);
    gateway.assert_refused(Inbound::Socks5, "10.50.0.7:5432", "denied");
    ask(gateway.private_dns(), "ok.corp.example.", RecordType::A);
    for inbound in [Inbound::Socks5, Inbound::Connect, Inbound::Socks4] {
        let mut wire = gateway.open(inbound, "10.50.0.7:5432");
        wire.send("hello");
        wire.expect("hello");
    }
    let line = gateway
        .wait_for_line(|line| line["outcome"] == "fin_fin" || line["outcome"] == "client_rst");
    assert_eq!((&line["host"], &line["host_from"]), (&"ok.corp.example".into(), &"dns".into()));
    assert_eq!(line["address"], "10.50.0.7", "{line}");
}

#[test]
fn b22_no_answer_leads_a_client_to_its_own_host() {
    let nameserver =
        Nameserver::start(&["127.0.0.1", "169.254.169.254", "100.64.0.9", "10.50.0.7", "::1"]);
    let tailnet = tailnet(&nameserver);
    let gateway = tailnet.gateway(|s| {
        s.set("policy.mode", "off");
    });
    let dns = gateway.private_dns();
    let left = ask(dns, "rebound.corp.example.", RecordType::A);
    assert_eq!(shown(&left), ["rebound.corp.example. A 10.50.0.7"], "100.64.0.9 is this node");
    let none = ask(dns, "rebound.corp.example.", RecordType::AAAA);
    assert_eq!((code(&none), none.answers.len()), (ResponseCode::NoError, 0));
}

#[test]
fn d9_while_the_tailnet_is_down_nobody_is_asked() {
    netns::inside(|| {
        let host = SystemNameserver::take_over([tailrace_rig::system_nameserver::Record {
            alias: None,
            address: [10, 9, 9, 9].into(),
        }]);
        let nameserver = Nameserver::start(&["10.50.0.7"]);
        let tailnet = tailnet(&nameserver);
        let mut gateway = tailnet.gateway(|_| {});
        let dns = gateway.private_dns();
        // While it is up, names that are not the tailnet's affair are this host's resolver's.
        let own = ask(dns, "www.example.", RecordType::A);
        assert_eq!((shown(&own)[0].as_str(), own.answers[0].ttl), ("www.example. A 10.9.9.9", 1));
        let before = (host.questions().len(), nameserver.asked().len());
        tailnet.become_state(State::Stopped);
        gateway.wait_not_ready("stopped", PATIENCE);
        for name in ["db.", "db.lab.ts.net.", "x.corp.example.", "www.example."] {
            assert_eq!(code(&ask(dns, name, RecordType::A)), ResponseCode::ServFail, "{name}");
        }
        assert_eq!((host.questions().len(), nameserver.asked().len()), before);
        tailnet.become_state(State::Running);
        gateway.wait_ready();
        assert_eq!(shown(&ask(dns, "db.", RecordType::A)).len(), 2);
        assert_eq!(host.asked("db.lab.ts.net") + host.asked("x.corp.example"), 0);
    });
}

#[test]
fn names_that_are_passed_on_are_nobody_s_here() {
    let fake = FakeUpstream::start();
    let gateway = Gateway::chained(&fake);
    let answer = ask(gateway.private_dns(), "db.corp.example.", RecordType::A);
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert_eq!(fake.requests().len(), 0);
}

#[test]
fn clients_get_a_server_of_their_own_where_it_is_set() {
    netns::inside(|| {
        let nameserver = Nameserver::start(&["10.50.0.7"]);
        let tailnet = tailnet(&nameserver);
        let mut gateway = tailnet.gateway(|s| {
            s.set("listen.dns", "127.0.0.1:53");
        });
        let clients = "127.0.0.1:53".parse().unwrap();
        for server in [clients, gateway.private_dns()] {
            assert_eq!(shown(&ask(server, "x.corp.example.", RecordType::A)).len(), 1);
            assert_eq!(shown(&ask_by_tcp(server, "x.corp.example.", RecordType::A)).len(), 1);
        }
        let listeners = gateway.status()["listeners"].clone();
        assert_eq!(listeners["dns_clients"], "127.0.0.1:53");
        assert_eq!(listeners["dns"], gateway.private_dns().to_string());
        for listener in ["dns", "dns_clients"] {
            gateway.wait_for_log(|line| line["listener"] == listener);
        }
        for port in [53, gateway.private_dns().port()] {
            gateway.assert_refused(Inbound::Connect, &format!("127.0.0.1:{port}"), "loop");
        }
        gateway.signal(Signal::TERM);
        eventually("the port is free", PATIENCE, || UdpSocket::bind(clients).is_ok());
        assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
    });
}

#[test]
fn f6_a_taken_dns_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = UdpSocket::bind(taken).unwrap();
    let mut setup = Setup::new();
    setup.direct().set("listen.dns", taken.to_string());
    let output = setup.fail();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("listen.dns") && said.contains("already in use"), "{said}");
}

#[test]
fn a_resolver_that_asks_us_what_we_ask_it_is_told_so_at_once() {
    netns::inside(|| {
        // The host's resolver is this gateway, whose resolver is the host's.
        tailrace_rig::system_nameserver::resolve_by(
            "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n",
        );
        let gateway = Gateway::start(|s| {
            s.direct().set("listen.dns", "127.0.0.1:53").set("dns.timeout", "30s");
        });
        let started = Instant::now();
        let answer = ask(gateway.private_dns(), "www.example.", RecordType::A);
        assert_within("the answer", started.elapsed(), Duration::from_secs(1));
        assert_ne!(code(&answer), ResponseCode::NoError);
    });
}

#[test]
fn d10_many_clients_at_once_all_get_their_answer() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = tailnet(&nameserver);
    let mut gateway = tailnet.gateway(|_| {});
    let dns = gateway.private_dns();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let count = 200;
    for number in 0..count {
        let asked = query(&format!("n{number}.corp.example."), RecordType::A);
        client.send_to(&asked.to_vec().unwrap(), dns).unwrap();
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < count {
        let mut bytes = [0; 1500];
        let length = client.recv(&mut bytes).unwrap();
        let answer = Message::from_vec(&bytes[..length]).unwrap();
        assert_eq!(shown(&answer).len(), 1, "{answer}");
        answered.insert(answer.queries[0].name().to_ascii());
    }
    gateway.settle_and_check(0);
}

#[test]
fn a_closed_gateway_leaves_no_port() {
    let gone = ClosedPort::new();
    let gateway = Gateway::start(|s| {
        s.upstream(gone.address());
    });
    let dns = gateway.private_dns();
    drop(gateway);
    eventually("the port is free", PATIENCE, || UdpSocket::bind(dns).is_ok());
}
