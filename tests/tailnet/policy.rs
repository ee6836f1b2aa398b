//! A name outside the suffix list: written down in log mode, refused in enforce mode, and then
//! nothing of it reaches tailscaled.

use crate::case::Case;
use crate::counter::Counter;
use crate::curl::{Answer, Curl, Inbound};
use crate::gateway::Gateway;
use crate::tailnet::Tailnet;

/// What the product's comma-separated field may hold; `svc.lab.ts.net` is in it, `svc` is not.
const SUFFIXES: (&str, &str) =
    ("TAILRACE_POLICY_ALLOWED_HOST_SUFFIXES", ".internal.example.com, .ts.net");

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("log_mode_carries_and_writes_would_deny", log_mode),
        case("enforce_mode_refuses_and_tailscaled_hears_nothing", enforce_mode),
        case("deny_nets_hold_in_log_mode", deny_nets),
    ]
}

fn gateway(tailnet: &Tailnet, mode: &str) -> (Gateway, Counter) {
    let counter = Counter::start(tailnet);
    let settings = [("TAILRACE_POLICY_MODE", mode), SUFFIXES];
    (Gateway::start(tailnet, mode, &counter.address, &settings), counter)
}

fn log_mode(tailnet: &Tailnet) {
    let (gateway, counter) = gateway(tailnet, "log");
    for (host, verdict) in [("svc", "would_deny"), ("svc.lab.ts.net", "allow")] {
        for inbound in Inbound::BY_PROXY.into_iter().filter(|i| i.carries_names()) {
            let (mark, before) = (gateway.mark(), counter.requests().len());
            let answer = Curl::new(&gateway, inbound, host, "/hello").run(tailnet);
            assert_eq!((answer.exit, answer.status), (0, 200), "{inbound:?} {host}: {answer:?}");
            let line = gateway.access_after(mark);
            assert_eq!(line["policy"]["mode"], "log", "{line}");
            assert_eq!(line["policy"]["verdict"], verdict, "{line}");
            assert_eq!(counter.requests().len(), before + 1, "{:?}", counter.requests());
        }
    }
    gateway.stop();
}

fn enforce_mode(tailnet: &Tailnet) {
    let (gateway, counter) = gateway(tailnet, "enforce");
    for inbound in Inbound::BY_PROXY {
        let mark = gateway.mark();
        // Inbounds without names ask for an address, which no allowed_nets admits.
        let host = if inbound.carries_names() { "svc" } else { &tailnet.svc };
        let answer = Curl::new(&gateway, inbound, host, "/hello").run(tailnet);
        refused(inbound, &answer, 403);
        let line = gateway.access_after(mark);
        assert_eq!(line["outcome"], "denied", "{line}");
        assert_eq!(line["policy"]["verdict"], "deny", "{line}");
        assert_eq!(counter.requests(), Vec::<String>::new(), "{inbound:?} reached tailscaled");
    }
    let answer = Curl::new(&gateway, Inbound::Connect, "svc.lab.ts.net", "/hello").run(tailnet);
    assert_eq!((answer.exit, answer.status), (0, 200), "an allowed name: {answer:?}");
    let requests = counter.requests();
    assert!(requests.len() == 1 && requests[0].contains("svc.lab.ts.net"), "{requests:?}");
    gateway.stop();
}

/// tailscaled itself would dial these from the sandbox's own network.
fn deny_nets(tailnet: &Tailnet) {
    let (gateway, counter) = gateway(tailnet, "log");
    for host in ["127.0.0.1", "169.254.169.254"] {
        for inbound in Inbound::BY_PROXY {
            let mark = gateway.mark();
            // curl keeps 127.0.0.1 to itself unless told that nothing is excepted.
            let curl = Curl::new(&gateway, inbound, host, "/hello").with(&["--noproxy", ""]);
            refused(inbound, &curl.run(tailnet), 403);
            assert_eq!(gateway.access_after(mark)["outcome"], "denied", "{inbound:?} {host}");
        }
    }
    assert_eq!(counter.requests(), Vec::<String>::new());
    gateway.stop();
}

/// How curl sees a refusal: an HTTP status, or a SOCKS reply that is not success.
pub fn refused(inbound: Inbound, answer: &Answer, status: u16) {
    match inbound {
        Inbound::Forward => {
            assert_eq!((answer.exit, answer.status), (0, status), "{inbound:?}: {answer:?}");
        }
        Inbound::Connect => {
            assert_eq!(
                (answer.exit, answer.connect_status),
                (56, status),
                "{inbound:?}: {answer:?}"
            );
        }
        _ => assert_eq!(answer.exit, 97, "{inbound:?}: {answer:?}"),
    }
}
