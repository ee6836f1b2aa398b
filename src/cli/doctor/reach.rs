//! From a name to an open port: what the gateway explains of a target, then the way there itself.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::Value;

use super::advice::{Advice, HOST, HOST_ALONE, NAME};
use super::find::{Found, Unanswered};
use super::words::{self, of};
use super::{Link, explain, tls, up_to};
use crate::cli::tunnel::{self, Open, Refusal};
use crate::lifecycle::environment;
use crate::target::Target;

/// For a name to be found and a far side to answer, with the longest of the default limits.
const PATIENCE: Duration = Duration::from_secs(20);
/// The symptom that is the policy's.
const POLICY: &str = "the policy refuses the host";

/// The links up to the first broken one.
pub(super) fn links(
    found: &Found,
    target: &Target,
    explained: Result<Value, Unanswered>,
) -> Vec<Link> {
    let told = match explained {
        Ok(told) => told,
        Err(Unanswered::Nobody(why) | Unanswered::Refused(why)) => {
            let broken = Advice::of_sentence(NAME, &why);
            return vec![Link { name: "dns", state: Err(broken) }];
        }
    };
    if let Some(broken) = explained_away(&told) {
        return up_to(held(&told), Some(broken));
    }
    let Some(proxy) = environment::preferred(&found.proxy) else { return up_to(held(&told), None) };
    let opened = tunnel::open(proxy, target, Some("doctor"), Some(PATIENCE));
    let opened = opened.unwrap_or_else(|error| {
        let message = format!("the proxy at {proxy} does not answer ({error}): see listen.proxy");
        Err(Refusal { error: "no_proxy".to_owned(), message })
    });
    match opened {
        Ok(open) => whole(&told, target, open),
        Err(refusal) => up_to(held(&told), Some(refused(&told, &refusal))),
    }
}

/// The link that is known to be broken before anything is dialled.
fn explained_away(told: &Value) -> Option<(&'static str, Advice)> {
    let fault = Advice::of_fault(&told["fault"]);
    let nowhere = words::items(&told["addresses"]).is_empty();
    if told["refused"] == true {
        return Some(("policy", fault.unwrap_or_else(|| policy(told))));
    }
    if let Some(error) = told["dns"]["error"].as_str().filter(|_| nowhere) {
        return Some(("dns", fault.unwrap_or_else(|| Advice::of_sentence(NAME, error))));
    }
    let link =
        if fault.as_ref().is_some_and(|fault| fault.symptom == NAME) { "dns" } else { "route" };
    fault.map(|fault| (link, fault))
}

/// In whose words the policy refuses: its rule's.
fn policy(told: &Value) -> Advice {
    let rows = words::items(&told["addresses"]).iter();
    let of_address =
        rows.filter(|row| row["verdict"] == "deny").find_map(|row| row["rule"].as_str());
    let rule = of_address.or(told["policy"]["rule"].as_str()).unwrap_or("no rule allows it");
    Advice {
        symptom: POLICY.to_owned(),
        cause: format!("{} is refused: {rule}", of(&told["target"])),
        fix: "ask for another host, or have it added to [policy]".to_owned(),
    }
}

/// Every link of a target, as it is when it holds.
fn held(told: &Value) -> Vec<(&'static str, String)> {
    let dns = match told["dns"].is_object() {
        true => dns(&told["dns"]),
        false => "an address: nobody is asked".to_owned(),
    };
    let policy = &told["policy"];
    let rule = policy["rule"].as_str().map(|rule| format!(" ({rule})")).unwrap_or_default();
    let verdict = format!("{}{rule}, mode {}", of(&policy["verdict"]), of(&policy["mode"]));
    let mut links = vec![("dns", dns), ("policy", verdict), ("route", route(told))];
    if in_the_tailnet(told) {
        links.push(("acl", "the host answers".to_owned()));
    }
    links.push(("port", "open".to_owned()));
    // Nobody was asked for the name of what the policy refuses.
    if told["refused"] == true && told["dns"].is_null() {
        links.remove(0);
    }
    links
}

fn dns(dns: &Value) -> String {
    let skipped = words::items(&dns["skipped"]).iter();
    let skipped: String =
        skipped.map(|one| format!("; {} is not asked: its form", of(one))).collect();
    explain::of_dns(dns) + &skipped
}

/// The first address that may be dialled.
fn first(told: &Value) -> Option<&Value> {
    words::items(&told["addresses"]).iter().find(|row| row["verdict"] != "deny")
}

