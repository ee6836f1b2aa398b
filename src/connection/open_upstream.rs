//! One target, from policy to an open way out, or to the reason why there is none.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{GatewayState, Refusal, fault_of_name, watch_client};
use crate::dns::Resolution;
use crate::labels::{DnsResult, HostFrom, ResolvedBy};
use crate::lifecycle::drain::{Guard, Phase};
use crate::policy::{Address, Admitted};
use crate::record::{Record, Stage};
use crate::sys::Stream;
use crate::tailnet::TailnetFault;
use crate::target::Target;
use crate::upstream::{Connected, Destination, UpstreamError};

/// What [`open_upstream`] is asked.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) target: &'a Target,
    /// The client has already sent bytes for the far side: its FIN is then a half-close.
    pub(super) early: bool,
    /// The client is over a limit: it is told so once its target is known.
    pub(super) full: bool,
    pub(super) drain: &'a Guard,
}

/// Takes one target from policy to an open way out, or to the reason why there is none.
pub(super) async fn open_upstream(
    gateway_state: &GatewayState,
    client: &Stream,
    record: &mut Record,
    ask: Ask<'_>,
) -> Result<Connected, Refusal> {
    let permitted = permit(gateway_state, client, record, ask).await?;
    dial(gateway_state, client, record, permitted, ask).await
}

/// A target that policy has admitted, and what is to be known of how it was asked for.
pub(super) struct Permitted {
    pub(super) admitted: Admitted<Target>,
    /// Where a client that came by address was going: of the name's addresses this one alone is dialled,
    /// so that the client reaches the very host it chose.
    pub(super) chosen: Option<IpAddr>,
    pub(super) asked_at: tokio::time::Instant,
}

/// Steps 1 to 3: the target as it is meant; may it?
pub(super) async fn permit(
    gateway_state: &GatewayState,
    client: &Stream,
    record: &mut Record,
    ask: Ask<'_>,
) -> Result<Permitted, Refusal> {
    let asked_at = tokio::time::Instant::now();
    let target = qualify_when_ready(gateway_state, client, record, ask, asked_at).await?;
    gateway_state.reject_unassigned_synthetic(&target)?;
    let admitted = admit(gateway_state, record, &target)?;
    // A synthetic address is no host's: any address of its name will do.
    let chosen = ask.target.host.address().filter(|ip| !gateway_state.is_synthetic(*ip));
    Ok(Permitted { admitted, chosen, asked_at })
}

/// Steps 4 and 5, unless there is no room or the client leaves.
pub(super) async fn dial(
    gateway_state: &GatewayState,
    client: &Stream,
    record: &mut Record,
    permitted: Permitted,
    ask: Ask<'_>,
) -> Result<Connected, Refusal> {
    if ask.full {
        return Err(Refusal::overloaded());
    }
    if ask.drain.phase() >= Phase::Draining {
        return Err(Refusal::draining());
    }
    let live = record.live();
    let connected = {
        // Pinned here: what a macro or a timeout is given is copied there, and this is large.
        let way_out = std::pin::pin!(way_out(gateway_state, record, permitted));
        tokio::select! {
            biased;
            connected = way_out => connected?,
            () = watch_client::client_gone(client, ask.early) => return Err(Refusal::client_gone()),
            reason = live.cut().wait() => return Err(Refusal::cut(reason, ask.target)),
        }
    };
    record.connected();
    Ok(connected)
}

/// The target as it is judged. Whether the tailnet has a bare name is known once it is up: during the
/// first login that is waited for.
pub(super) async fn qualify_when_ready(
    gateway_state: &GatewayState,
    client: &Stream,
    record: &mut Record,
    ask: Ask<'_>,
    asked_at: tokio::time::Instant,
) -> Result<Target, Refusal> {
    if let (Some(tailnet_gate), true) = (&gateway_state.tailnet_gate, ask.target.is_bare()) {
        tokio::select! {
            biased;
            _up_or_not = tailnet_gate.pass(asked_at) => {}
            () = watch_client::client_gone(client, ask.early) => return Err(Refusal::client_gone()),
            () = ask.drain.reached(Phase::Draining) => return Err(Refusal::draining()),
        }
    }
    Ok(effective_target(gateway_state, record, ask.target))
}

/// The target as it is judged and written down, by what is known now.
pub(super) fn effective_target(
    gateway_state: &GatewayState,
    record: &mut Record,
    asked: &Target,
) -> Target {
    if let Some(named) = gateway_state.target_by_dns_answer(record.client().ip(), asked) {
        record.target(&named, HostFrom::Dns);
        return named;
    }
    let target = gateway_state.qualified(asked.clone());
    if target != *asked {
        record.whole(&target);
    }
    target
}

/// Step 3: may it? Every decision is recorded, whatever it is.
pub(super) fn admit(
    gateway_state: &GatewayState,
    record: &mut Record,
    target: &Target,
) -> Result<Admitted<Target>, Refusal> {
    record.stage(Stage::Policy);
    let (policy, own) = (gateway_state.policy.load(), gateway_state.own.load());
    let (decision, judged) = policy.judge_host(&own, target);
    let refusal = |refused| Refusal::policy(refused, target, decision.rule.as_deref());
    let judged = judged.map_err(refusal);
    record.verdict(decision.mode, decision.verdict, decision.rule);
    judged
}

