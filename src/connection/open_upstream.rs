//! Steps 4 and 5: where a permitted target is, each of its addresses checked again, and an open way there; or the
//! reason why there is none.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::field::display;

use super::decision::{PermittedTarget, write_verdict};
use super::{ClientContext, GatewayState, Refusal, fault_of_name};
use crate::dns::Resolution;
use crate::labels::{DnsResult, ResolvedBy, Route};
use crate::lifecycle::drain::Phase;
use crate::policy::{self, AddressDecision, AddressDecisions, RouteTable as _};
use crate::record::{Stage, TargetRecord};
use crate::tailnet::TailnetFault;
use crate::upstream::{Destination, UpstreamConnection, UpstreamError};

/// Finds the target and connects to it, unless there is no room or the client leaves meanwhile. Where nobody knows
/// the name of a redirected client, the address it was going to takes its place if that needs no name.
///
/// # Errors
/// Why there is no way to the target, or that nobody waits for one any more.
pub(super) async fn open_upstream(
    client: &ClientContext<'_>,
    record: &mut TargetRecord,
    mut permitted: PermittedTarget,
) -> Result<UpstreamConnection, Refusal> {
    loop {
        let refusal = match Box::pin(open_to(client, record, &permitted)).await {
            Ok(connected) => return Ok(connected),
            Err(refusal) => refusal,
        };
        if !refusal.is_of_dns() {
            return Err(refusal);
        }
        let Some(by_address) = permitted.without_name(record) else { return Err(refusal) };
        permitted = by_address;
    }
}

async fn open_to(
    client: &ClientContext<'_>,
    record: &mut TargetRecord,
    permitted: &PermittedTarget,
) -> Result<UpstreamConnection, Refusal> {
    if client.over_limit {
        return Err(Refusal::overloaded());
    }
    if client.drain.phase() >= Phase::Draining {
        return Err(Refusal::draining());
    }
    let live = record.live_connection();
    let connected = {
        // Pinned here: what a macro or a timeout is given is copied there, and this is large.
        let connect = std::pin::pin!(resolve_and_connect(client.gateway_state, record, permitted));
        tokio::select! {
            biased;
            connected = connect => connected?,
            () = client.wait_until_gone() => return Err(Refusal::client_gone()),
            reason = live.cut().wait() => return Err(Refusal::cut(reason, permitted.admitted.get())),
        }
    };
    record.mark_connected();
    Ok(connected)
}

/// Nothing is asked and nothing dialled unless the tailnet is up: tailscaled would dial from this host's own network.
async fn resolve_and_connect(
    gateway_state: &GatewayState,
    record: &mut TargetRecord,
    permitted: &PermittedTarget,
) -> Result<UpstreamConnection, Refusal> {
    record.set_stage(Stage::Dns);
    record.set_upstream(gateway_state.upstream_kind);
    if let Some(tailnet_gate) = &gateway_state.tailnet_gate {
        let running = tailnet_gate.wait_until_running(permitted.asked_at).await;
        running.map_err(|fault| refused_by(record, &fault))?;
    }
    let destination = resolve_and_check(gateway_state, record, permitted).await?;
    record.set_stage(Stage::Dial);
    connect_upstream(gateway_state, record, destination).await
}