fn route(told: &Value) -> String {
    first(told).map_or_else(|| "the upstream's to choose".to_owned(), explain::of_address)
}

fn in_the_tailnet(told: &Value) -> bool {
    first(told).is_some_and(|row| row["route"] == "tailnet")
}

/// Which link a refused connection shows to be broken. Silence inside the tailnet is an ACL's, most
/// often: whoever may not come gets no answer.
fn refused(told: &Value, refusal: &Refusal) -> (&'static str, Advice) {
    let host = if told["tailnet"].is_object() { HOST } else { HOST_ALONE };
    let (link, symptom) = match refusal.error.as_str() {
        "dns_error" | "dns_timeout" => ("dns", NAME),
        "denied" | "loop" => ("policy", POLICY),
        "unreachable" => ("route", host),
        "connect_timeout" if in_the_tailnet(told) => ("acl", host),
        _ => ("port", host),
    };
    (link, Advice::of_sentence(symptom, &refusal.message))
}

/// Everything holds; TLS is told, and never a fault.
fn whole(told: &Value, target: &Target, open: Open) -> Vec<Link> {
    let mut links = up_to(held(told), None);
    if let Some(port) = links.last_mut() {
        port.state = Ok(format!("{} is open, {} ms", target.port, open.took.as_millis()));
    }
    let said = match tls::spoken(open.stream, &open.early, &target.host) {
        true => "a ClientHello is answered with TLS",
        false => "not spoken there",
    };
    links.push(Link { name: "tls", state: Ok(said.to_owned()) });
    links
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told() -> Value {
        json!({
            "target": "db.corp.example:5432",
            "policy": {"mode": "enforce", "verdict": "allow", "rule": "suffix .corp.example"},
            "refused": false,
            "dns": {"route": "split", "suffix": "corp.example", "nameservers": [], "took_ms": 1,
                    "skipped": ["tls://9.9.9.9"], "addresses": ["100.64.0.1"], "error": null},
            "addresses": [{"address": "100.64.0.1", "verdict": "allow", "rule": null,
                           "route": "tailnet", "peer": "svc", "net": "100.64.0.1/32", "online": true}],
            "tailnet": {"state": "running"}, "fault": null,
        })
    }

    fn names(links: &[(&'static str, String)]) -> Vec<&'static str> {
        links.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn all_links_in_their_order_with_what_is_not_asked() {
        let held = held(&told());
        assert_eq!(names(&held), ["dns", "policy", "route", "acl", "port"]);
        assert!(held[0].1.contains("tls://9.9.9.9"), "{held:?}");
        assert!(explained_away(&told()).is_none());
        let mut outside = told();
        outside["addresses"][0]["route"] = json!("outside");
        assert!(!names(&super::held(&outside)).contains(&"acl"));
    }

    #[test]
    fn what_is_explained_needs_no_dialling() {
        let mut refused = told();
        refused["refused"] = json!(true);
        refused["dns"] = json!(null);
        refused["addresses"] = json!([]);
        refused["policy"]["rule"] = json!("no allowed suffix or glob");
        let (link, advice) = explained_away(&refused).unwrap();
        assert!(link == "policy" && advice.cause.contains("no allowed suffix"), "{advice:?}");
        assert_eq!(names(&held(&refused))[0], "policy", "nobody was asked");
        let mut unknown = told();
        unknown["addresses"] = json!([]);
        unknown["dns"]["error"] = json!("no such name: check it");
        assert_eq!(explained_away(&unknown).unwrap().0, "dns");
        let mut offline = told();
        offline["fault"] = json!({"symptom": HOST, "cause": "svc is offline", "fix": "start it"});
        let (link, advice) = explained_away(&offline).unwrap();
        assert_eq!((link, advice.fix.as_str()), ("route", "start it"));
    }

    #[test]
    fn what_dialling_shows() {
        for (error, link) in [
            ("connect_timeout", "acl"),
            ("refused", "port"),
            ("unreachable", "route"),
            ("dns_timeout", "dns"),
            ("denied", "policy"),
            ("overloaded", "port"),
        ] {
            let refusal = Refusal { error: error.to_owned(), message: "a: b: do c".to_owned() };
            let (at, advice) = refused(&told(), &refusal);
            assert_eq!((at, advice.cause.as_str(), advice.fix.as_str()), (link, "a: b", "do c"));
        }
    }
}