/// Steps 4 and 5: where is it, and the way there. Nothing is asked and nothing dialled unless the
/// tailnet is up: tailscaled would dial from this host's own network.
async fn way_out(
    gateway_state: &GatewayState,
    record: &mut Record,
    permitted: Permitted,
) -> Result<Connected, Refusal> {
    let Permitted { admitted, chosen, asked_at } = permitted;
    record.stage(Stage::Dns);
    record.upstream(gateway_state.upstream_kind);
    if let Some(tailnet_gate) = &gateway_state.tailnet_gate {
        tailnet_gate.pass(asked_at).await.map_err(|fault| refused_by(record, &fault))?;
    }
    let destination = resolve_and_check(gateway_state, record, admitted, chosen).await?;
    record.stage(Stage::Dial);
    let asked = destination.first();
    record.route(gateway_state.route_to(asked));
    if let (Some(tailnet_gate), Some(address)) = (&gateway_state.tailnet_gate, asked) {
        tailnet_gate.warm_up(address.ip()).await;
    }
    let begun = Instant::now();
    let connected = match gateway_state.upstream.connect(destination).await {
        Ok(connected) => connected,
        Err(error) => {
            return Err(not_connected(gateway_state, record, error, asked, begun.elapsed()));
        }
    };
    if let Some(address) = connected.address {
        record.dialled(address);
        if connected.address != asked {
            record.route(gateway_state.route_to(connected.address));
        }
    }
    Ok(connected)
}

/// The upstream's own words, or the real cause behind them.
fn not_connected(
    gateway_state: &GatewayState,
    record: &mut Record,
    error: UpstreamError,
    asked: Option<SocketAddr>,
    took: Duration,
) -> Refusal {
    let fault = gateway_state
        .tailnet_gate
        .as_ref()
        .and_then(|tailnet_gate| tailnet_gate.reason(&error, asked, took));
    match fault {
        Some(fault) => refused_by(record, &fault),
        None => error.into(),
    }
}

fn refused_by(record: &mut Record, fault: &TailnetFault) -> Refusal {
    if let Some(word) = fault.word() {
        record.error_word(word);
    }
    Refusal::from(fault)
}

/// Step 4: the admitted host's addresses, each judged again before it may be dialled.
async fn resolve_and_check(
    gateway_state: &GatewayState,
    record: &mut Record,
    admitted: Admitted<Target>,
    chosen: Option<IpAddr>,
) -> Result<Destination, Refusal> {
    let names = gateway_state.names.load_full();
    let asked = Instant::now();
    let resolved = names.resolve(&admitted).await;
    let (addresses, by) = match resolved {
        Ok(Resolution::Passed(admitted)) => {
            record.resolved(ResolvedBy::Upstream, None);
            return Ok(Destination::Name(admitted));
        }
        Ok(Resolution::Addresses { addresses, by }) => {
            if let Some(route) = by.dns_route() {
                gateway_state.telemetry.dns(route, DnsResult::Ok, asked.elapsed());
            }
            (addresses, by)
        }
        Err(error) => {
            gateway_state.telemetry.dns(error.route(), error.result(), asked.elapsed());
            record.resolved(error.route(), None);
            return Err(Refusal::from(&fault_of_name(
                &error,
                gateway_state.tailnet_gate.is_some(),
            )));
        }
    };
    let addresses = match chosen {
        Some(chosen) if addresses.contains(&chosen) => vec![chosen],
        _ => addresses,
    };
    let port = admitted.get().port.get();
    let first = addresses.first().map(|ip| SocketAddr::new(*ip, port));
    record.resolved(by, first);
    let judged = judge_answers(gateway_state, record, &admitted, &addresses)?;
    let Some(tailnet_gate) = &gateway_state.tailnet_gate else {
        return Ok(Destination::Addresses(judged));
    };
    let kept = tailnet_gate.inside_only(judged, |address| address.get().ip);
    kept.map(Destination::Addresses).map_err(|fault| refused_by(record, &fault))
}

/// Keeps the addresses that may be dialled; none left is the refusal of the last one.
fn judge_answers(
    gateway_state: &GatewayState,
    record: &mut Record,
    admitted: &Admitted<Target>,
    addresses: &[IpAddr],
) -> Result<Vec<Admitted<Address>>, Refusal> {
    let (policy, own) = (gateway_state.policy.load(), gateway_state.own.load());
    let mut refused = None;
    let mut kept = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let (decision, judged) = policy.judge_address(&own, admitted, *ip);
        match judged {
            Ok(address) => kept.push(address),
            Err(why) => refused = Some((decision, why)),
        }
    }
    match refused {
        Some((decision, why)) if kept.is_empty() => {
            let rule = decision.rule;
            let refusal = Refusal::policy(why, admitted.get(), rule.as_deref());
            record.verdict(decision.mode, decision.verdict, rule);
            Err(refusal)
        }
        _ => Ok(kept),
    }
}
