//! Records that are no addresses: by the same routes, remembered apart, and reverse names that stay here.
#![forbid(unsafe_code)]

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{MX, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::super::{DnsRecords, IpFamily, NameError, QueryKind};
use super::scripted_nameserver::{DnsReply, Standin, addresses, alias, asked, code, empty};
use super::{Lab, inside, name, zone};
use crate::labels::{DnsResult, DnsRoute};

async fn of(lab: &Lab, text: &str, kind: QueryKind) -> Result<DnsRecords, NameError> {
    lab.tailnet.resolve_records(&name(text), kind, &[]).await
}

fn data(kind: RecordType) -> Option<RData> {
    let host = |text: &str| Name::from_ascii(text).unwrap();
    Some(match kind {
        RecordType::TXT => RData::TXT(TXT::new(vec!["v=1".to_owned()])),
        RecordType::SRV => RData::SRV(SRV::new(1, 2, 5432, host("db.corp.example."))),
        RecordType::MX => RData::MX(MX::new(10, host("mail.corp.example."))),
        RecordType::PTR => RData::PTR(PTR(host("web.corp.example."))),
        _ => return None,
    })
}

/// A nameserver that has each of them for every name but `none.…` and `bare.…`.
async fn server() -> Standin {
    Standin::new(|question| {
        let (text, kind) = (asked(question), question.queries[0].query_type());
        let mut answer = empty(question);
        match text.as_str() {
            "none.corp.example" => answer = code(question, ResponseCode::NXDomain),
            "bare.corp.example" => answer = addresses(question, &["10.0.0.1"]),
            "alias.corp.example" => answer = alias(question, "end.corp.example."),
            _ => {
                let data = data(kind).unwrap();
                answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 60, data));
            }
        }
        vec![DnsReply::Say(answer)]
    })
    .await
}

const KINDS: [(QueryKind, RecordType); 3] = [
    (QueryKind::Txt, RecordType::TXT),
    (QueryKind::Srv, RecordType::SRV),
    (QueryKind::Mx, RecordType::MX),
];

#[tokio::test]
async fn each_kind_is_asked_of_the_domain_s_nameserver_and_remembered_apart() {
    let server = server().await;
    let lab = Lab::new(&[&server]);
    for (asked, (kind, record_type)) in (1..).zip(KINDS) {
        let told = of(&lab, "_pg._tcp.corp.example", kind).await.unwrap();
        assert_eq!((told.data, told.by), (vec![data(record_type).unwrap()], DnsRoute::Split));
        assert_eq!(told.left, Duration::from_secs(60));
        let kept = of(&lab, "_pg._tcp.corp.example", kind).await.unwrap();
        assert_eq!((kept.by, server.questions()), (DnsRoute::Cache, asked));
    }
    let told = of(&lab, "alias.corp.example", QueryKind::Txt).await.unwrap();
    assert_eq!(told.aliases, [Name::from_ascii("end.corp.example.").unwrap()]);
    assert_eq!(told.data.len(), 1);
    let nothing = of(&lab, "bare.corp.example", QueryKind::Mx).await.unwrap();
    assert!(nothing.data.is_empty() && nothing.addresses.is_empty());
    let none = of(&lab, "none.corp.example", QueryKind::Txt).await.unwrap_err();
    assert_eq!(none.result(), DnsResult::Nxdomain);
}

#[tokio::test]
async fn what_the_netmap_knows_is_asked_of_nobody() {
    let server = server().await;
    let mut zone = zone(1);
    zone.global = vec![inside(1)];
    let lab = Lab::of(zone, &[&server], super::PATIENT);
    for (kind, _) in KINDS {
        let told = of(&lab, "grafana.lab.ts.net", kind).await.unwrap();
        assert_eq!((told.data, told.addresses, told.by), (vec![], vec![], DnsRoute::Magicdns));
        let none = of(&lab, "_x.grafana.lab.ts.net", kind).await.unwrap_err();
        assert_eq!((none.route(), none.result()), (DnsRoute::Magicdns, DnsResult::Nxdomain));
    }
    assert_eq!(server.questions(), 0);
    let node = name("grafana.lab.ts.net");
    assert_eq!(lab.tailnet.find_pointer([100, 64, 0, 9].into()), Some(node));
    assert_eq!(lab.tailnet.find_pointer([100, 64, 0, 8].into()), None);
}

#[tokio::test]
async fn d9_reverse_names_of_private_networks_are_asked_of_split_dns_or_of_nobody() {
    let server = server().await;
    let mut zone = zone(1);
    zone.global = vec![inside(1)];
    zone.routes.push((name("50.10.in-addr.arpa"), vec![inside(1)]));
    let lab = Lab::of(zone, &[&server], super::PATIENT);
    let told = of(&lab, "7.0.50.10.in-addr.arpa", QueryKind::Ptr).await.unwrap();
    assert_eq!((told.data, told.by), (vec![data(RecordType::PTR).unwrap()], DnsRoute::Split));
    assert_eq!(server.questions(), 1);
    for private in [
        "7.0.51.10.in-addr.arpa",
        "1.1.168.192.in-addr.arpa",
        "8.0.64.100.in-addr.arpa",
        "168.192.in-addr.arpa",
    ] {
        for kind in [QueryKind::Ptr, QueryKind::Txt, QueryKind::Addresses(IpFamily::V4)] {
            let none = of(&lab, private, kind).await.unwrap_err();
            assert_eq!(
                (none.route(), none.result()),
                (DnsRoute::Magicdns, DnsResult::Nxdomain),
                "{private}"
            );
        }
    }
    assert_eq!(server.questions(), 1, "nobody else was asked");
    let public = of(&lab, "8.8.8.8.in-addr.arpa", QueryKind::Ptr).await.unwrap();
    assert_eq!((public.by, server.questions()), (DnsRoute::Global, 2));
}

#[tokio::test]
async fn d7_what_would_take_too_much_room_is_not_remembered() {
    let server = Standin::new(|question| {
        let mut answer = empty(question);
        for _ in 0..2 {
            let texts = (0..20).map(|n| format!("{n:0200}{}", answer.answers.len())).collect();
            let owner = question.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(owner, 60, RData::TXT(TXT::new(texts))));
        }
        vec![DnsReply::Say(answer)]
    });
    let server = server.await;
    let lab = Lab::new(&[&server]);
    for _ in 0..2 {
        let told = of(&lab, "big.corp.example", QueryKind::Txt).await.unwrap();
        assert_eq!((told.data.len(), told.left), (2, Duration::from_secs(60)));
    }
    assert_eq!(server.questions(), 2);
}
