//! Policy as a DNS client meets it: a name that is refused does not exist, and who asks why is told.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use crate::fixture::{self, Nameserver, ask, code, shown, why};
use tailrace_rig::Gateway;
use tailrace_rig::fake_tailnet::script::State;
use tailrace_rig::wait::PATIENCE;

/// One line of the log says so, however often it was asked.
#[track_caller]
fn said(gateway: &Gateway, name: &str, verdict: &str) {
    let says = |line: &Value| line["name"] == name && line["verdict"] == verdict;
    gateway.wait_for_log(says);
    let lines = gateway.log_lines();
    assert_eq!(lines.iter().filter(|line| says(line)).count(), 1, "{lines:?}");
}

#[test]
fn i5_policy_is_asked_first() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet(&nameserver);
    let decisions = |gateway: &Gateway, verdict: &str| {
        gateway.metrics().value("tailrace_policy_decisions_total", &[("verdict", verdict)])
    };
    let gateway = tailnet.gateway(|s| {
        s.enforce(&["ok.corp.example"]);
    });
    let dns = gateway.private_dns();
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME, RecordType::MX] {
        let denied = ask(dns, "secret.corp.example.", kind);
        assert_eq!((code(&denied), denied.answers.len()), (ResponseCode::NXDomain, 0), "{kind}");
    }
    assert_eq!(code(&ask(dns, "db.", RecordType::A)), ResponseCode::NXDomain);
    assert_eq!(nameserver.asked(), [""; 0]);
    assert_eq!(
        shown(&ask(dns, "ok.corp.example.", RecordType::A)),
        ["ok.corp.example. A 10.50.0.7"]
    );
    said(&gateway, "secret.corp.example", "deny");
    assert_eq!((decisions(&gateway, "deny"), decisions(&gateway, "allow")), (5.0, 1.0));
    let refused = [("route", "split"), ("result", "refused")];
    assert_eq!(gateway.metrics().value("tailrace_dns_queries_total", &refused), 4.0);

    let tailnet = fixture::tailnet(&nameserver);
    let gateway = tailnet.gateway(|s| {
        s.set("policy.allowed_host_suffixes", vec!["ok.corp.example"]);
    });
    let told = ask(gateway.private_dns(), "secret.corp.example.", RecordType::A);
    assert_eq!(shown(&told), ["secret.corp.example. A 10.50.0.7"]);
    assert_eq!(decisions(&gateway, "would_deny"), 1.0);
    said(&gateway, "secret.corp.example", "would_deny");
}

#[test]
fn a_refusal_says_that_it_was_policy() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet(&nameserver);
    let gateway = tailnet.gateway(|s| {
        s.enforce(&["ok.corp.example"]);
    });
    let dns = gateway.private_dns();
    let text = "refused by policy: no allowed suffix or glob".to_owned();
    for kind in [RecordType::A, RecordType::TXT, RecordType::HTTPS, RecordType::ANY] {
        let told = why(dns, "secret.corp.example.", kind);
        assert_eq!(told, (ResponseCode::NXDomain, 15, text.clone()), "{kind}");
    }
    let none = why(dns, "none.ok.corp.example.", RecordType::A);
    assert_eq!((none.0, none.1), (ResponseCode::NXDomain, 0), "nobody refused that");
    tailnet.become_state(State::Stopped);
    gateway.wait_not_ready("stopped", PATIENCE);
    let down = why(dns, "x.ok.corp.example.", RecordType::A);
    assert_eq!((down.0, down.1), (ResponseCode::ServFail, 14), "{}", down.2);
    assert!(!down.2.is_empty());
}

#[test]
fn i5_reverse_names_are_judged_as_their_addresses_and_what_they_tell_as_a_name() {
    let nameserver = Nameserver::start(&["10.50.0.7"]);
    let tailnet = fixture::tailnet_with(&nameserver, |s| {
        s.dns["Routes"]["10.in-addr.arpa"] = serde_json::json!([{"Addr": "100.64.0.1"}]);
    });
    let gateway = tailnet.gateway(|s| {
        s.enforce(&["db.lab.ts.net"]).set("policy.allowed_nets", vec!["10.50.0.0/16"]);
    });
    let dns = gateway.private_dns();
    let of = |name: &str| ask(dns, name, RecordType::PTR);
    let node = of("1.0.64.100.in-addr.arpa.");
    assert_eq!(shown(&node), ["1.0.64.100.in-addr.arpa. PTR db.lab.ts.net."]);
    let routed = of("7.0.50.10.in-addr.arpa.");
    assert_eq!(shown(&routed), ["7.0.50.10.in-addr.arpa. PTR web.corp.example."]);
    let before = nameserver.asked();
    assert_eq!(before, ["7.0.50.10.in-addr.arpa"]);
    // Not an allowed address, a node whose name is not allowed, and what no mode may reach.
    for denied in
        ["7.0.51.10.in-addr.arpa.", "9.0.64.100.in-addr.arpa.", "254.169.254.169.in-addr.arpa."]
    {
        assert_eq!(code(&of(denied)), ResponseCode::NXDomain, "{denied}");
    }
    assert_eq!(nameserver.asked(), before);
}
