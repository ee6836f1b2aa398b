//! What a DNS client is told: families apart, aliases, lives that count down.
#![forbid(unsafe_code)]

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use super::super::{DnsRecords, IpFamily, NameError, QueryKind};
use super::scripted_nameserver::{DnsReply, Standin, addresses, alias, asked, code, with_ttl};
use super::{Lab, ips, name, zone};
use crate::labels::{DnsResult, DnsRoute};

impl Lab {
    async fn records(&self, text: &str, family: IpFamily) -> Result<DnsRecords, NameError> {
        self.tailnet.resolve_records(&name(text), QueryKind::Addresses(family), &[]).await
    }
}

fn told(records: &DnsRecords) -> (Vec<String>, Vec<String>, DnsRoute) {
    let text = |names: &[Name]| names.iter().map(Name::to_ascii).collect();
    let addresses = records.addresses.iter().map(ToString::to_string).collect();
    (text(&records.aliases), addresses, records.by)
}

#[tokio::test]
async fn only_the_family_asked_for_is_asked_for() {
    let server = Standin::new(|question| {
        vec![DnsReply::Say(match asked(question).as_str() {
            "v4.corp.example" => addresses(question, &["10.0.0.1"]),
            "none.corp.example" => code(question, ResponseCode::NXDomain),
            _ => addresses(question, &["10.0.0.1", "fd00::1"]),
        })]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let v4 = lab.records("db.corp.example", IpFamily::V4).await.unwrap();
    assert_eq!(told(&v4), (vec![], vec!["10.0.0.1".to_owned()], DnsRoute::Split));
    assert_eq!(server.asked("db.corp.example"), 1);
    let v6 = lab.records("db.corp.example", IpFamily::V6).await.unwrap();
    assert_eq!(told(&v6), (vec![], vec!["fd00::1".to_owned()], DnsRoute::Split));
    let empty = lab.records("v4.corp.example", IpFamily::V6).await.unwrap();
    assert_eq!(empty.addresses, ips(&[]), "the name is there, with no address of this family");
    let none = lab.records("none.corp.example", IpFamily::V4).await.unwrap_err();
    assert!(matches!(none, NameError::NotFound { .. }), "{none}");
}

#[tokio::test]
async fn d7_a_remembered_answer_counts_down() {
    let server =
        Standin::new(|question| vec![DnsReply::Say(with_ttl(question, &["10.0.0.1"], 60))]);
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let minute = Duration::from_secs(60);
    let fresh = lab.records("db.corp.example", IpFamily::V4).await.unwrap();
    assert_eq!((fresh.left, fresh.by), (minute, DnsRoute::Split));
    let kept = lab.records("db.corp.example", IpFamily::V4).await.unwrap();
    assert!(kept.left < minute && kept.left > minute / 2, "{:?}", kept.left);
    assert_eq!((kept.by, server.asked("db.corp.example")), (DnsRoute::Cache, 1));
}

#[tokio::test]
async fn d7_lives_are_bounded_whatever_the_nameserver_says() {
    let server = Standin::new(|question| {
        let ttl = if asked(question).starts_with("long") { 1 << 31 } else { 0 };
        vec![DnsReply::Say(with_ttl(question, &["10.0.0.1"], ttl))]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    for (text, seconds) in [("long.corp.example", 300), ("short.corp.example", 1)] {
        let records = lab.records(text, IpFamily::V4).await.unwrap();
        assert_eq!(records.left, Duration::from_secs(seconds), "{text}");
    }
}

#[tokio::test]
async fn d7_nothing_there_is_remembered_for_seconds() {
    let server = Standin::new(|question| {
        let mut answer = addresses(question, &[]);
        let of = |text: &str| Name::from_ascii(text).unwrap();
        let soa = SOA::new(of("ns.corp.example."), of("x.corp.example."), 1, 2, 3, 4, 3600);
        answer.add_authority(Record::from_rdata(of("corp.example."), 3600, RData::SOA(soa)));
        vec![DnsReply::Say(answer)]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    for _ in 0..2 {
        let records = lab.records("db.corp.example", IpFamily::V6).await.unwrap();
        assert!(records.addresses.is_empty() && records.left <= Duration::from_secs(5));
    }
    assert_eq!(server.asked("db.corp.example"), 1);
}

#[tokio::test]
async fn b23_aliases_are_told_in_their_order_from_message_to_message() {
    let server = Standin::new(|question| {
        vec![DnsReply::Say(match asked(question).as_str() {
            "db.corp.example" => alias(question, "b.corp.example."),
            "b.corp.example" => alias(question, "c.elsewhere.example."),
            "magic.corp.example" => alias(question, "grafana.lab.ts.net."),
            _ => addresses(question, &["10.0.0.3"]),
        })]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let records = lab.records("db.corp.example", IpFamily::V4).await.unwrap();
    let chain = text(&["b.corp.example.", "c.elsewhere.example."]);
    assert_eq!(told(&records), (chain, text(&["10.0.0.3"]), DnsRoute::Split));
    let records = lab.records("magic.corp.example", IpFamily::V6).await.unwrap();
    let node = (text(&["grafana.lab.ts.net."]), text(&["fd7a:115c:a1e0::9"]), DnsRoute::Split);
    assert_eq!(told(&records), node);
}

#[tokio::test]
async fn what_nobody_is_asked_for_is_told_by_the_same_routes() {
    let lab = Lab::new(&[]);
    let node = lab.records("grafana.lab.ts.net", IpFamily::V4).await.unwrap();
    assert_eq!(told(&node), (vec![], vec!["100.64.0.9".to_owned()], DnsRoute::Magicdns));
    assert_eq!(node.left, Duration::from_secs(5));
    let nobody = lab.records("nobody.lab.ts.net", IpFamily::V4).await.unwrap_err();
    assert_eq!((nobody.route(), nobody.result()), (DnsRoute::Magicdns, DnsResult::Nxdomain));
    let own = lab.records("localhost", IpFamily::V4).await.unwrap();
    assert_eq!((own.by, own.left), (DnsRoute::System, Duration::ZERO));
    assert!(own.addresses.iter().all(std::net::IpAddr::is_ipv4));
}

#[tokio::test]
async fn d10_a_thousand_clients_are_one_question_of_each_family() {
    let server =
        Standin::new(|question| vec![DnsReply::Say(addresses(question, &["10.0.0.1", "fd00::1"]))]);
    let server = server.await;
    let lab = Lab::of(zone(1), &[&server], super::PATIENT);
    let families = [IpFamily::V4, IpFamily::V6].into_iter().cycle().take(1000);
    let all = families.map(|family| lab.records("db.corp.example", family));
    let answers = futures_util::future::join_all(all).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().addresses.len() == 1));
    assert_eq!(server.asked("db.corp.example"), 2);
}
