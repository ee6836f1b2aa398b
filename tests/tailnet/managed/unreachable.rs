//! What the tailnet does not lead to: the outcome on every wire, and doctor's words for it.

use crate::case::Case;
use crate::curl::{Curl, Inbound};
use crate::gateway::Gateway;
use crate::managed::{BY_NAME, Kind, refused_with};
use crate::process::wait_for;
use crate::tailnet::{PORT, Tailnet, UNROUTED};

/// Nothing listens there, and the policy of the tailnet lets the question through.
const CLOSED: u16 = 9100;
/// The policy of the tailnet drops it.
const FORBIDDEN: u16 = 9999;

/// What is wrong with a target, and what is to be said of it.
struct Wrong {
    host: &'static str,
    port: u16,
    /// The access line's word, the HTTP status and the SOCKS5 reply.
    outcome: &'static str,
    wire: (u16, u8),
    /// Parts of doctor's sentence: symptom, cause, fix.
    words: [&'static str; 3],
}

const HOST: &str = "joined, but the host is not reachable";
const NAME: &str = "the internal name does not resolve";
const SPELLING: &str = "check the spelling";

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("port_the_policy_forbids_times_out", |t| each(t, &FORBIDDEN_PORT)),
        case("closed_port_is_refused", |t| each(t, &CLOSED_PORT)),
        case("unrouted_address_is_unreachable", |t| each(t, &NO_ROUTE)),
        case("name_nobody_knows_is_a_dns_error", |t| each(t, &NO_NAMES)),
        case("silent_nameserver_is_a_dns_timeout", |t| each(t, &SILENT)),
    ]
}

const CLOSED_PORT: [Wrong; 1] = [Wrong {
    host: "svc",
    port: CLOSED,
    outcome: "refused",
    wire: (502, 5),
    words: [HOST, "100.64.0.1:9100 refused the connection", "see whether the service runs"],
}];

const NO_ROUTE: [Wrong; 2] = [
    Wrong {
        host: UNROUTED,
        port: PORT,
        outcome: "unreachable",
        wire: (502, 3),
        words: [HOST, "10.60.0.9 is outside the tailnet", "approve a subnet route for it"],
    },
    Wrong {
        host: "unrouted.corp.example",
        port: PORT,
        outcome: "unreachable",
        wire: (502, 3),
        words: [HOST, "10.60.0.9 is outside the tailnet", "approve a subnet route for it"],
    },
];

const NO_NAMES: [Wrong; 3] = [
    Wrong {
        host: "nobody.corp.example",
        port: PORT,
        outcome: "dns_error",
        wire: (502, 4),
        words: [NAME, "nobody.corp.example is unknown to 100.64.0.1", SPELLING],
    },
    Wrong {
        host: "nobody.lab.ts.net",
        port: PORT,
        outcome: "dns_error",
        wire: (502, 4),
        words: [NAME, "nobody.lab.ts.net is unknown to MagicDNS", SPELLING],
    },
    Wrong {
        host: "nobody.example.org",
        port: PORT,
        outcome: "dns_error",
        wire: (502, 4),
        words: [
            NAME,
            "no DNS route of the tailnet covers nobody.example.org",
            "add a split-DNS route for its domain",
        ],
    },
];

const SILENT: [Wrong; 1] = [Wrong {
    host: "grafana.silent.example",
    port: PORT,
    outcome: "dns_timeout",
    wire: (504, 4),
    words: [NAME, "100.64.0.1 did not answer for grafana.silent.example", "port 53 over TCP"],
}];

const FORBIDDEN_PORT: [Wrong; 1] = [Wrong {
    host: "grafana.corp.example",
    port: FORBIDDEN,
    outcome: "connect_timeout",
    wire: (504, 6),
    words: [HOST, "100.64.0.1:9999 (by svc", "grant this node's tag that port in the ACLs"],
}];

/// Both kinds say the same; doctor walks while the requests wait.
fn each(tailnet: &Tailnet, wrong: &[Wrong]) {
    Kind::both(|kind| {
        let gateway = tailnet.managed(kind);
        for wrong in wrong {
            std::thread::scope(|scope| {
                scope.spawn(|| doctor(tailnet, gateway, wrong));
                requests(tailnet, gateway, wrong);
            });
        }
    });
}

/// One request by each inbound, all at once: some take seconds.
fn requests(tailnet: &Tailnet, gateway: &Gateway, wrong: &Wrong) {
    let mark = gateway.mark();
    let url = format!("http://{}:{}/hello", wrong.host, wrong.port);
    std::thread::scope(|scope| {
        for inbound in BY_NAME {
            let url = &url;
            scope.spawn(move || {
                let answer = Curl::at(gateway, inbound, url).run(tailnet);
                refused_with(inbound, &answer, wrong.wire);
                if inbound == Inbound::Forward {
                    explained(wrong, &answer.body);
                }
            });
        }
    });
    for inbound in BY_NAME {
        let line = wait_for("its access line", || {
            let lines = gateway.access().split_off(mark);
            lines.into_iter().find(|line| is_of(line, inbound, wrong))
        });
        assert_eq!(line["outcome"], wrong.outcome, "{line}");
    }
}

/// Whether the line is that of a request, not of doctor's look, nor of an earlier case's.
fn is_of(line: &serde_json::Value, inbound: Inbound, wrong: &Wrong) -> bool {
    let host = line["host"].as_str().unwrap_or_default();
    let asked = host == wrong.host || host.strip_suffix(".lab.ts.net") == Some(wrong.host);
    asked
        && line["port"] == wrong.port
        && line["inbound"] == inbound.label()
        && line["label"].is_null()
}

/// The body tells cause and fix.
fn explained(wrong: &Wrong, body: &str) {
    let body: serde_json::Value = serde_json::from_str(body).expect("a JSON body");
    assert_eq!(body["error"], wrong.outcome, "{body}");
    let message = body["message"].as_str().expect("a message");
    for words in &wrong.words[1..] {
        assert!(message.contains(words), "no {words:?} in {message:?}");
    }
}

fn doctor(tailnet: &Tailnet, gateway: &Gateway, wrong: &Wrong) {
    let target = format!("{}:{}", wrong.host, wrong.port);
    let said = gateway.launch.ask(tailnet, &["doctor", &target]);
    assert_eq!(said.code, 1, "doctor {target}: {said:?}");
    for words in wrong.words {
        assert!(said.out.contains(words), "no {words:?} in doctor {target}: {said:?}");
    }
}
