//! Step 3: what the client's target means and whether it may be reached, decided by `policy::decide` from what is
//! known at this moment.
//!
//! Everybody who needs such a decision of a running gateway takes a [`DecisionSnapshot`] for it: connections, requests
//! of HTTP forward, DNS questions, `explain`, and a reload that judges live connections again.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::Guard;

use super::names_behind_addresses::{AnsweredClient, DnsAnswerMap, SyntheticAddresses};
use super::{ClientContext, GatewayState, Refusal, TailnetGate};
use crate::dns::DnsResolver;
use crate::labels::{HostFrom, Route};
use crate::lifecycle::drain::Phase;
use crate::policy::{
    self, Admitted, AskedTarget, Decision, DecisionContext, KnownNames, LocalAddresses, NamedBy,
    Policy, PolicyVerdict, RouteTable, SyntheticUse, TargetSource,
};
use crate::record::{Stage, TargetRecord};
use crate::tailnet::TailnetState;
use crate::target::{Name, Target};

/// What a decision is made from, as it is now. To be dropped before anything is waited for: it keeps what a reload
/// replaces.
pub(crate) struct DecisionSnapshot<'a> {
    policy: Guard<Arc<Policy>>,
    local_addresses: Guard<Arc<LocalAddresses>>,
    resolver: Guard<Arc<DnsResolver>>,
    dns_answers: &'a DnsAnswerMap,
    synthetic_addresses: Guard<Option<Arc<SyntheticAddresses>>>,
    tailnet: Option<Arc<TailnetState>>,
    may_leave_tailnet: bool,
    fixed_route: Option<Route>,
}

impl GatewayState {
    /// What is known now.
    pub(crate) fn decision_snapshot(&self) -> DecisionSnapshot<'_> {
        let tailnet_gate = self.tailnet_gate.as_ref();
        DecisionSnapshot {
            policy: self.policy.load(),
            local_addresses: self.local_addresses.load(),
            resolver: self.resolver.load(),
            dns_answers: &self.dns_answers,
            synthetic_addresses: self.synthetic_addresses.load(),
            tailnet: tailnet_gate.map(TailnetGate::now),
            may_leave_tailnet: tailnet_gate.is_none_or(TailnetGate::may_leave_tailnet),
            fixed_route: self.fixed_route,
        }
    }
}

impl DecisionSnapshot<'_> {
    /// The snapshot as `policy` takes it.
    pub(crate) fn decision_context(&self) -> DecisionContext<'_> {
        DecisionContext {
            policy: &self.policy,
            local_addresses: &self.local_addresses,
            names: self,
            routes: self,
        }
    }

    /// What is known of the tailnet, with the kinds of upstream that lead into one.
    pub(crate) fn tailnet_state(&self) -> Option<&TailnetState> {
        self.tailnet.as_deref()
    }
}

impl KnownNames for DecisionSnapshot<'_> {
    fn synthetic_use(&self, address: IpAddr) -> SyntheticUse {
        let synthetic_addresses = self.synthetic_addresses.as_deref();
        synthetic_addresses.map_or(SyntheticUse::NotSynthetic, |synthetic_addresses| {
            synthetic_addresses.use_of(address, Instant::now())
        })
    }

    fn answered_name(&self, client: IpAddr, address: IpAddr) -> Option<Name> {
        self.dns_answers.name_of(AnsweredClient::new(&self.local_addresses, client), address)
    }

    fn qualified_name(&self, name: &Name) -> Option<Name> {
        self.resolver.qualify(name)
    }
}

impl RouteTable for DecisionSnapshot<'_> {
    fn route(&self, address: Option<IpAddr>) -> Option<Route> {
        let by_netmap = || {
            let (tailnet, address) = (self.tailnet.as_ref()?, address?);
            Some(match tailnet.netmap.covering_route(address) {
                Some(_) => Route::Tailnet,
                None => Route::Outside,
            })
        };
        self.fixed_route.or_else(by_netmap)
    }

    fn may_leave_tailnet(&self) -> bool {
        self.may_leave_tailnet
    }
}

