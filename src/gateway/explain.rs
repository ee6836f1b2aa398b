//! The decision in slow motion: what would become of a target, told without dialling it.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use crate::api::{
    AddressAnswer, ClientAnswer, ClientProcess, DecisionAnswer, DnsAnswer, ExplainAnswer,
    FaultAnswer, TailnetStateAnswer,
};
use crate::connection::{GatewayState, fault_of_name};
use crate::dns::Resolution;
use crate::labels::Route;
use crate::policy::{Admitted, Decision};
use crate::tailnet::TailnetFault;
use crate::target::{Host, Target};

/// The port of a target given without one.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// Reads a target as a person types it.
///
/// # Errors
/// A sentence why it is none.
pub(super) fn target(text: &str) -> Result<Target, String> {
    Target::typed(text, DEFAULT_PORT).map_err(|error| error.to_string())
}

/// The object of `/api/v1/explain`.
pub(super) async fn explain(
    gateway_state: &GatewayState,
    asked: &str,
    target: Target,
) -> ExplainAnswer {
    let target = gateway_state.effective_target(target);
    let (decision, judged) =
        gateway_state.policy.load().judge_host(&gateway_state.own.load(), &target);
    let state = gateway_state.tailnet_gate.as_ref().map(|tailnet_gate| tailnet_gate.now());
    let fault = state.as_ref().filter(|state| !state.is_running()).map(|state| state.why());
    let clients = gateway_state.telemetry.clients_of(&target).into_iter();
    let mut told = ExplainAnswer {
        target: target.to_string(),
        asked: asked.to_owned(),
        policy: of_policy(decision),
        refused: judged.is_err(),
        dns: None,
        addresses: Vec::new(),
        tailnet: state.map(|state| TailnetStateAnswer { state: state.phase }),
        fault: fault.as_ref().map(of_fault),
        clients: clients.map(of_client).collect(),
    };
    // As with a connection: nobody is asked for what is refused, or while the tailnet is down.
    if let (Ok(admitted), None) = (judged, fault) {
        resolve_and_check(gateway_state, &admitted, &mut told).await;
    }
    told
}

fn of_client((process, connections): (Option<Arc<ClientProcess>>, usize)) -> ClientAnswer {
    ClientAnswer { process: process.as_deref().cloned(), connections }
}

fn of_policy(Decision { mode, verdict, rule }: Decision) -> DecisionAnswer {
    DecisionAnswer { mode, verdict, rule }
}

/// Step 4, told: by which way the host is found, and what policy says of each address.
async fn resolve_and_check(
    gateway_state: &GatewayState,
    admitted: &Admitted<Target>,
    told: &mut ExplainAnswer,
) {
    let names = gateway_state.names.load_full();
    let plan = match &admitted.get().host {
        Host::Name(name) => Some(names.plan(name)),
        Host::Address(_) => None,
    };
    let started = Instant::now();
    let resolved = names.resolve(admitted).await;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let addresses = match &resolved {
        Ok(Resolution::Addresses { addresses, .. }) => addresses.clone(),
        Ok(Resolution::Passed(_)) | Err(_) => Vec::new(),
    };
    if let Some(plan) = plan {
        told.dns = Some(DnsAnswer {
            route: plan.by,
            suffix: plan.suffix.map(|suffix| suffix.to_string()),
            nameservers: plan.nameservers,
            skipped: plan.skipped,
            addresses: addresses.clone(),
            took_ms: took,
            error: resolved.as_ref().err().map(ToString::to_string),
        });
    }
    match resolved {
        Ok(_) => judge_answers(gateway_state, admitted, &addresses, told),
        Err(error) => {
            let fault = fault_of_name(&error, gateway_state.tailnet_gate.is_some());
            told.fault = Some(of_fault(&fault));
        }
    }
}

fn judge_answers(
    gateway_state: &GatewayState,
    admitted: &Admitted<Target>,
    addresses: &[IpAddr],
    told: &mut ExplainAnswer,
) {
    let (policy, own) = (gateway_state.policy.load(), gateway_state.own.load());
    let state = gateway_state.tailnet_gate.as_ref().map(|tailnet_gate| tailnet_gate.now());
    let mut refused = !addresses.is_empty();
    let mut rows = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let (decision, judged) = policy.judge_address(&own, admitted, *ip);
        refused &= judged.is_err();
        let cover = state.as_ref().and_then(|state| state.netmap.cover(*ip));
        let outside = state.as_ref().map(|_| Route::Outside);
        rows.push(AddressAnswer {
            address: *ip,
            verdict: decision.verdict,
            rule: decision.rule,
            route: cover.map(|_| Route::Tailnet).or(outside).or(gateway_state.route),
            peer: cover.map(|cover| cover.peer.host.clone()),
            net: cover.map(|cover| cover.net),
            online: cover.map(|cover| cover.peer.online),
        });
    }
    told.fault = fault_of_all(gateway_state, &rows, addresses).as_ref().map(of_fault);
    told.addresses = rows;
    told.refused = refused;
}

/// What is known to be wrong with every address before one is dialled.
fn fault_of_all(
    gateway_state: &GatewayState,
    rows: &[AddressAnswer],
    addresses: &[IpAddr],
) -> Option<TailnetFault> {
    let first = addresses.first()?;
    let refuses_outside = gateway_state
        .tailnet_gate
        .as_ref()
        .is_some_and(|tailnet_gate| !tailnet_gate.goes_outside());
    if refuses_outside && rows.iter().all(|row| row.route == Some(Route::Outside)) {
        return Some(TailnetFault::NoRoute { address: *first });
    }
    let offline = rows.iter().all(|row| row.online == Some(false));
    let peer = rows.first().and_then(|row| row.peer.clone());
    peer.filter(|_| offline).map(|peer| TailnetFault::PeerOffline { peer })
}

/// Symptom, cause and fix, as the API gives them.
pub(super) fn of_fault(fault: &TailnetFault) -> FaultAnswer {
    fault.advice()
}
