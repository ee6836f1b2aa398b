//! By which route a name is asked: the netmap's changes, global resolvers, names passed on, and what
//! `explain` tells of each.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::lab::{self, HOST, Lab, both_ways};
use tailrace_rig::fake_tailnet::script::Script;
use tailrace_rig::system_nameserver::Record;
use tailrace_rig::wait::eventually;
use tailrace_rig::{HttpOrigin, Inbound, Nameserver, SystemNameserver, netns};

const SOON: Duration = Duration::from_secs(5);
/// A host outside the tailnet.
pub const OUTSIDE: &str = "192.0.2.7";

/// Global resolvers, and a public host that they know.
fn global(resolvers: &[&str], origin: SocketAddr) -> impl FnOnce(&mut Script) + use<> {
    let resolvers = lab::servers(resolvers);
    move |script| {
        script.dns["Resolvers"] = resolvers;
        script.places.insert(OUTSIDE.to_owned(), origin);
    }
}

#[test]
fn d9_a_netmap_change_takes_effect_without_a_restart() {
    both_ways(|kind| {
        let (one, two) = (Nameserver::at(&[HOST]), Nameserver::at(&["10.50.0.17"]));
        let mut lab = Lab::of(kind, &[&one]);
        let address = lab.origin.address();
        let pid = lab.tailnet.pid();
        lab.reaches(Inbound::Socks5, "db.corp.example", "split", HOST);
        lab.tailnet.change(|script| {
            script.places.insert("10.50.0.17".to_owned(), address);
            script.places.insert("10.50.0.54:53".to_owned(), two.address());
            script.dns["Routes"]["corp.example."] = lab::servers(&["10.50.0.54"]);
            script.dns["ExtraRecords"] = json!([{"Name": "wiki.lab.ts.net.", "Value": HOST}]);
        });
        let first = |told: Value| told["dns"]["addresses"][0].clone();
        eventually("the new nameserver is asked", SOON, || {
            first(lab.explain("db.corp.example:80")) == "10.50.0.17"
        });
        lab.reaches(Inbound::Socks5, "db.corp.example", "cache", "10.50.0.17");
        lab.reaches(Inbound::Socks5, "new.corp.example", "split", "10.50.0.17");
        lab.reaches(Inbound::Socks5, "wiki", "magicdns", HOST);
        lab.tailnet.change(|script| script.dns["ExtraRecords"] = Value::Null);
        eventually("the record is gone", SOON, || {
            first(lab.explain("wiki.lab.ts.net:80")) == Value::Null
        });
        lab.refuses(Inbound::Socks5, "wiki.lab.ts.net", "dns_error", "magicdns");
        assert_eq!((one.questions().len(), two.questions().len()), (2, 4));
        assert_eq!((lab.tailnet.pid(), lab.tailnet.starts().len()), (pid, 1));
        lab.gateway.settle_and_check(5);
    });
}

#[test]
fn d9_the_longest_route_is_asked_and_a_route_without_nameservers_asks_nobody() {
    let (wide, narrow) = (Nameserver::at(&["10.50.0.99"]), Nameserver::at(&[HOST]));
    let mut lab = Lab::with(
        "tailscaled",
        &[&wide, &narrow],
        |script| {
            script.dns["Routes"] = json!({
                "corp.example.": [{"Addr": "100.64.0.1"}], "eu.corp.example": [{"Addr": "10.50.0.53"}],
                "closed.corp.example": [], "odd.corp.example": [{"Addr": "http://100.64.0.1:1/dns-query"}],
            });
        },
        |_| (),
    );
    lab.reaches(Inbound::Socks5, "db.eu.corp.example", "split", HOST);
    lab.refuses(Inbound::Socks5, "db.closed.corp.example", "dns_error", "magicdns");
    lab.refuses(Inbound::Socks5, "db.odd.corp.example", "dns_error", "split");
    let said = lab.sentence("db.odd.corp.example", "dns_error");
    let wanted = "db.odd.corp.example: no nameserver of odd.corp.example can be asked \
                  (http://100.64.0.1:1/dns-query): give the DNS route a nameserver by address or \
                  by https://";
    assert_eq!(said, wanted);
    assert_eq!((wide.questions().len(), narrow.questions().len()), (0, 2));
    lab.gateway.settle_and_check(4);
}

