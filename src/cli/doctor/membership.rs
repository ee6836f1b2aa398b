//! From the binary to the netmap: the links of `status`.
#![forbid(unsafe_code)]

use serde_json::Value;

use super::advice::{Advice, KEY, NOT_STARTED};
use super::words::{self, of};
use super::{Link, up_to};
use crate::tailnet::TailnetPhase;
use crate::tailnet::explain::TailnetFault;

/// The links up to the first broken one. `binary` checks the settings' own, where they want one.
pub(super) fn links(
    tailnet: &Value,
    binary: impl FnOnce() -> Option<Result<String, Advice>>,
) -> Vec<Link> {
    let mut broken = broken(tailnet);
    // A process that is not there may never have been one.
    if broken.as_ref().is_some_and(|(at, _)| *at == "process")
        && tailnet["process"].is_null()
        && let Some(Err(advice)) = binary()
    {
        broken = Some(("binary", advice));
    }
    let held = [
        ("binary", version(tailnet)),
        ("process", process(tailnet)),
        ("login", "the control server answers".to_owned()),
        ("key", key(tailnet)),
        ("netmap", netmap(tailnet)),
    ];
    up_to(held, broken)
}

/// Which link it is that keeps the tailnet from running.
fn broken(tailnet: &Value) -> Option<(&'static str, Advice)> {
    let state = tailnet["state"].as_str().unwrap_or_default();
    if state == TailnetPhase::Running.label() {
        return None;
    }
    let advice = Advice::of_fault(&tailnet["fault"]).unwrap_or_else(|| {
        let phase = TailnetPhase::ALL.into_iter().find(|phase| phase.label() == state);
        TailnetFault::NotYet { phase: phase.unwrap_or(TailnetPhase::Starting) }.advice().into()
    });
    let link = match advice.symptom.as_str() {
        NOT_STARTED => "process",
        KEY => "key",
        _ if state == TailnetPhase::NeedsApproval.label() => "netmap",
        _ => "login",
    };
    Some((link, advice))
}

/// Which tailscaled it is, and what follows from that.
fn version(tailnet: &Value) -> String {
    let half_close = match tailnet["half_close"].as_str() {
        Some("propagate") => "half-close: a client's FIN is passed on",
        _ => {
            "half-close: a client's FIN is held back until the answer has ended (upstream.half_close)"
        }
    };
    let news = match tailnet["news"]["by"].as_str() {
        Some("bus") => "news come by its IPN bus".to_owned(),
        Some(_) => {
            format!("no IPN bus ({}), its status is read every second", of(&tailnet["news"]["why"]))
        }
        None => "its IPN bus was not asked yet".to_owned(),
    };
    format!("tailscaled {}: {half_close}; {news}", of(&tailnet["version"]))
}

fn process(tailnet: &Value) -> String {
    let whose = match (tailnet["managed"] == true, tailnet["identity"].as_str()) {
        (false, _) => "not ours",
        (true, Some("memory")) => "ours, the same node after a restart (state in memory)",
        (true, Some("folder")) => "ours, the same node after a restart (state in a folder)",
        (true, _) => "ours, a new node after each restart (ephemeral)",
    };
    let restarts = match tailnet["restarts"].as_u64() {
        Some(1..) => format!(", started again {} times", of(&tailnet["restarts"])),
        _ => String::new(),
    };
    format!("{whose}, process {}{restarts}", of(&tailnet["process"]))
}

fn key(tailnet: &Value) -> String {
    match tailnet["key_expiry"].as_str() {
        Some(expiry) => format!("accepted; the node's own ends {expiry}"),
        None => "accepted; the node's own does not end".to_owned(),
    }
}

fn netmap(tailnet: &Value) -> String {
    let peers = words::items(&tailnet["peers"]);
    let online = peers.iter().filter(|peer| peer["online"] == true).count();
    let mut text = format!(
        "{} {}, {} peers, {online} online",
        of(&tailnet["name"]),
        of(&tailnet["addresses"]),
        peers.len()
    );
    for warning in words::items(&tailnet["health"]) {
        text += &format!("; tailscaled warns: {}", of(warning));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tailnet::explain::KeyRefusal;

    fn tailnet(state: &str, fault: Option<TailnetFault>) -> Value {
        let fault = fault.map(|fault| {
            let advice = fault.advice();
            json!({"symptom": advice.symptom, "cause": advice.cause, "fix": advice.fix})
        });
        json!({
            "managed": true, "state": state, "name": "autoheal-1.lab.ts.net",
            "addresses": ["100.64.0.2"], "tags": [], "key_expiry": null, "version": "1.98.9",
            "process": null, "health": ["w"], "restarts": 0, "fault": fault,
            "peers": [{"name": "svc", "online": true}, {"name": "x", "online": false}],
        })
    }

    /// The name of the last link, and whether it is broken.
    fn last(tailnet: &Value, binary: Option<Result<String, Advice>>) -> (&'static str, bool) {
        let links = links(tailnet, || binary);
        let last = links.last().unwrap();
        (last.name, last.state.is_err())
    }

    #[test]
    fn each_fault_breaks_its_own_link() {
        let words = || "words".to_owned();
        let refused = TailnetFault::KeyRefused { refusal: KeyRefusal::Expired, said: words() };
        let control = TailnetFault::Control { server: "https://c".into(), why: words() };
        let crash = TailnetFault::CrashLoop { how: words(), last: None };
        for (state, fault, link) in [
            ("crash_loop", Some(crash), "process"),
            ("unreachable", Some(control), "login"),
            ("auth_failed", Some(refused), "key"),
            ("rate_limited", Some(TailnetFault::RateLimited { wait: None }), "login"),
            ("needs_approval", Some(TailnetFault::NeedsApproval), "netmap"),
            ("needs_login", Some(TailnetFault::NoKey), "login"),
            ("starting", None, "login"),
        ] {
            assert_eq!(last(&tailnet(state, fault), None), (link, true), "{state}");
        }
        let held = links(&tailnet("running", None), || None);
        assert!(held.iter().all(|link| link.state.is_ok()) && held.len() == 5);
        let netmap = held[4].state.as_ref().unwrap();
        assert!(netmap.contains("2 peers, 1 online") && netmap.ends_with("warns: w"), "{netmap}");
    }

    #[test]
    fn a_binary_that_cannot_be_run_is_the_first_broken_link() {
        let gone = TailnetFault::Ended { how: "exit status 1".into(), last: None };
        let tailnet = tailnet("unreachable", Some(gone));
        let advice = Advice::of_sentence(NOT_STARTED, "it is not there: install it");
        assert_eq!(last(&tailnet, Some(Err(advice))), ("binary", true));
        assert_eq!(last(&tailnet, Some(Ok(String::new()))), ("process", true));
    }
}
