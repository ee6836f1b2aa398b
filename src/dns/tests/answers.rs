//! What good nameservers say: both families, aliases, lives.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;

use super::scripted_nameserver::{DnsReply, Standin, addresses, alias, asked, with_ttl};
use super::{Lab, PATIENT, found, name, zone};
use crate::labels::{DnsResult, DnsRoute};

#[tokio::test]
async fn d6_both_families_are_asked_at_once_and_v4_comes_first() {
    let server = Standin::new(|question| {
        let all = ["fd00::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"];
        vec![DnsReply::Say(match asked(question).as_str() {
            "v4.corp.example" => addresses(question, &all[1..2]),
            "v6.corp.example" => addresses(question, &all[..1]),
            _ => addresses(question, &all),
        })]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let both = lab.ask("db.corp.example").await;
    assert_eq!(both, found(&["10.0.0.2", "10.0.0.1", "fd00::1"], DnsRoute::Split));
    assert_eq!(server.asked("db.corp.example"), 2);
    assert_eq!(lab.ask("v4.corp.example").await, found(&["10.0.0.2"], DnsRoute::Split));
    assert_eq!(lab.ask("v6.corp.example").await, found(&["fd00::1"], DnsRoute::Split));
    assert_eq!(server.connections(), 1, "all over one connection");
}

#[tokio::test]
async fn d6_a_family_that_stays_silent_holds_nothing_up() {
    for silent in [RecordType::A, RecordType::AAAA] {
        let server = Standin::new(move |question| {
            if question.queries[0].query_type() == silent {
                return vec![DnsReply::Silence];
            }
            vec![DnsReply::Say(addresses(question, &["10.0.0.1", "fd00::1"]))]
        });
        let server = server.await;
        let lab = Lab::new(&[&server]);
        let other = if silent == RecordType::A { "fd00::1" } else { "10.0.0.1" };
        let start = Instant::now();
        assert_eq!(lab.ask("db.corp.example").await, found(&[other], DnsRoute::Split));
        assert!(start.elapsed() < Duration::from_millis(5 * 300), "{:?}", start.elapsed());
        lab.ask("x.corp.example").await.unwrap();
        assert_eq!(server.connections(), 1, "a connection that answers is kept");
    }
}

#[tokio::test]
async fn d7_an_answer_is_remembered_for_its_time_and_not_for_ever() {
    let server = Standin::new(|question| vec![DnsReply::Say(with_ttl(question, &["10.0.0.1"], 0))]);
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let put = Instant::now();
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
    let mut by = DnsRoute::Cache;
    while by == DnsRoute::Cache {
        assert!(put.elapsed() < Duration::from_secs(5), "kept far too long");
        by = lab.ask("db.corp.example").await.unwrap().1;
    }
    assert!(put.elapsed() >= Duration::from_secs(1), "TTL 0 counts as one second");
    assert_eq!((by, server.asked("db.corp.example")), (DnsRoute::Split, 4));
}

#[tokio::test]
async fn b23_aliases_are_followed_within_and_from_message_to_message() {
    let server = Standin::new(|question| {
        vec![DnsReply::Say(match asked(question).as_str() {
            "db.corp.example" => alias(question, "b.corp.example."),
            "b.corp.example" => alias(question, "c.elsewhere.example."),
            "magic.corp.example" => alias(question, "grafana.lab.ts.net."),
            "ring.corp.example" => alias(question, "ring.corp.example."),
            _ => addresses(question, &["10.0.0.3", "fd00::3"]),
        })]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.3", "fd00::3"], DnsRoute::Split));
    assert_eq!(server.asked("c.elsewhere.example"), 2, "asked of the one who named it");
    let node = ["100.64.0.9", "fd7a:115c:a1e0::9"];
    assert_eq!(lab.ask("magic.corp.example").await, found(&node, DnsRoute::Split));
    assert_eq!(server.asked("grafana.lab.ts.net"), 0);
    let ring = lab.ask("ring.corp.example").await.unwrap_err();
    assert_eq!((ring.result(), ring.route()), (DnsResult::Error, DnsRoute::Split), "{ring}");
}

#[tokio::test]
async fn b22_each_answer_is_given_on_as_it_came() {
    let server = Standin::new(|question| {
        vec![DnsReply::Say(addresses(question, &["127.0.0.1", "::ffff:10.0.0.1"]))]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let loopback = lab.ask("db.corp.example").await;
    assert_eq!(loopback, found(&["127.0.0.1", "10.0.0.1"], DnsRoute::Split), "for policy to judge");
    let again = lab.ask("db.corp.example").await;
    assert_eq!(again, found(&["127.0.0.1", "10.0.0.1"], DnsRoute::Cache));
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_is_asked_again() {
    let server = Standin::new(|question| {
        vec![DnsReply::Say(addresses(question, &["10.0.0.1", "fd00::1"])), DnsReply::Close]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1", "fd00::1"], DnsRoute::Split));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Standin::new(|question| vec![DnsReply::Say(addresses(question, &["10.0.0.1"]))]);
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let asked = Instant::now();
    lab.ask("db.corp.example").await.unwrap();
    server.until_left().await;
    assert!(asked.elapsed() >= Duration::from_secs(1), "kept for who asks next");
    assert_eq!(lab.ask("x.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn global_nameservers_get_the_rest_and_the_system_what_is_left() {
    let server = Standin::new(|question| vec![DnsReply::Say(addresses(question, &["192.0.2.1"]))]);
    let server = server.await;
    let mut with_global = zone(0);
    with_global.global = vec![super::inside(1)];
    let lab = Lab::of(with_global, &[&server], PATIENT);
    assert_eq!(lab.ask("www.example").await, found(&["192.0.2.1"], DnsRoute::Global));
    assert_eq!(lab.ask("www.example").await, found(&["192.0.2.1"], DnsRoute::Cache));
    let own = lab.ask("localhost").await.unwrap();
    assert!(
        own.1 == DnsRoute::System && own.0.iter().all(std::net::IpAddr::is_loopback),
        "{own:?}"
    );
    assert_eq!(server.asked("localhost"), 0);
    let lab = Lab::new(&[]);
    assert_eq!(lab.ask("localhost").await.unwrap().1, DnsRoute::System);
    assert_eq!(lab.tailnet.qualify(&name("grafana")), Some(name("grafana.lab.ts.net")));
}