/// A global resolver at `at`, or else where the nameserver itself listens, outside the tailnet.
fn ask_globally(at: Option<&str>) {
    let (server, split) = (Nameserver::at(&[OUTSIDE]), Nameserver::silent());
    let origin = HttpOrigin::ok("found");
    let outside = server.address().to_string();
    let change = global(&[at.unwrap_or(&outside)], origin.address());
    let inside = |script: &mut Script| {
        change(script);
        script.places.extend(at.map(|at| (format!("{at}:53"), server.address())));
    };
    let mut lab = Lab::with("tailscaled", &[&split], inside, |s| {
        s.set("dns.timeout", "300ms");
    });
    let line = lab.reaches(Inbound::Socks5, "www.public.example", "global", OUTSIDE);
    assert_eq!(line["route"], "outside");
    lab.reaches(Inbound::Socks5, "www.public.example", "cache", OUTSIDE);
    lab.refuses(Inbound::Socks5, "db.corp.example", "dns_timeout", "split");
    lab.refuses(Inbound::Socks5, "nobody.lab.ts.net", "dns_error", "magicdns");
    let asked: Vec<String> = server.questions().into_iter().map(|(name, _)| name).collect();
    assert_eq!(asked, ["www.public.example", "www.public.example"], "no internal name");
    let through =
        lab.tailnet.asked().into_iter().filter(|target| target == "10.50.0.54:53").count();
    assert_eq!(through, usize::from(at.is_some()), "through the tailnet");
    let counts = ["global", "cache"].map(|route| lab.count(route, "ok"));
    assert_eq!((counts, lab.count("split", "timeout"), lab.counts()), ([1, 1], 1, 4));
    lab.gateway.settle_and_check(4);
}

#[test]
fn d9_a_global_resolver_inside_the_tailnet_hears_no_internal_name() {
    ask_globally(Some("10.50.0.54"));
}

#[test]
fn d9_a_global_resolver_outside_the_tailnet_hears_no_internal_name() {
    ask_globally(None);
}

#[test]
fn d9_a_global_resolver_that_left_the_tailnet_is_not_looked_for_outside() {
    let origin = HttpOrigin::ok("found");
    both_ways(|kind| {
        let change = global(&["100.64.0.77"], origin.address());
        let mut lab = Lab::with(kind, &[], change, |_| ());
        lab.refuses(Inbound::Socks5, "www.public.example", "dns_error", "global");
        let said = lab.sentence("www.public.example", "dns_error");
        assert!(said.contains("no node of the tailnet has this address"), "{said}");
        assert!(lab.tailnet.asked().is_empty(), "{:?}", lab.tailnet.asked());
        lab.gateway.settle_and_check(2);
    });
}

#[test]
fn names_are_passed_on_where_that_is_set() {
    both_ways(|kind| {
        let server = Nameserver::at(&[HOST]);
        let origin = HttpOrigin::ok("found");
        let place = |script: &mut Script| {
            script.places.insert("100.64.0.1".to_owned(), origin.address());
        };
        let mut lab = Lab::with(kind, &[&server], place, |s| {
            s.set("dns.mode", "upstream");
        });
        for inbound in Inbound::NAMED {
            let line = tailrace_rig::fetch(lab.gateway.proxy(), inbound, "db.lab.ts.net:80");
            assert_eq!(line.body, b"found");
        }
        assert_eq!(lab.dialled(), vec!["db.lab.ts.net:80"; 4], "as it was asked for");
        let outcome = if kind == "localapi" { "dns_error" } else { "upstream_failed" };
        lab.refuses(Inbound::Socks5, "db.corp.example", outcome, "upstream");
        assert_eq!((server.questions().len(), lab.counts()), (0, 0));
        assert_eq!(lab.explain("db.lab.ts.net")["dns"]["route"], "upstream");
        lab.gateway.settle_and_check(5);
        let lines = lab.gateway.access_lines();
        assert!(lines.iter().all(|l| l["resolved_by"] == "upstream"), "{lines:?}");
    });
}