/// A target that policy has admitted, and what the steps to come have to know of the decision.
#[derive(Debug)]
pub(super) struct PermittedTarget {
    pub(super) admitted: Admitted<Target>,
    pub(super) pinned: Option<IpAddr>,
    /// When the client asked: from then on it waits for the tailnet to come up.
    pub(super) asked_at: tokio::time::Instant,
    without_name: Option<Box<Decision>>,
}

/// Decides about what the client asks for and writes the decision down.
///
/// # Errors
/// The target may not be reached, or the client or the gateway left before that could be said.
pub(super) async fn decide_target(
    client: &ClientContext<'_>,
    record: &mut TargetRecord,
    asked: AskedTarget<'_>,
) -> Result<PermittedTarget, Refusal> {
    let asked_at = tokio::time::Instant::now();
    wait_for_bare_name(client, &asked, asked_at).await?;
    let asked = AskedTarget { client: Some(record.client().ip()), ..asked };
    let decision = {
        let snapshot = client.gateway_state.decision_snapshot();
        policy::decide(&asked, &snapshot.decision_context())
    };
    write_down(record, decision, asked_at)
}

/// Whether the tailnet has a bare name is known once it is up: during the first login that is waited for.
async fn wait_for_bare_name(
    client: &ClientContext<'_>,
    asked: &AskedTarget<'_>,
    asked_at: tokio::time::Instant,
) -> Result<(), Refusal> {
    let name = asked.named.map(|(name, _)| name).or(asked.target.host.name());
    let (Some(tailnet_gate), true) =
        (&client.gateway_state.tailnet_gate, name.is_some_and(Name::is_bare))
    else {
        return Ok(());
    };
    tokio::select! {
        biased;
        _up_or_not = tailnet_gate.wait_until_running(asked_at) => Ok(()),
        () = client.wait_until_gone() => Err(Refusal::client_gone()),
        () = client.drain.reached(Phase::Draining) => Err(Refusal::draining()),
    }
}

fn write_down(
    record: &mut TargetRecord,
    decision: Decision,
    asked_at: tokio::time::Instant,
) -> Result<PermittedTarget, Refusal> {
    let Decision { effective_target, source, policy, permission, pinned, without_name } = decision;
    record.set_stage(Stage::Policy);
    match source {
        TargetSource::DnsAnswer => record.set_target(&effective_target, HostFrom::Dns),
        TargetSource::Qualified => record.set_qualified_target(&effective_target),
        TargetSource::Asked | TargetSource::Named(_) => {}
    }
    tracing::debug!(target = %effective_target, source = source.label(), "effective target");
    let permitted = permission.map_err(|refused| {
        let rule = policy.as_ref().and_then(|policy| policy.rule.as_deref());
        tracing::debug!(%refused, "target refused");
        Refusal::by_decision(refused, &effective_target, rule)
    });
    if let Some(policy) = policy {
        write_verdict(record, policy);
    }
    let admitted = permitted?;
    Ok(PermittedTarget { admitted, pinned, asked_at, without_name })
}

/// Writes down what policy said; the access line carries the last it said.
pub(super) fn write_verdict(record: &mut TargetRecord, policy: PolicyVerdict) {
    let PolicyVerdict { mode, verdict, rule } = policy;
    tracing::debug!(%mode, %verdict, rule = rule.as_deref(), "policy decided");
    record.set_verdict(mode, verdict, rule);
}

impl PermittedTarget {
    /// The address that a redirected client was going to, once its name was not to be found, where the address needs
    /// none.
    pub(super) fn without_name(self, record: &mut TargetRecord) -> Option<Self> {
        let decision = *self.without_name?;
        record.set_target(&decision.effective_target, HostFrom::None);
        write_down(record, decision, self.asked_at).ok()
    }
}

/// The access log's `host_from` for a name in a client's first bytes.
pub(super) const fn host_from(by: NamedBy) -> HostFrom {
    match by {
        NamedBy::Sni => HostFrom::Sni,
        NamedBy::HttpHost => HostFrom::HttpHost,
    }
}
