//! By which way a name goes, and netmaps that change.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::scripted_nameserver::{DnsReply, Standin, addresses};
use super::{Lab, NameserverAddress, PATIENT, found, inside, ips, name, zone};
use crate::dns::{DnsResolver, ResolvePlan};
use crate::labels::{DnsRoute, ResolvedBy};

#[tokio::test]
async fn nodes_are_known_without_asking() {
    let server = Standin::new(|_| vec![DnsReply::Silence]).await;
    let lab = Lab::new(&[&server]);
    let node = ["100.64.0.9", "fd7a:115c:a1e0::9"];
    assert_eq!(lab.ask("grafana.lab.ts.net").await, found(&node, DnsRoute::Magicdns));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn b21_a_bare_name_is_the_tailnets_when_it_has_it() {
    let lab = Lab::new(&[]);
    let whole = |text| lab.tailnet.qualify(&name(text));
    assert_eq!(whole("grafana"), Some(name("grafana.lab.ts.net")));
    assert_eq!(whole("db"), None);
    assert_eq!(whole("grafana.lab"), None);
    assert_eq!(whole(&"a".repeat(63)), None);
}

#[test]
fn the_longest_route_wins_and_a_plan_asks_nobody() {
    let mut zone = zone(2);
    let other = || NameserverAddress::Other("tls://1.1.1.1".to_owned());
    zone.routes.push((name("eu.corp.example"), vec![inside(3), other()]));
    zone.routes.push((name("de.eu.corp.example"), Vec::new()));
    zone.routes.push((name("grafana.lab.ts.net"), vec![inside(4)]));
    zone.hosts.insert(name("wiki.corp.example"), ips(&["100.64.0.8"]));
    let https =
        NameserverAddress::Https { url: "https://dns.example/q".to_owned(), bootstrap: Vec::new() };
    let at = "192.0.2.1:5353".parse().unwrap();
    zone.global = vec![https, NameserverAddress::Address(at), other()];
    let lab = Lab::of(zone.clone(), &[], PATIENT);
    let plan = |text: &str| {
        let ResolvePlan { by, suffix, nameservers, skipped } = lab.tailnet.plan(&name(text));
        let suffix = suffix.map(|suffix| suffix.to_string()).unwrap_or_default();
        format!("{by} {suffix} [{}] [{}]", nameservers.join(" "), skipped.join(" "))
    };
    for (text, expected) in [
        ("grafana.lab.ts.net", "magicdns lab.ts.net [] []"),
        ("x.grafana.lab.ts.net", "magicdns lab.ts.net [] []"),
        ("wiki.corp.example", "magicdns  [] []"),
        ("corp.example", "split corp.example [100.64.0.1 100.64.0.2] []"),
        ("a.b.corp.example", "split corp.example [100.64.0.1 100.64.0.2] []"),
        ("eu.corp.example", "split eu.corp.example [100.64.0.3] [tls://1.1.1.1]"),
        ("a.de.eu.corp.example", "magicdns de.eu.corp.example [] []"),
        ("xcorp.example", "global  [https://dns.example 192.0.2.1:5353] [tls://1.1.1.1]"),
        ("localhost", "system  [] [tls://1.1.1.1]"),
    ] {
        assert_eq!(plan(text), expected, "{text}");
    }
    zone.global = vec![other()];
    let plan = Lab::of(zone, &[], PATIENT).tailnet.plan(&name("www.example"));
    assert_eq!(
        (plan.by, plan.skipped),
        (DnsRoute::System.into(), vec!["tls://1.1.1.1".to_owned()])
    );
}

#[tokio::test]
async fn a_new_netmap_takes_effect_with_the_next_name() {
    let told = |address: &'static str| {
        Standin::new(move |question| vec![DnsReply::Say(addresses(question, &[address]))])
    };
    let (one, two) = (told("10.0.0.1").await, told("10.0.0.2").await);
    let lab = Lab::of(zone(1), &[&one, &two], PATIENT);
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
    lab.zone.store(Arc::new(zone(1)));
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.1"], DnsRoute::Cache), "the same");
    let mut changed = zone(1);
    changed.routes[0].1 = vec![inside(2)];
    changed.hosts.insert(name("db.lab.ts.net"), ips(&["100.64.0.10"]));
    lab.zone.store(Arc::new(changed));
    assert_eq!(lab.ask("db.corp.example").await, found(&["10.0.0.2"], DnsRoute::Split));
    assert_eq!(lab.ask("db.lab.ts.net").await, found(&["100.64.0.10"], DnsRoute::Magicdns));
    assert_eq!(lab.tailnet.qualify(&name("db")), Some(name("db.lab.ts.net")));
    one.until_left().await;
    assert_eq!((one.questions(), two.questions()), (2, 2));
}

#[test]
fn other_modes_plan_and_qualify_nothing() {
    use crate::dns::{ResolveMode, ResolverSettings};
    for (mode, route) in [
        (ResolveMode::Upstream, ResolvedBy::Upstream),
        (ResolveMode::System, DnsRoute::System.into()),
    ] {
        let settings = ResolverSettings { mode, timeout: PATIENT, cache_entries: 10, mark: None };
        let names = DnsResolver::new(settings, Lab::new(&[]).zone, None);
        assert_eq!(names.plan(&name("grafana.lab.ts.net")).by, route);
        assert_eq!(names.qualify(&name("grafana")), None);
    }
}
