//! curl reaches the private services through the gateway, over each inbound.

use crate::case::{Case, Need};
use crate::curl::{Curl, Inbound};
use crate::tailnet::{BEHIND_ROUTE, PORT, Tailnet};

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("curl_reaches_svc_over_socks5", |t| reach(t, Inbound::Socks5)),
        case("curl_reaches_svc_over_socks5h", |t| reach(t, Inbound::Socks5Name)),
        case("curl_reaches_svc_over_socks4", |t| reach(t, Inbound::Socks4)),
        case("curl_reaches_svc_over_socks4a", |t| reach(t, Inbound::Socks4a)),
        case("curl_reaches_svc_over_connect", |t| reach(t, Inbound::Connect)),
        case("curl_reaches_svc_over_http_forward", |t| reach(t, Inbound::Forward)),
        case("curl_reaches_svc_redirected_by_nft", redirected).needing(Need::Command("nft")),
    ]
}

/// The bare name, the full name, the 100.x address and an address behind the subnet route.
fn reach(tailnet: &Tailnet, inbound: Inbound) {
    let gateway = tailnet.gateway();
    let svc = tailnet.svc.as_str();
    let targets = [
        ("svc", svc, "127.0.0.1"),
        ("svc.lab.ts.net", svc, "127.0.0.1"),
        (svc, svc, "127.0.0.1"),
        (BEHIND_ROUTE, BEHIND_ROUTE, BEHIND_ROUTE),
    ];
    for (host, address, answered_by) in targets {
        let mark = gateway.mark();
        let mut curl = Curl::new(gateway, inbound, host, "/hello");
        if host != address && !inbound.carries_names() {
            curl = curl.resolving(host, address);
        }
        let answer = curl.run(tailnet);
        assert_eq!((answer.exit, answer.status), (0, 200), "{inbound:?} to {host}: {answer:?}");
        let hello = format!("hello from {answered_by}:{PORT} to {host}:{PORT}\n");
        assert_eq!(answer.body, hello, "{inbound:?} to {host}");
        let asked = if inbound.carries_names() { host } else { address };
        let line = gateway.access_after(mark);
        assert_eq!(line["inbound"], inbound.label(), "{line}");
        assert_eq!(line["port"], PORT, "{line}");
        assert_eq!(line["outcome"], inbound.good_end(), "{line}");
        assert!(line["bytes_down"].as_u64() >= Some(hello.len() as u64), "{line}");
        // A redirected client names nobody: its Host field is all there is to go by.
        if inbound != Inbound::Redirected {
            assert!(line["host"] == asked || line["address"] == asked, "{asked}: {line}");
        }
    }
}

/// An nft rule sends curl's connections to the gateway. The destinations are routed to loopback, so
/// that a connection the rule missed would reach nothing.
fn redirected(tailnet: &Tailnet) {
    let port = tailnet.gateway().port();
    let nets = ["100.64.0.0/10", "10.50.0.0/24"];
    for net in nets {
        tailnet.sandboxed.must("ip", &["route", "add", net, "dev", "lo"]);
    }
    tailnet.sandboxed.must(
        "nft",
        &["add table ip proof; add chain ip proof out { type nat hook output priority -100; }"],
    );
    let rule = format!(
        "add rule ip proof out ip daddr {{ {} }} meta l4proto tcp redirect to :{port}",
        nets.join(", ")
    );
    tailnet.sandboxed.must("nft", &[&rule]);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        reach(tailnet, Inbound::Redirected);
    }));
    tailnet.sandboxed.must("nft", &["delete table ip proof"]);
    for net in nets {
        tailnet.sandboxed.must("ip", &["route", "del", net, "dev", "lo"]);
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
