//! Whether a connection would be carried now, and if not, why, in words for people and programs.
#![forbid(unsafe_code)]

use crate::admin::Readiness;
use crate::connection::{GatewayState, TailnetGate};
use crate::labels::ReadinessPart;
use crate::lifecycle::drain::{Drain, Phase};
use crate::outcome::Outcome;
use crate::tailnet::TailnetFault;

/// Checks everything a connection needs.
pub(super) fn readiness(gateway_state: &GatewayState, drain: &Drain) -> Readiness {
    let serving = drain.phase() == Phase::Serving;
    let outside = gateway_state
        .tailnet_gate
        .as_ref()
        .map(TailnetGate::now)
        .filter(|state| !state.is_running());
    let pending = missing([
        (ReadinessPart::Drain, serving),
        (ReadinessPart::Tailnet, outside.is_none()),
        (ReadinessPart::Upstream, gateway_state.upstream.is_up()),
    ]);
    let (error, message) = match outside {
        _ if pending.is_empty() => return Readiness::Ready,
        _ if !serving => (Outcome::Draining.label(), "the gateway is shutting down".to_owned()),
        Some(state) => (state.phase.label(), state.fault_sentence()),
        None => (Outcome::UpstreamDown.label(), unreachable_upstream(gateway_state)),
    };
    Readiness::NotReady { error, message, pending }
}

/// The parts that are not there, in the order of the list.
fn missing<const N: usize>(parts: [(ReadinessPart, bool); N]) -> Vec<ReadinessPart> {
    parts.into_iter().filter(|(_, there)| !there).map(|(part, _)| part).collect()
}

fn unreachable_upstream(gateway_state: &GatewayState) -> String {
    match gateway_state.tailnet_gate {
        Some(_) => TailnetFault::NoPort.sentence(),
        None => "the upstream cannot be reached: check that it runs where upstream.socks5 points"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_list_is_empty_and_not_before() {
        use ReadinessPart::{Drain, Tailnet, Upstream};
        let parts = |upstream| missing([(Drain, true), (Tailnet, true), (Upstream, upstream)]);
        assert!(parts(true).is_empty());
        assert_eq!(parts(false), [Upstream]);
        let all = missing(ReadinessPart::ALL.map(|part| (part, false)));
        assert_eq!(all, ReadinessPart::ALL, "in alphabetical order");
        let words = all.iter().map(|part| part.label());
        assert!(words.is_sorted());
    }
}
