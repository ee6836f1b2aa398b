//! Whether a connection would be carried now, and if not, why, in words for people and programs.
#![forbid(unsafe_code)]

use crate::admin::Readiness;
use crate::connection::{GatewayState, TailnetGate};
use crate::lifecycle::drain::{Drain, Phase};
use crate::lifecycle::ready::Ready;
use crate::tailnet::TailnetFault;

/// The readiness list's names.
const UPSTREAM: &str = "upstream";
const TAILNET: &str = "tailnet";
const DRAIN: &str = "drain";

/// Looks at everything a connection needs.
pub(super) fn look(gateway_state: &GatewayState, drain: &Drain) -> Readiness {
    let ready = Ready::new();
    let serving = drain.phase() == Phase::Serving;
    ready.set(UPSTREAM, gateway_state.upstream.is_up());
    ready.set(DRAIN, serving);
    let outside = gateway_state
        .tailnet_gate
        .as_ref()
        .map(TailnetGate::now)
        .filter(|state| !state.is_running());
    ready.set(TAILNET, outside.is_none());
    let pending = ready.pending();
    let (error, message) = match outside {
        _ if pending.is_empty() => return Readiness::ready(),
        _ if !serving => ("draining", "the gateway is shutting down".to_owned()),
        Some(state) => (state.phase.label(), state.sentence()),
        None => ("upstream_down", no_upstream(gateway_state)),
    };
    Readiness { error, message, pending }
}

fn no_upstream(gateway_state: &GatewayState) -> String {
    match gateway_state.tailnet_gate {
        Some(_) => TailnetFault::NoPort.sentence(),
        None => "the upstream cannot be reached: check that it runs where upstream.socks5 points"
            .to_owned(),
    }
}
