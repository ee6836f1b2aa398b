//! What `explain` says of a target is what becomes of a connection to it: verdict, rule, DNS route, address and route of
//! the access line, over random settings, netmaps and DNS answers.
#![forbid(unsafe_code)]

use std::num::NonZeroU16;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::explain::explain;
use super::{Case, Protocol, Settings, ask_and_connect, target};
use crate::target::{Host, Target};

const ADDRESSES: [&str; 6] =
    ["10.50.0.7", "10.50.9.1", "192.0.2.1", "100.64.0.1", "127.0.0.1", "fd00::7"];

const ASKED: [&str; 16] = [
    "svc.lab.ts.net:80",
    "svc:80",
    "db:80",
    "nobody.lab.ts.net:80",
    "node.lab.ts.net:80",
    "db.corp.example:443",
    "www.example:80",
    "10.50.0.7:22",
    "10.50.9.1:22",
    "192.0.2.1:22",
    "[fd00::7]:80",
    "100.64.0.1:22",
    "100.64.0.9:80",
    "198.18.0.1:22",
    "198.18.0.2:22",
    "127.0.0.1:1055",
];

fn settings() -> impl Strategy<Value = Settings> {
    let some = |of: &'static [&'static str]| subsequence(of, 0..=of.len());
    (
        select(vec!["off", "log", "enforce"]),
        some(&["corp.example", ".lab.ts.net"]),
        some(&["10.50.0.0/16", "192.0.2.0/24", "100.64.0.1/32"]),
        some(&["10.50.9.0/24", "127.0.0.0/8", "fd00::/8"]),
        select(vec!["allow", "refuse"]),
        select(vec!["tailnet", "tailnet", "upstream"]),
        any::<bool>(),
    )
        .prop_map(
            |(mode, suffixes, mut nets, deny_nets, outside_tailnet, dns_mode, synthetic)| {
                if suffixes.is_empty() && nets.is_empty() {
                    nets.push("203.0.113.0/24"); // nothing at all is a mistake in mode enforce
                }
                let synthetic = synthetic && dns_mode == "tailnet";
                Settings { mode, suffixes, nets, deny_nets, outside_tailnet, dns_mode, synthetic }
            },
        )
}

fn case() -> impl Strategy<Value = Case> {
    let addresses = || subsequence(&ADDRESSES[..], 1..=3).prop_shuffle();
    let protocols = [Protocol::Socks5, Protocol::Connect, Protocol::Http, Protocol::Redirected];
    (
        settings(),
        proptest::bool::weighted(0.9),
        addresses(),
        any::<bool>(),
        any::<bool>(),
        proptest::option::weighted(0.8, addresses()),
        select(&ASKED[..]),
        select(protocols.to_vec()),
    )
        .prop_map(|(settings, running, service, online, routed, answers, asked, protocol)| {
            let by_address = target(asked).host.address().is_some() && asked.ends_with(":22");
            let protocol = match protocol {
                // Its server speaks first, so the client is not waited for to name one.
                Protocol::Redirected if !by_address => Protocol::Socks5,
                protocol => protocol,
            };
            Case { settings, running, service, online, routed, answers, asked, protocol }
        })
}

/// What the access line has to say of a target that is explained so: target, policy, DNS route, address and route.
fn foretold(explained: &Value, may_leave_tailnet: bool) -> Value {
    let rows = explained["addresses"].as_array().unwrap();
    let dialled =
        |row: &&Value| row["verdict"] != "deny" && (may_leave_tailnet || row["route"] != "outside");
    let first = rows.iter().find(dialled);
    let literal = (!rows.is_empty()).then_some("literal");
    json!({
        "target": explained["target"],
        "policy": explained["policy"],
        "resolved_by": explained["dns"]["route"].as_str().or(literal),
        "address": first.or(rows.first()).map(|row| &row["address"]),
        "route": first.map(|row| &row["route"]),
    })
}

fn recorded(line: &Value) -> Value {
    let host = Host::parse(line["host"].as_str().unwrap().as_bytes()).unwrap();
    let port = NonZeroU16::new(line["port"].as_u64().unwrap().try_into().unwrap()).unwrap();
    json!({
        "target": Target { host, port }.to_string(),
        "policy": line["policy"],
        "resolved_by": line["resolved_by"],
        "address": line["address"],
        "route": line["route"],
    })
}

/// Whether the outcome is one that was foretold: a refusal for a refusal, a fault for a fault.
fn outcome_fits(explained: &Value, line: &Value) -> bool {
    let outcome = line["outcome"].as_str().unwrap();
    let by_policy = ["denied", "loop"].contains(&outcome);
    let by_fault = ["dns_error", "dns_timeout", "unreachable", "upstream_down"].contains(&outcome);
    let offline = explained["addresses"]
        .as_array()
        .is_some_and(|rows| !rows.is_empty() && rows.iter().all(|row| row["online"] == false));
    let refused_by_policy =
        explained["refused"] == true && explained["policy"]["verdict"].is_string();
    match (refused_by_policy, explained["fault"].is_object()) {
        (true, _) => by_policy,
        (false, true) if offline => !by_policy, // the stand-in reaches everybody
        (false, true) => by_fault,
        (false, false) => !by_policy && !by_fault,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_explained_is_what_is_written_down(case in case()) {
        let (explained, line) = ask_and_connect(&case, async |gateway_state| {
            let answer = explain(gateway_state, case.asked, target(case.asked)).await;
            serde_json::to_value(answer).unwrap()
        });
        let may_leave_tailnet = case.settings.outside_tailnet == "allow";
        prop_assert_eq!(
            foretold(&explained, may_leave_tailnet), recorded(&line),
            "\nexplained: {}\nwritten down: {}", explained, line
        );
        prop_assert!(
            outcome_fits(&explained, &line), "\nexplained: {}\nwritten down: {}", explained, line
        );
    }
}
