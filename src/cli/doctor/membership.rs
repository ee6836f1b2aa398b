//! From the binary to the netmap: the links of `status`.
#![forbid(unsafe_code)]

use super::display_text::{or_dash, plain, texts};
use super::{Link, up_to};
use crate::api::{FaultAnswer, NewsAnswer, TailnetAnswer};
use crate::labels::{ChainLink, HalfClose, NodeIdentity, Symptom, TailnetPhase};
use crate::tailnet::explain::TailnetFault;

/// The links up to the first broken one. `binary` checks the settings' own, where they want one.
pub(super) fn links(
    tailnet: &TailnetAnswer,
    binary: impl FnOnce() -> Option<Result<String, FaultAnswer>>,
) -> Vec<Link> {
    let mut broken = broken(tailnet);
    // A process that is not there may never have been one.
    if broken.as_ref().is_some_and(|(at, _)| *at == ChainLink::Process)
        && tailnet.process.is_none()
        && let Some(Err(advice)) = binary()
    {
        broken = Some((ChainLink::Binary, advice));
    }
    let held = [
        (ChainLink::Binary, version(tailnet)),
        (ChainLink::Process, process(tailnet)),
        (ChainLink::Login, "the control server answers".to_owned()),
        (ChainLink::Key, key(tailnet)),
        (ChainLink::Netmap, netmap(tailnet)),
    ];
    up_to(held, broken)
}

/// Which link it is that keeps the tailnet from running.
fn broken(tailnet: &TailnetAnswer) -> Option<(ChainLink, FaultAnswer)> {
    let phase = tailnet.state;
    if phase == TailnetPhase::Running {
        return None;
    }
    let advice = tailnet.fault.clone();
    let advice = advice.unwrap_or_else(|| TailnetFault::NotYet { phase }.advice());
    let link = match advice.symptom {
        Symptom::NotStarted => ChainLink::Process,
        Symptom::KeyRefused => ChainLink::Key,
        _ if phase == TailnetPhase::NeedsApproval => ChainLink::Netmap,
        _ => ChainLink::Login,
    };
    Some((link, advice))
}

/// Which tailscaled it is, and what follows from that.
fn version(tailnet: &TailnetAnswer) -> String {
    let half_close = match tailnet.half_close {
        HalfClose::Propagate => "half-close: a client's FIN is passed on",
        HalfClose::Defer => {
            "half-close: a client's FIN is held back until the answer has ended (upstream.half_close)"
        }
    };
    let news = match &tailnet.news {
        Some(NewsAnswer::Bus) => "news come by its IPN bus".to_owned(),
        Some(NewsAnswer::Polling { why }) => {
            format!("no IPN bus ({}), its status is read every second", plain(why))
        }
        None => "its IPN bus was not asked yet".to_owned(),
    };
    let version = or_dash(tailnet.version.as_deref());
    format!("tailscaled {version}: {half_close}; {news}")
}

fn process(tailnet: &TailnetAnswer) -> String {
    let whose = match (tailnet.managed, tailnet.identity) {
        (false, _) => "not ours",
        (true, Some(NodeIdentity::Memory)) => {
            "ours, the same node after a restart (state in memory)"
        }
        (true, Some(NodeIdentity::Folder)) => {
            "ours, the same node after a restart (state in a folder)"
        }
        (true, Some(NodeIdentity::Ephemeral) | None) => {
            "ours, a new node after each restart (ephemeral)"
        }
    };
    let restarts = match tailnet.restarts {
        0 => String::new(),
        restarts => format!(", started again {restarts} times"),
    };
    let process = tailnet.process.map_or("-".to_owned(), |process| process.to_string());
    format!("{whose}, process {process}{restarts}")
}

fn key(tailnet: &TailnetAnswer) -> String {
    match &tailnet.key_expiry {
        Some(expiry) => format!("accepted; the node's own ends {expiry}"),
        None => "accepted; the node's own does not end".to_owned(),
    }
}

fn netmap(tailnet: &TailnetAnswer) -> String {
    let peers = tailnet.peers.as_deref().unwrap_or_default();
    let online = peers.iter().filter(|peer| peer.online).count();
    let name = or_dash(tailnet.name.as_deref());
    let addresses = texts(&tailnet.addresses);
    let mut text = format!("{name} {addresses}, {} peers, {online} online", peers.len());
    for warning in &tailnet.health {
        text += &format!("; tailscaled warns: {}", plain(warning));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;
    use crate::cli::doctor::advice;
    use crate::tailnet::explain::KeyRefusal;

    fn tailnet(state: TailnetPhase, fault: Option<TailnetFault>) -> TailnetAnswer {
        let fault = fault.map(|fault| fault.advice());
        let sample = samples::status().tailnet.unwrap();
        TailnetAnswer { state, fault, process: None, ..sample }
    }

    /// The last link, and whether it is broken.
    fn last(
        tailnet: &TailnetAnswer,
        binary: Option<Result<String, FaultAnswer>>,
    ) -> (ChainLink, bool) {
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
            (TailnetPhase::CrashLoop, Some(crash), ChainLink::Process),
            (TailnetPhase::Unreachable, Some(control), ChainLink::Login),
            (TailnetPhase::AuthFailed, Some(refused), ChainLink::Key),
            (
                TailnetPhase::RateLimited,
                Some(TailnetFault::RateLimited { wait: None }),
                ChainLink::Login,
            ),
            (TailnetPhase::NeedsApproval, Some(TailnetFault::NeedsApproval), ChainLink::Netmap),
            (TailnetPhase::NeedsLogin, Some(TailnetFault::NoKey), ChainLink::Login),
            (TailnetPhase::Starting, None, ChainLink::Login),
        ] {
            assert_eq!(last(&tailnet(state, fault), None), (link, true), "{state}");
        }
        let held = links(&tailnet(TailnetPhase::Running, None), || None);
        assert!(held.iter().all(|link| link.state.is_ok()) && held.len() == 5);
        let netmap = held[4].state.as_ref().unwrap();
        assert!(netmap.contains("2 peers, 1 online") && netmap.ends_with("warns: w"), "{netmap}");
    }

    #[test]
    fn a_binary_that_cannot_be_run_is_the_first_broken_link() {
        let gone = TailnetFault::Ended { how: "exit status 1".into(), last: None };
        let tailnet = tailnet(TailnetPhase::Unreachable, Some(gone));
        let advice = advice::of_sentence(Symptom::NotStarted, "it is not there: install it");
        assert_eq!(last(&tailnet, Some(Err(advice))), (ChainLink::Binary, true));
        assert_eq!(last(&tailnet, Some(Ok(String::new()))), (ChainLink::Process, true));
    }
}
