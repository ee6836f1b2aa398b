//! Who may ask, how much, and for how long.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::fixture::{self, Nameserver, ask_raw, code, query};
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{Setup, netns};

#[test]
fn beyond_loopback_only_private_networks_are_answered_and_only_where_that_is_asked_for() {
    let mut setup = Setup::new();
    setup.direct().set("listen.dns", "192.0.2.1:0");
    let output = setup.fail();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("listen.allow_remote"), "{said}");
    netns::inside(|| {
        for address in ["192.0.2.1/32", "10.7.0.2/32", "203.0.113.7/32"] {
            netns::add_address(address);
        }
        let nameserver = Nameserver::start(&["10.50.0.7"]);
        let tailnet = fixture::tailnet(&nameserver);
        let gateway = tailnet.gateway(|s| {
            s.set("listen.dns", "192.0.2.1:53").set("listen.allow_remote", true);
        });
        let dns: SocketAddr = "192.0.2.1:53".parse().unwrap();
        let asked = query("x.corp.example.", RecordType::A).to_vec().unwrap();
        let of = |from: &str| Message::from_vec(&ask_raw(from, dns, &asked)).unwrap();
        let neighbour = of("10.7.0.2:0");
        assert_eq!((code(&neighbour), neighbour.answers.len()), (ResponseCode::NoError, 1));
        let stranger = of("203.0.113.7:0");
        assert_eq!((code(&stranger), stranger.answers.len()), (ResponseCode::Refused, 0));
        drop(gateway);
    });
}

#[test]
fn r6_one_client_s_connections_are_bounded_and_leave_room() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet(&nameserver);
    let mut gateway = tailnet.gateway(|_| {});
    let dns = gateway.private_dns();
    let mut held: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(dns).unwrap()).collect();
    let mut one_more = TcpStream::connect(dns).unwrap();
    one_more.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(one_more.read(&mut [0]).unwrap_or(0), 0, "closed");
    // Those that are there are served, and a place that is given back is taken.
    let framed = fixture::framed(&query("x.corp.example.", RecordType::A));
    let served = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = stream.write_all(&framed).and_then(|()| stream.read(&mut [0; 512]));
        sent.is_ok_and(|read| read > 0)
    };
    assert!(served(&mut held[63]));
    held.clear();
    eventually("a place", PATIENCE, || served(&mut TcpStream::connect(dns).unwrap()));
    gateway.settle_and_check(0);
}
