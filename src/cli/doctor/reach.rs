//! From a name to an open port: what the gateway explains of a target, then the way there itself.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::find::{Found, Unanswered};
use super::words::or_dash;
use super::{Link, advice, explain, tls, up_to};
use crate::api::{AddressAnswer, DecisionAnswer, DnsAnswer, ExplainAnswer, FaultAnswer};
use crate::cli::tunnel::{self, Open, Refusal};
use crate::labels::{ChainLink, PolicyMode, Route, Symptom, Verdict};
use crate::lifecycle::environment;
use crate::outcome::Outcome;
use crate::target::Target;

/// For a name to be found and a far side to answer, with the longest of the default limits.
const PATIENCE: Duration = Duration::from_secs(20);

/// The links up to the first broken one.
pub(super) fn links(
    found: &Found,
    target: &Target,
    explained: Result<ExplainAnswer, Unanswered>,
) -> Vec<Link> {
    let told = match explained {
        Ok(told) => told,
        Err(Unanswered::Nobody(why) | Unanswered::Refused(why)) => {
            let broken = advice::of_sentence(Symptom::NameUnresolved, &why);
            return vec![Link { name: ChainLink::Dns, state: Err(broken) }];
        }
    };
    if let Some(broken) = explained_away(&told) {
        return up_to(held(&told), Some(broken));
    }
    let Some(proxy) = environment::preferred(&found.proxy) else { return up_to(held(&told), None) };
    let opened = tunnel::open(proxy, target, Some("doctor"), Some(PATIENCE));
    let opened = opened.unwrap_or_else(|error| {
        let message = format!("the proxy at {proxy} does not answer ({error}): see listen.proxy");
        Err(Refusal { outcome: None, message })
    });
    match opened {
        Ok(open) => whole(&told, target, open),
        Err(refusal) => up_to(held(&told), Some(refused(&told, &refusal))),
    }
}

/// The link that is known to be broken before anything is dialled.
fn explained_away(told: &ExplainAnswer) -> Option<(ChainLink, FaultAnswer)> {
    let fault = told.fault.clone();
    if told.refused {
        return Some((ChainLink::Policy, fault.unwrap_or_else(|| policy(told))));
    }
    let error = told.dns.as_ref().and_then(|dns| dns.error.as_ref());
    if let (Some(error), true) = (error, told.addresses.is_empty()) {
        let unresolved = || advice::of_sentence(Symptom::NameUnresolved, error);
        return Some((ChainLink::Dns, fault.unwrap_or_else(unresolved)));
    }
    fault.map(|fault| match fault.symptom {
        Symptom::NameUnresolved => (ChainLink::Dns, fault),
        _ => (ChainLink::Route, fault),
    })
}

/// In whose words the policy refuses: its rule's.
fn policy(told: &ExplainAnswer) -> FaultAnswer {
    let denied = told.addresses.iter().filter(|row| row.verdict == Verdict::Deny);
    let of_address = denied.filter_map(|row| row.rule.as_deref()).next();
    let rule = of_address.or(told.policy.rule.as_deref()).unwrap_or("no rule allows it");
    FaultAnswer {
        symptom: Symptom::PolicyRefuses,
        cause: format!("{} is refused: {rule}", told.target),
        fix: "ask for another host, or have it added to [policy]".to_owned(),
    }
}

/// Every link of a target, as it is when it holds.
fn held(told: &ExplainAnswer) -> Vec<(ChainLink, String)> {
    let dns = match &told.dns {
        Some(dns) => of_dns(dns),
        None => "an address: nobody is asked".to_owned(),
    };
    let DecisionAnswer { mode, verdict, rule } = &told.policy;
    let rule = rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
    let (verdict, mode) =
        (or_dash(verdict.map(Verdict::label)), or_dash(mode.map(PolicyMode::label)));
    let verdict = format!("{verdict}{rule}, mode {mode}");
    let mut links =
        vec![(ChainLink::Dns, dns), (ChainLink::Policy, verdict), (ChainLink::Route, route(told))];
    if is_in_tailnet(told) {
        links.push((ChainLink::Acl, "the host answers".to_owned()));
    }
    links.push((ChainLink::Port, "open".to_owned()));
    // Nobody was asked for the name of what the policy refuses.
    if told.refused && told.dns.is_none() {
        links.remove(0);
    }
    links
}

fn of_dns(dns: &DnsAnswer) -> String {
    let skipped = |one: &String| format!("; {one} is not asked: its form");
    explain::dns_words(dns) + &dns.skipped.iter().map(skipped).collect::<String>()
}

/// The first address that may be dialled.
fn first(told: &ExplainAnswer) -> Option<&AddressAnswer> {
    told.addresses.iter().find(|row| row.verdict != Verdict::Deny)
}

