//! From a key to an answer: internal names that tailscaled's own port does not know.

use crate::case::Case;
use crate::control::SANDBOX;
use crate::curl::{Curl, Inbound};
use crate::managed::{BY_NAME, Kind, node};
use crate::process::wait_for;
use crate::tailnet::{BEHIND_ROUTE, PORT, Tailnet, UPSTREAM};

/// Names that no machine's own resolver knows, and the address that answers for each.
const NAMES: [(&str, &str, &str); 6] = [
    ("grafana.corp.example", "split", "127.0.0.1"),
    ("wiki.corp.example", "split", "127.0.0.1"), // a CNAME
    ("six.corp.example", "split", "127.0.0.1"),  // AAAA only
    ("behind.corp.example", "split", BEHIND_ROUTE),
    ("grafana.lab.ts.net", "magicdns", "127.0.0.1"), // an ExtraRecord
    ("svc", "magicdns", "127.0.0.1"),
];

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("tailscaled_alone_knows_no_internal_name", alone),
        case("internal_names_are_answered", answered),
        case("node_is_listed_tagged_and_ephemeral_and_leaves_within_5_s", |t| {
            Kind::both(|kind| listed(t, kind));
        }),
    ]
}

/// tailscaled's SOCKS5 port refuses the names, and tells whoever answers for the machine about them.
fn alone(tailnet: &Tailnet) {
    knows_nothing(tailnet, UPSTREAM);
    let told = tailnet.public.asked();
    for name in ["grafana.corp.example", "grafana.lab.ts.net"] {
        assert!(told.iter().any(|asked| asked.contains(name)), "{name}: {told:?}");
    }
}

fn knows_nothing(tailnet: &Tailnet, socks: &str) {
    for name in ["grafana.corp.example", "grafana.lab.ts.net"] {
        let url = format!("http://{name}:{PORT}/hello");
        let answer = Curl::through(socks, Inbound::Socks5Name, &url).run(tailnet);
        assert_eq!((answer.exit, answer.socks5_reply()), (97, Some(1)), "{name}: {answer:?}");
    }
}

/// The gateways know them, by questions that only their own nameserver hears.
fn answered(tailnet: &Tailnet) {
    let (public, internal) = (tailnet.public.asked().len(), tailnet.nameserver.asked().len());
    Kind::both(|kind| answered_by(tailnet, kind));
    assert_eq!(tailnet.public.asked()[public..], [""; 0], "internal names leaked");
    let asked = &tailnet.nameserver.asked()[internal..];
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.starts_with("tcp ")), "{asked:?}");
    // The tailscaled behind the gateway knows no more than any other.
    knows_nothing(tailnet, &tailnet.managed(Kind::Tailscaled).socks(tailnet));
}

fn answered_by(tailnet: &Tailnet, kind: Kind) {
    let gateway = tailnet.managed(kind);
    for (inbound, (host, route, answered_by)) in
        BY_NAME.into_iter().flat_map(|inbound| NAMES.map(|name| (inbound, name)))
    {
        let mark = gateway.mark();
        let answer = Curl::new(gateway, inbound, host, "/hello").run(tailnet);
        assert_eq!((answer.exit, answer.status), (0, 200), "{inbound:?} to {host}: {answer:?}");
        let hello = format!("hello from {answered_by}:{PORT} to {host}:{PORT}\n");
        assert_eq!(answer.body, hello, "{inbound:?} to {host}");
        let line = gateway.access_after(mark);
        assert_eq!(line["outcome"], inbound.good_end(), "{line}");
        assert_eq!(line["upstream"], kind.label(), "{line}");
        assert_eq!(line["route"], "tailnet", "{line}");
        assert!(line["resolved_by"] == route || line["resolved_by"] == "cache", "{line}");
    }
}

fn listed(tailnet: &Tailnet, kind: Kind) {
    let gateway = kind.start(tailnet, "listed");
    let name = node(&gateway.launch.name);
    let node = wait_for("the node, online", || tailnet.control.node(&name).filter(|n| n.online));
    assert_eq!(node.tags, [SANDBOX], "{node:?}");
    assert!(node.ephemeral, "{node:?}");
    let said = gateway.launch.ask(tailnet, &["status"]);
    assert!(said.out.contains(&name) && said.out.contains("100.64.0."), "{said:?}");
    let (code, body) = gateway.admin(tailnet, "/readyz");
    assert_eq!(code, 200, "{body}");
    let running = gateway.metric(tailnet, "tailrace_tailnet_state{state=\"running\"}");
    assert_eq!(running, 1, "tailrace_tailnet_state");
    gateway.begin_to_stop();
    let took = tailnet.control.until_gone(&name);
    assert!(took.as_secs_f64() < 5.0, "an idle node left after {took:?}");
    gateway.ended();
}