/// What the command prints as JSON; the time it took left out.
fn told_by_command(lab: &mut Lab, target: &str) -> Value {
    let config = lab.gateway.setup().config();
    let config = config.to_string_lossy().into_owned();
    let output = lab.gateway.setup().run(&["explain", target, "--json", "--config", &config]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn timeless(mut told: Value) -> Value {
    if told["dns"].is_object() {
        assert!(told["dns"]["took_ms"].take().is_u64(), "{told}");
    }
    told
}

fn dns(route: &str, suffix: Option<&str>, servers: &[&str], addresses: &[&str]) -> Value {
    json!({"route": route, "suffix": suffix, "nameservers": servers, "skipped": [],
        "addresses": addresses, "took_ms": null, "error": null})
}

fn address(ip: &str, net: Option<&str>) -> Value {
    let peer = net.map(|_| "db");
    let (route, online) =
        if net.is_some() { ("tailnet", json!(true)) } else { ("outside", json!(null)) };
    json!({"address": ip, "verdict": "allow", "rule": null, "route": route, "peer": peer,
        "net": net, "online": online})
}

#[test]
fn explain_tells_every_route() {
    netns::inside(|| {
        let public = Record { alias: None, address: OUTSIDE.parse().unwrap() };
        let asked = SystemNameserver::take_over([public]);
        let server = Nameserver::at(&[HOST]);
        let wide = Nameserver::at(&[OUTSIDE]);
        let mut lab = Lab::of("tailscaled", &[&server]);
        let peer = ["100.64.0.1", "fd7a:115c:a1e0::1"];
        let nets = [Some("100.64.0.1/32"), Some("fd7a:115c:a1e0::1/128")];
        let ours: Vec<Value> = peer.iter().zip(nets).map(|(ip, net)| address(ip, net)).collect();
        let route = |net| vec![address(HOST, net)];
        let suffix = Some("lab.ts.net");
        let magic = dns("magicdns", suffix, &[], &peer);
        let split = dns("split", Some("corp.example"), &["100.64.0.1"], &[HOST]);
        let system = dns("system", None, &[], &[OUTSIDE]);
        for (target, canonical, dns, addresses) in [
            ("db", "db.lab.ts.net:443", magic.clone(), ours.clone()),
            ("DB.lab.ts.net.:80", "db.lab.ts.net:80", magic, ours),
            ("g.corp.example:80", "g.corp.example:80", split, route(Some("10.50.0.0/16"))),
            ("www.example:80", "www.example:80", system, vec![address(OUTSIDE, None)]),
            ("10.50.0.7:80", "10.50.0.7:80", Value::Null, route(Some("10.50.0.0/16"))),
        ] {
            let told = timeless(lab.explain(target));
            let wanted = json!({"target": canonical, "asked": target,
                "policy": {"mode": "log", "verdict": "allow", "rule": null}, "refused": false,
                "dns": dns, "addresses": addresses, "tailnet": {"state": "running"}, "fault": null,
                "clients": []});
            assert_eq!(told, wanted, "{target}");
            assert_eq!(timeless(told_by_command(&mut lab, target)), wanted, "{target}");
        }
        lab.tailnet.change(|script| {
            script.dns["Resolvers"] = lab::servers(&[&wide.address().to_string()]);
        });
        eventually("a global resolver", SOON, || {
            lab.explain("www.example")["dns"]["route"] == "global"
        });
        let told = timeless(lab.explain("ww2.example:80"));
        let resolver = wide.address().to_string();
        assert_eq!(told["dns"], dns("global", None, &[&resolver], &[OUTSIDE]), "{told}");
        let told = lab.explain("nobody.lab.ts.net");
        assert_eq!(told["fault"]["symptom"], "the internal name does not resolve", "{told}");
        assert_eq!(told["dns"]["route"], "magicdns");
        let asked = asked.questions();
        assert!(asked.iter().all(|(name, _)| name == "www.example"), "{asked:?}");
        assert!(lab.dialled().is_empty() && lab.gateway.access_lines().is_empty(), "only told");
    });
}