fn route(told: &ExplainAnswer) -> String {
    first(told).map_or_else(|| "the upstream's to choose".to_owned(), explain::address_words)
}

fn is_in_tailnet(told: &ExplainAnswer) -> bool {
    first(told).is_some_and(|row| row.route == Some(Route::Tailnet))
}

/// Which link a refused connection shows to be broken. Silence inside the tailnet is an ACL's, most
/// often: whoever may not come gets no answer.
fn refused(told: &ExplainAnswer, refusal: &Refusal) -> (ChainLink, FaultAnswer) {
    let host = match told.tailnet {
        Some(_) => Symptom::HostUnreachable,
        None => Symptom::HostUnreachableAlone,
    };
    let (link, symptom) = match refusal.outcome {
        Some(Outcome::DnsError | Outcome::DnsTimeout) => (ChainLink::Dns, Symptom::NameUnresolved),
        Some(Outcome::Denied | Outcome::Loop) => (ChainLink::Policy, Symptom::PolicyRefuses),
        Some(Outcome::Unreachable(_)) => (ChainLink::Route, host),
        Some(Outcome::ConnectTimeout) if is_in_tailnet(told) => (ChainLink::Acl, host),
        _ => (ChainLink::Port, host),
    };
    (link, advice::of_sentence(symptom, &refusal.message))
}

/// Everything holds; TLS is told, and never a fault.
fn whole(told: &ExplainAnswer, target: &Target, open: Open) -> Vec<Link> {
    let mut links = up_to(held(told), None);
    if let Some(port) = links.last_mut() {
        port.state = Ok(format!("{} is open, {} ms", target.port, open.took.as_millis()));
    }
    let said = match tls::spoken(open.stream, &open.early, &target.host) {
        true => "a ClientHello is answered with TLS",
        false => "not spoken there",
    };
    links.push(Link { name: ChainLink::Tls, state: Ok(said.to_owned()) });
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;
    use crate::outcome::Unreachable;

    /// A name inside the tailnet that holds all the way.
    fn told() -> ExplainAnswer {
        let mut told = ExplainAnswer { fault: None, ..samples::explanation() };
        told.addresses[0].online = Some(true);
        told
    }

    fn names(links: &[(ChainLink, String)]) -> Vec<ChainLink> {
        links.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn all_links_in_their_order_with_what_is_not_asked() {
        use ChainLink::{Acl, Dns, Policy, Port, Route};
        let held = held(&told());
        assert_eq!(names(&held), [Dns, Policy, Route, Acl, Port]);
        assert!(held[0].1.contains("tls://1.1.1.1"), "{held:?}");
        assert!(explained_away(&told()).is_none());
        let mut outside = told();
        outside.addresses[0].route = Some(super::Route::Outside);
        assert!(!names(&super::held(&outside)).contains(&Acl));
    }

    #[test]
    fn what_is_explained_needs_no_dialling() {
        let mut refused = told();
        refused.refused = true;
        refused.dns = None;
        refused.addresses.clear();
        refused.policy.rule = Some("no allowed suffix or glob".to_owned());
        let (link, advice) = explained_away(&refused).unwrap();
        assert_eq!((link, advice.symptom), (ChainLink::Policy, Symptom::PolicyRefuses));
        assert!(advice.cause.contains("no allowed suffix"), "{advice:?}");
        assert_eq!(names(&held(&refused))[0], ChainLink::Policy, "nobody was asked");
        let mut unknown = told();
        unknown.addresses.clear();
        unknown.dns.as_mut().unwrap().error = Some("no such name: check it".to_owned());
        assert_eq!(explained_away(&unknown).unwrap().0, ChainLink::Dns);
        let offline = ExplainAnswer { fault: samples::explanation().fault, ..told() };
        let (link, advice) = explained_away(&offline).unwrap();
        assert_eq!((link, advice.fix.as_str()), (ChainLink::Route, "start it"));
    }

    #[test]
    fn what_dialling_shows() {
        for (outcome, link) in [
            (Outcome::ConnectTimeout, ChainLink::Acl),
            (Outcome::Refused, ChainLink::Port),
            (Outcome::Unreachable(Unreachable::NoRoute), ChainLink::Route),
            (Outcome::DnsTimeout, ChainLink::Dns),
            (Outcome::Denied, ChainLink::Policy),
            (Outcome::Overloaded, ChainLink::Port),
        ] {
            let refusal = Refusal { outcome: Some(outcome), message: "a: b: do c".to_owned() };
            let (at, advice) = refused(&told(), &refusal);
            assert_eq!((at, advice.cause.as_str(), advice.fix.as_str()), (link, "a: b", "do c"));
        }
    }
}
