//! `dns.synthetic`: addresses given to names, and the way back.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

use crate::fixture::{self, Nameserver, ask, code, shown, why};
use tailrace_rig::{ConnectionEnd, FakeTailnet, Gateway, Inbound, Origin, RawConnection, netns};

fn gateway_with_range(tailnet: &FakeTailnet) -> Gateway {
    tailnet.gateway(|s| {
        s.set("dns.synthetic", "198.18.0.0/15");
    })
}

#[track_caller]
fn address(answer: &Message) -> IpAddr {
    match answer.answers.last().map(|record| &record.data) {
        Some(RData::A(a)) => IpAddr::V4(a.0),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn synthetic_address(dns: SocketAddr, name: &str) -> IpAddr {
    let ip = address(&ask(dns, name, RecordType::A));
    let range: ipnet::IpNet = "198.18.0.0/15".parse().unwrap();
    assert!(range.contains(&ip), "{name}: {ip}");
    ip
}

#[test]
fn names_of_one_address_keep_their_identity() {
    let nameserver = Nameserver::start(&["10.50.0.7", "fd00::7"]);
    let (tailnet, origin) = (fixture::tailnet(&nameserver), Origin::echo());
    tailnet.place("10.50.0.7:5432", origin.address());
    let gateway = gateway_with_range(&tailnet);
    let dns = gateway.private_dns();
    let (first, second) =
        (synthetic_address(dns, "a.corp.example."), synthetic_address(dns, "b.corp.example."));
    assert_ne!(first, second);
    assert_eq!(synthetic_address(dns, "a.corp.example."), first);
    let six = ask(dns, "a.corp.example.", RecordType::AAAA);
    assert_eq!((code(&six), six.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(code(&ask(dns, "none.corp.example.", RecordType::A)), ResponseCode::NXDomain);
    for (ip, name) in [(first, "a.corp.example"), (second, "b.corp.example")] {
        for inbound in [Inbound::Socks5, Inbound::Connect] {
            let mut wire = gateway.open(inbound, &format!("{ip}:5432"));
            wire.send("hello");
            wire.expect("hello");
            drop(wire);
            let line = gateway.wait_for_line(|line| line["host"] == name);
            assert_eq!(
                (&line["host_from"], &line["address"]),
                (&"dns".into(), &"10.50.0.7".into())
            );
        }
        let reverse = ask(dns, &format!("{}.", reversed(ip)), RecordType::PTR);
        assert_eq!(shown(&reverse), [format!("{}. PTR {name}.", reversed(ip))]);
    }
    let node = synthetic_address(dns, "db.");
    assert_eq!(node, synthetic_address(dns, "db.lab.ts.net."), "the same node");
}

fn reversed(ip: IpAddr) -> String {
    let text = ip.to_string();
    let mut parts: Vec<&str> = text.split('.').collect();
    parts.reverse();
    format!("{}.in-addr.arpa", parts.join("."))
}

#[test]
fn b18_an_address_that_no_name_has_leads_nowhere() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet(&nameserver);
    let gateway = gateway_with_range(&tailnet);
    for inbound in [Inbound::Socks5, Inbound::Connect, Inbound::Socks4] {
        gateway.assert_refused(inbound, "198.18.3.4:5432", "dns_error");
    }
    assert_eq!(tailnet.asked(), [""; 0], "nothing was dialled");
}

#[test]
fn a_synthetic_address_is_judged_as_its_name() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let (tailnet, origin) = (fixture::tailnet(&nameserver), Origin::echo());
    tailnet.place("10.50.0.7:5432", origin.address());
    let mut gateway = tailnet.gateway(|s| {
        s.enforce(&["ok.corp.example"]).set("dns.synthetic", "198.18.0.0/15");
    });
    let dns = gateway.private_dns();
    let denied = why(dns, "secret.corp.example.", RecordType::A);
    assert_eq!((denied.0, denied.1), (ResponseCode::NXDomain, 15));
    let ip = synthetic_address(dns, "ok.corp.example.");
    let mut wire = gateway.open(Inbound::Socks5, &format!("{ip}:5432"));
    wire.send("hello");
    wire.expect("hello");
    gateway.setup().enforce(&["other.corp.example"]);
    gateway.reload();
    wire.expect_end(ConnectionEnd::Reset);
    gateway.assert_refused(Inbound::Socks5, &format!("{ip}:5432"), "denied");
}

#[test]
fn names_outside_the_tailnet_have_their_own_addresses() {
    let nameserver = Nameserver::start(&["93.184.216.34"]);
    let tailnet = fixture::tailnet_with(&nameserver, |s| {
        s.dns["Resolvers"] = serde_json::json!([{"Addr": "100.64.0.1"}]);
    });
    let gateway = gateway_with_range(&tailnet);
    let answer = ask(gateway.private_dns(), "www.example.", RecordType::A);
    assert_eq!(shown(&answer), ["www.example. A 93.184.216.34"]);
}

#[test]
fn b28_a_redirected_connection_to_a_synthetic_address_is_led_to_its_name() {
    netns::inside(|| {
        let nameserver = Nameserver::start(&["10.50.0.7"]);
        let (tailnet, origin) = (fixture::tailnet(&nameserver), Origin::echo());
        tailnet.place("10.50.0.7:5432", origin.address());
        let gateway = gateway_with_range(&tailnet);
        netns::add_route("198.18.0.0/15");
        netns::redirect("198.18.0.0/15", gateway.proxy().port());
        let ip = synthetic_address(gateway.private_dns(), "a.corp.example.");
        let mut wire = RawConnection::dial(SocketAddr::new(ip, 5432));
        wire.send("hello");
        wire.expect("hello");
        drop(wire);
        let line = gateway.wait_for_line(|line| line["inbound"] == "transparent");
        assert_eq!((&line["host"], &line["host_from"]), (&"a.corp.example".into(), &"dns".into()));
        RawConnection::assert_reset("198.18.200.1:5432".parse().unwrap());
        let line = gateway.wait_for_line(|line| line["host"] == "198.18.200.1");
        assert_eq!(line["outcome"], "dns_error");
    });
}