/// Step 4: the target's addresses, each decided about before it may be dialled.
async fn resolve_and_check(
    gateway_state: &GatewayState,
    record: &mut TargetRecord,
    permitted: &PermittedTarget,
) -> Result<Destination, Refusal> {
    let resolver = gateway_state.resolver.load_full();
    let asked = Instant::now();
    let (addresses, by) = match resolver.resolve(&permitted.admitted).await {
        Ok(Resolution::Passed(admitted)) => {
            tracing::debug!("the name is passed on to the upstream");
            record.set_resolved(ResolvedBy::Upstream, None);
            return Ok(Destination::Name(admitted));
        }
        Ok(Resolution::Addresses { addresses, by }) => {
            if let Some(route) = by.dns_route() {
                gateway_state.telemetry.record_dns(route, DnsResult::Ok, asked.elapsed());
            }
            (addresses, by)
        }
        Err(error) => {
            tracing::debug!(route = %error.route(), %error, "not resolved");
            gateway_state.telemetry.record_dns(error.route(), error.result(), asked.elapsed());
            record.set_resolved(error.route(), None);
            let in_a_tailnet = gateway_state.tailnet_gate.is_some();
            return Err(Refusal::from(&fault_of_name(&error, in_a_tailnet)));
        }
    };
    let decisions = {
        let snapshot = gateway_state.decision_snapshot();
        let PermittedTarget { admitted, pinned, .. } = permitted;
        policy::decide_addresses(admitted, *pinned, &addresses, &snapshot.decision_context())
    };
    tracing::debug!(%by, ?addresses, "resolved");
    check_addresses(record, permitted, decisions, by)
}

/// Keeps the addresses that may be dialled; none left is a refusal.
fn check_addresses(
    record: &mut TargetRecord,
    permitted: &PermittedTarget,
    decisions: AddressDecisions,
    by: ResolvedBy,
) -> Result<Destination, Refusal> {
    for AddressDecision { address, policy, route, permission } in decisions.iter() {
        let (route, rule) = (route.map(display), policy.rule.as_deref());
        let refused = permission.as_ref().err().map(display);
        tracing::debug!(%address, route, rule, refused, "address decided");
    }
    record.set_resolved(by, decisions.first_dialled().map(|first| first.address));
    let Some((policy, refused)) = decisions.decisive_refusal() else {
        return Ok(Destination::Addresses(decisions.into_permissions()));
    };
    let refusal = Refusal::by_decision(refused, permitted.admitted.get(), policy.rule.as_deref());
    if policy.verdict == policy::Verdict::Deny {
        write_verdict(record, policy.clone());
    }
    Err(refusal)
}

/// Step 5: the way to the first of the addresses that answers, or to the name.
async fn connect_upstream(
    gateway_state: &GatewayState,
    record: &mut TargetRecord,
    destination: Destination,
) -> Result<UpstreamConnection, Refusal> {
    let asked = destination.first_address();
    record.set_route(gateway_state.route_to(asked));
    if let (Some(tailnet_gate), Some(address)) = (&gateway_state.tailnet_gate, asked) {
        tailnet_gate.warm_up(address.ip()).await;
    }
    let begun = Instant::now();
    let connected = match gateway_state.upstream.connect(destination).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(%error, ms = begun.elapsed().as_millis(), "not connected");
            return Err(why_not_connected(gateway_state, record, error, asked, begun.elapsed()));
        }
    };
    if let Some(address) = connected.address {
        record.set_dialled_address(address);
        if connected.address != asked {
            record.set_route(gateway_state.route_to(connected.address));
        }
    }
    let upstream = gateway_state.upstream_kind;
    let address = connected.address.map(display);
    tracing::debug!(%upstream, address, ms = begun.elapsed().as_millis(), "connected");
    Ok(connected)
}

impl GatewayState {
    /// The `route` of the log to an address, or to a name that is passed on.
    pub(super) fn route_to(&self, address: Option<SocketAddr>) -> Option<Route> {
        self.decision_snapshot().route(address.map(|address| address.ip()))
    }
}

/// The upstream's own words, or the real cause behind them.
fn why_not_connected(
    gateway_state: &GatewayState,
    record: &mut TargetRecord,
    error: UpstreamError,
    asked: Option<SocketAddr>,
    took: Duration,
) -> Refusal {
    let tailnet_gate = gateway_state.tailnet_gate.as_ref();
    match tailnet_gate.and_then(|tailnet_gate| tailnet_gate.fault_behind(&error, asked, took)) {
        Some(fault) => refused_by(record, &fault),
        None => error.into(),
    }
}

fn refused_by(record: &mut TargetRecord, fault: &TailnetFault) -> Refusal {
    if let Some(word) = fault.word() {
        record.set_error_detail(word);
    }
    Refusal::from(fault)
}
