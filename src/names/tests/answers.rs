//! What good nameservers say: both families, aliases, lives.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Semaphore;

use super::standin::{Reply, Standin, addresses, alias, asked, empty, with_ttl};
use super::{Bench, PATIENT, found, ips, name, zone};

#[tokio::test]
async fn d6_both_families_are_asked_at_once_and_v4_comes_first() {
    let server = Standin::new(|question| {
        let all = ["fd00::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"];
        vec![Reply::Say(match asked(question).as_str() {
            "v4.corp.example" => addresses(question, &all[1..2]),
            "v6.corp.example" => addresses(question, &all[..1]),
            _ => addresses(question, &all),
        })]
    });
    let server = server.await;
    let bench = Bench::new(&[&server]);
    let both = bench.ask("db.corp.example").await;
    assert_eq!(both, found(&["10.0.0.2", "10.0.0.1", "fd00::1"], "split"));
    assert_eq!(server.asked("db.corp.example"), 2);
    assert_eq!(bench.ask("v4.corp.example").await, found(&["10.0.0.2"], "split"));
    assert_eq!(bench.ask("v6.corp.example").await, found(&["fd00::1"], "split"));
    assert_eq!(server.connections(), 1, "all over one connection");
}

#[tokio::test]
async fn d6_a_family_that_stays_silent_holds_nothing_up() {
    for silent in [RecordType::A, RecordType::AAAA] {
        let server = Standin::new(move |question| {
            if question.queries[0].query_type() == silent {
                return vec![Reply::Silence];
            }
            vec![Reply::Say(addresses(question, &["10.0.0.1", "fd00::1"]))]
        });
        let server = server.await;
        let bench = Bench::new(&[&server]);
        let other = if silent == RecordType::A { "fd00::1" } else { "10.0.0.1" };
        let start = Instant::now();
        assert_eq!(bench.ask("db.corp.example").await, found(&[other], "split"));
        assert!(start.elapsed() < Duration::from_millis(5 * 300), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn d7_an_answer_is_remembered_for_its_time_and_not_for_ever() {
    let server = Standin::new(|question| vec![Reply::Say(with_ttl(question, &["10.0.0.1"], 0))]);
    let server = server.await;
    let bench = Bench::new(&[&server]);
    let put = Instant::now();
    assert_eq!(bench.ask("db.corp.example").await, found(&["10.0.0.1"], "split"));
    let mut by = "cache";
    while by == "cache" {
        assert!(put.elapsed() < Duration::from_secs(5), "kept far too long");
        by = bench.ask("db.corp.example").await.unwrap().1;
    }
    assert!(put.elapsed() >= Duration::from_secs(1), "TTL 0 counts as one second");
    assert_eq!((by, server.asked("db.corp.example")), ("split", 4));
}

#[tokio::test]
async fn b23_aliases_are_followed_within_and_from_message_to_message() {
    let server = Standin::new(|question| {
        vec![Reply::Say(match asked(question).as_str() {
            "db.corp.example" => alias(question, "b.corp.example."),
            "b.corp.example" => alias(question, "c.elsewhere.example."),
            "magic.corp.example" => alias(question, "grafana.lab.ts.net."),
            "ring.corp.example" => alias(question, "ring.corp.example."),
            _ => addresses(question, &["10.0.0.3", "fd00::3"]),
        })]
    });
    let server = server.await;
    let bench = Bench::new(&[&server]);
    assert_eq!(bench.ask("db.corp.example").await, found(&["10.0.0.3", "fd00::3"], "split"));
    assert_eq!(server.asked("c.elsewhere.example"), 2, "asked of the one who named it");
    let node = ["100.64.0.9", "fd7a:115c:a1e0::9"];
    assert_eq!(bench.ask("magic.corp.example").await, found(&node, "split"));
    assert_eq!(server.asked("grafana.lab.ts.net"), 0);
    let ring = bench.ask("ring.corp.example").await.unwrap_err();
    assert_eq!((ring.result(), ring.route()), ("error", "split"), "{ring}");
}

#[tokio::test]
async fn b22_each_answer_is_given_on_as_it_came() {
    let server = Standin::new(|question| {
        vec![Reply::Say(addresses(question, &["127.0.0.1", "::ffff:10.0.0.1"]))]
    });
    let server = server.await;
    let bench = Bench::new(&[&server]);
    let loopback = bench.ask("db.corp.example").await;
    assert_eq!(loopback, found(&["127.0.0.1", "10.0.0.1"], "split"), "for policy to judge");
    let again = bench.ask("db.corp.example").await;
    assert_eq!(again, found(&["127.0.0.1", "10.0.0.1"], "cache"));
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_is_asked_again() {
    let gate = Arc::new(Semaphore::new(0));
    let server = Standin::new(move |question| {
        // The first answer of a connection leaves with its end; the other type's is lost.
        let kind = question.queries[0].query_type();
        let first = gate.available_permits() == 0;
        gate.add_permits(1);
        match (first, kind) {
            (true, _) => vec![Reply::Close],
            (_, RecordType::A) => vec![Reply::Say(addresses(question, &["10.0.0.1"]))],
            _ => vec![Reply::Say(empty(question))],
        }
    });
    let server = server.await;
    let bench = Bench::new(&[&server]);
    assert_eq!(bench.ask("db.corp.example").await, found(&["10.0.0.1"], "split"));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Standin::new(|question| vec![Reply::Say(addresses(question, &["10.0.0.1"]))]);
    let server = server.await;
    let bench = Bench::new(&[&server]);
    let asked = Instant::now();
    bench.ask("db.corp.example").await.unwrap();
    server.until_left().await;
    assert!(asked.elapsed() >= Duration::from_secs(1), "kept for who asks next");
    assert_eq!(bench.ask("x.corp.example").await, found(&["10.0.0.1"], "split"));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn global_nameservers_get_the_rest_and_the_system_what_is_left() {
    let server = Standin::new(|question| vec![Reply::Say(addresses(question, &["192.0.2.1"]))]);
    let server = server.await;
    let mut with_global = zone(0);
    with_global.global = vec![super::inside(1)];
    let bench = Bench::of(with_global, &[&server], PATIENT);
    assert_eq!(bench.ask("www.example").await, found(&["192.0.2.1"], "global"));
    assert_eq!(bench.ask("www.example").await, found(&["192.0.2.1"], "cache"));
    let own = bench.ask("localhost").await.unwrap();
    assert!(own.1 == "system" && own.0.iter().all(std::net::IpAddr::is_loopback), "{own:?}");
    assert_eq!(server.asked("localhost"), 0);
    let bench = Bench::new(&[]);
    assert_eq!(bench.ask("localhost").await.unwrap().1, "system");
    assert_eq!(bench.tailnet.qualify(&name("grafana")), Some(name("grafana.lab.ts.net")));
    assert_eq!(ips(&["::1"]).len(), 1);
}
