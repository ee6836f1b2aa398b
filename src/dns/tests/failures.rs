//! Nameservers that fail, are silent or know nothing; and whom nobody may ask.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::scripted_nameserver::{DnsReply, Standin, addresses, code, empty};
use super::{Lab, NameError, NameserverAddress, PATIENT, found, inside, name, zone};
use crate::labels::{DnsResult, DnsRoute};

async fn good() -> Standin {
    Standin::new(|question| vec![DnsReply::Say(addresses(question, &["10.0.0.1"]))]).await
}

async fn saying(what: ResponseCode) -> Standin {
    Standin::new(move |question| vec![DnsReply::Say(code(question, what))]).await
}

async fn silent() -> Standin {
    Standin::new(|_| vec![DnsReply::Silence]).await
}

#[tokio::test]
async fn d1_no_such_name_is_told_at_once_and_remembered() {
    let server = saying(ResponseCode::NXDomain).await;
    let lab = Lab::new(&[&server]);
    let start = Instant::now();
    let error = lab.ask("nobody.corp.example").await.unwrap_err();
    assert!(start.elapsed() < Duration::from_millis(5 * 100), "{:?}", start.elapsed());
    let (name, asked) = (name("nobody.corp.example"), "100.64.0.1".to_owned());
    assert_eq!(error, NameError::NotFound { name, route: DnsRoute::Split, asked });
    assert_eq!(lab.ask("nobody.corp.example").await, Err(error));
    assert_eq!(server.asked("nobody.corp.example"), 2);
}

#[tokio::test]
async fn d1_a_name_without_addresses_is_not_found_and_one_familys_word_is_not_enough() {
    let server = Standin::new(|question| vec![DnsReply::Say(empty(question))]).await;
    let error = Lab::new(&[&server]).ask("empty.corp.example").await.unwrap_err();
    assert_eq!(error.result(), DnsResult::Nxdomain);
    let server = Standin::new(|question| {
        vec![DnsReply::Say(match question.queries[0].query_type() {
            RecordType::A => addresses(question, &["10.0.0.1"]),
            _ => code(question, ResponseCode::NXDomain),
        })]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
}

#[tokio::test]
async fn d2_the_next_server_is_asked_after_a_failure() {
    for what in [ResponseCode::ServFail, ResponseCode::Refused] {
        let (bad, next) = (saying(what).await, good().await);
        let lab = Lab::new(&[&bad, &next]);
        assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
        assert_eq!((bad.questions(), next.questions()), (2, 2));
    }
}

#[tokio::test]
async fn d2_everybody_failing_is_told_with_what_each_said() {
    let (one, two) = (saying(ResponseCode::ServFail).await, saying(ResponseCode::Refused).await);
    let lab = Lab::new(&[&one, &two]);
    for round in 1..=2 {
        let error = lab.ask("db.corp.example").await.unwrap_err();
        let why = "100.64.0.1 says SERVFAIL; 100.64.0.2 says REFUSED".to_owned();
        let (name, asked) = (name("db.corp.example"), "100.64.0.1, 100.64.0.2".to_owned());
        assert_eq!(error, NameError::Failed { name, route: DnsRoute::Split, asked, why });
        assert_eq!(one.questions(), 2 * round, "a failure is not remembered");
    }
}

#[tokio::test]
async fn d2_a_server_that_is_not_there_is_passed_over() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = NameserverAddress::Address(closed.local_addr().unwrap());
    drop(closed);
    let mut zone = zone(1);
    zone.routes[0].1.insert(0, gone.clone());
    let next = good().await;
    let lab = Lab::of(zone.clone(), &[&next], PATIENT);
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
    zone.routes[0].1.truncate(1);
    let error = Lab::of(zone, &[], PATIENT).ask("db.corp.example").await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!((error.result(), error.route()), (DnsResult::Error, DnsRoute::Split));
}

#[tokio::test]
async fn d3_a_silent_server_is_a_timeout_within_the_deadline() {
    let (server, after) = (silent().await, Duration::from_millis(200));
    let lab = Lab::of(zone(1), &[&server], after);
    let start = Instant::now();
    let error = lab.ask("db.corp.example").await.unwrap_err();
    assert!(start.elapsed() < 5 * after, "{:?}", start.elapsed());
    let (name, asked) = (name("db.corp.example"), "100.64.0.1".to_owned());
    assert_eq!(error, NameError::Timeout { name, route: DnsRoute::Split, asked, after });
    server.until_left().await;
    lab.ask("db.corp.example").await.unwrap_err();
    assert_eq!(server.connections(), 2, "no second question over a dead connection");
}

#[tokio::test]
async fn d3_a_silent_server_does_not_use_up_the_time_of_the_next() {
    let (one, two) = (silent().await, good().await);
    let lab = Lab::new(&[&one, &two]);
    let start = Instant::now();
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn d9_internal_names_are_asked_of_nobody_else() {
    let server = good().await;
    let mut zone = zone(1);
    zone.global = vec![inside(1)];
    zone.routes.push((name("only.hosts.example"), Vec::new()));
    let other = NameserverAddress::Other("http://100.64.0.7:1234/dns-query".to_owned());
    zone.routes.push((name("sub.corp.example"), vec![other]));
    let lab = Lab::of(zone, &[&server], PATIENT);
    for unknown in ["x.lab.ts.net", "lab.ts.net", "a.only.hosts.example", "only.hosts.example"] {
        let asked = "MagicDNS".to_owned();
        let error = NameError::NotFound { name: name(unknown), route: DnsRoute::Magicdns, asked };
        assert_eq!(lab.ask(unknown).await, Err(error));
    }
    let error = lab.ask("db.sub.corp.example").await.unwrap_err();
    assert!(matches!(&error, NameError::NoNameserver { domain, skipped, .. }
        if *domain == name("sub.corp.example") && skipped.contains("100.64.0.7")));
    assert_eq!((error.result(), error.route()), (DnsResult::Error, DnsRoute::Split));
    assert_eq!(server.questions(), 0);
    assert_eq!(lab.ask("xlab.ts.net").await.unwrap().1, DnsRoute::Global, "whole labels");
}

#[tokio::test]
async fn d9_a_node_that_left_is_not_looked_for_outside() {
    let lab = Lab::of(zone(1), &[], PATIENT);
    let error = lab.ask("db.corp.example").await.unwrap_err();
    assert!(error.to_string().contains("no node of the tailnet"), "{error}");
}
