//! The decision in slow motion: what would become of a target, told without dialling it. It is the decision of
//! `policy::decide` that a connection gets, from the same snapshots.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{
    AddressAnswer, ClientAnswer, ClientProcess, DecisionAnswer, DnsAnswer, ExplainAnswer,
    TailnetStateAnswer,
};
use crate::connection::{GatewayState, fault_of_name, fault_of_refusal};
use crate::dns::{NameError, Resolution, ResolvePlan};
use crate::policy::{
    self, AddressDecision, AddressDecisions, Admitted, AskedTarget, Decision, PolicyVerdict,
    Verdict,
};
use crate::tailnet::{TailnetFault, TailnetState};
use crate::target::Target;

/// The port of a target given without one.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// Reads a target as a person types it.
///
/// # Errors
/// A sentence why it is none.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    Target::parse_typed(text, DEFAULT_PORT).map_err(|error| error.to_string())
}

/// The answer of `/api/v1/explain`.
pub(super) async fn explain(
    gateway_state: &GatewayState,
    asked: &str,
    target: Target,
) -> ExplainAnswer {
    let (decision, tailnet) = {
        let snapshot = gateway_state.decision_snapshot();
        let decision =
            policy::decide(&AskedTarget::unconnected(&target), &snapshot.decision_context());
        (decision, snapshot.tailnet_state().cloned())
    };
    let Decision { effective_target, policy, permission, pinned, .. } = decision;
    let down = tailnet.as_ref().filter(|state| !state.is_running()).map(TailnetState::fault_now);
    let refused = permission.as_ref().err().and_then(|refused| fault_of_refusal(*refused));
    let fault = refused.or_else(|| down.clone());
    let clients = gateway_state.telemetry.clients_of(&effective_target);
    let mut answer = ExplainAnswer {
        target: effective_target.to_string(),
        asked: asked.to_owned(),
        policy: policy_answer(policy),
        refused: permission.is_err(),
        dns: None,
        addresses: Vec::new(),
        tailnet: tailnet.map(|state| TailnetStateAnswer { state: state.phase }),
        fault: fault.as_ref().map(TailnetFault::advice),
        clients: clients.into_iter().map(client_answer).collect(),
    };
    // As with a connection: nobody is asked for what is refused, or while the tailnet is down.
    if let (Ok(admitted), None) = (permission, down) {
        resolve_and_check(gateway_state, &admitted, pinned, &mut answer).await;
    }
    answer
}

fn client_answer((process, connections): (Option<Arc<ClientProcess>>, usize)) -> ClientAnswer {
    ClientAnswer { process: process.as_deref().cloned(), connections }
}

fn policy_answer(policy: Option<PolicyVerdict>) -> DecisionAnswer {
    DecisionAnswer {
        mode: policy.as_ref().map(|policy| policy.mode),
        verdict: policy.as_ref().map(|policy| policy.verdict),
        rule: policy.and_then(|policy| policy.rule),
    }
}

/// By which way the host is found, and the decision about each of its addresses.
async fn resolve_and_check(
    gateway_state: &GatewayState,
    admitted: &Admitted<Target>,
    pinned: Option<IpAddr>,
    answer: &mut ExplainAnswer,
) {
    let resolver = gateway_state.resolver.load_full();
    let plan = admitted.get().host.name().map(|name| resolver.plan(name));
    let started = Instant::now();
    let (found, error) = match resolver.resolve(admitted).await {
        Ok(Resolution::Addresses { addresses, .. }) => (addresses, None),
        Ok(Resolution::Passed(_)) => (Vec::new(), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    if let Some(plan) = plan {
        answer.dns = Some(dns_answer(plan, &found, started.elapsed(), error.as_ref()));
    }
    if let Some(error) = error {
        let fault = fault_of_name(&error, gateway_state.tailnet_gate.is_some());
        answer.fault = Some(fault.advice());
        return;
    }
    let snapshot = gateway_state.decision_snapshot();
    let decisions =
        policy::decide_addresses(admitted, pinned, &found, &snapshot.decision_context());
    let rows = decisions.iter().map(|decision| address_answer(decision, snapshot.tailnet_state()));
    answer.addresses = rows.collect();
    let decisive = decisions.decisive_refusal();
    if let Some((policy, _)) = decisive.filter(|(policy, _)| policy.verdict == Verdict::Deny) {
        answer.policy = policy_answer(Some(policy.clone()));
    }
    let fault = match decisive {
        Some((_, refused)) => fault_of_refusal(refused),
        None => offline(&decisions, snapshot.tailnet_state()),
    };
    answer.refused = decisive.is_some() && fault.is_none();
    answer.fault = fault.as_ref().map(TailnetFault::advice);
}

fn dns_answer(
    plan: ResolvePlan,
    found: &[IpAddr],
    took: Duration,
    error: Option<&NameError>,
) -> DnsAnswer {
    DnsAnswer {
        route: plan.by,
        suffix: plan.suffix.map(|suffix| suffix.to_string()),
        nameservers: plan.nameservers,
        skipped: plan.skipped,
        addresses: found.to_vec(),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        error: error.map(ToString::to_string),
    }
}

fn address_answer(decision: &AddressDecision, tailnet: Option<&TailnetState>) -> AddressAnswer {
    let AddressDecision { address, policy, route, .. } = decision;
    let cover = tailnet.and_then(|state| state.netmap.covering_route(address.ip()));
    AddressAnswer {
        address: address.ip(),
        verdict: policy.verdict,
        rule: policy.rule.clone(),
        route: *route,
        peer: cover.as_ref().map(|cover| cover.peer.host.clone()),
        net: cover.as_ref().map(|cover| cover.net),
        online: cover.as_ref().map(|cover| cover.peer.online),
    }
}

/// What is known to be wrong with every address before one is dialled: the peers that lead there are offline.
fn offline(decisions: &AddressDecisions, tailnet: Option<&TailnetState>) -> Option<TailnetFault> {
    let peers: Option<Vec<_>> = decisions
        .iter()
        .map(|decision| Some(tailnet?.netmap.covering_route(decision.address.ip())?.peer))
        .collect();
    let peers = peers.filter(|peers| peers.iter().all(|peer| !peer.online))?;
    peers.first().map(|peer| TailnetFault::PeerOffline { peer: peer.host.clone() })
}
