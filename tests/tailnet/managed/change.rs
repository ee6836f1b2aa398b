//! The tailnet changes under a running gateway: policy, records, and a DNS route.

use crate::case::Case;
use crate::curl::{Answer, Curl, Inbound};
use crate::managed::Kind;
use crate::process::wait_for;
use crate::tailnet::{LATER, Tailnet};

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("policy_change_takes_effect_at_once", policy),
        case("new_record_takes_effect_at_once", record),
        case("new_dns_route_takes_effect_and_a_lost_control_server_cuts_nothing", route),
    ]
}

/// A port is opened, then closed again.
fn policy(tailnet: &Tailnet) {
    let url = format!("http://svc:{LATER}/hello");
    tailnet.control.open_ports(&[LATER]);
    Kind::both(|kind| answers(tailnet, kind, &url));
    tailnet.control.open_ports(&[]);
    Kind::both(|kind| {
        wait_for("the port to be closed again", || {
            (get(tailnet, kind, &url).status == 504).then_some(())
        });
    });
}

fn record(tailnet: &Tailnet) {
    let url = "http://fresh.lab.ts.net:8080/hello";
    Kind::both(|kind| assert_eq!(get(tailnet, kind, url).status, 502, "nobody knows it yet"));
    tailnet.control.add_record("fresh.lab.ts.net", &tailnet.svc);
    Kind::both(|kind| answers(tailnet, kind, url));
}

/// headscale reads its DNS routes at its start, so the control server goes away for a moment.
fn route(tailnet: &Tailnet) {
    let url = "http://grafana.late.example:8080/hello";
    Kind::both(|kind| assert_eq!(get(tailnet, kind, url).status, 502, "no route covers it yet"));
    let known = "http://grafana.corp.example:8080/hello";
    let meanwhile = || Kind::both(|kind| assert_eq!(get(tailnet, kind, known).status, 200));
    tailnet.control.restart_with_domain(&tailnet.world, "late.example", meanwhile);
    Kind::both(|kind| answers(tailnet, kind, url));
}

fn answers(tailnet: &Tailnet, kind: Kind, url: &str) {
    wait_for(&format!("an answer of {url} over {}", kind.label()), || {
        let answer = get(tailnet, kind, url);
        (answer.status == 200 && answer.body.starts_with("hello from ")).then_some(())
    });
}

fn get(tailnet: &Tailnet, kind: Kind, url: &str) -> Answer {
    Curl::at(tailnet.managed(kind), Inbound::Forward, url).run(tailnet)
}
