//! The one decision about a target: what is meant, may it be reached, where is it, which way does it lead.
//!
//! Connections of every inbound, requests of HTTP forward, questions to our DNS server, `explain`, `policy test` and
//! a reload ask here, so that none of them can differ from another. There are two stages: [`decide`] (and
//! [`decide_question`]) before any question leaves this host, [`decide_addresses`] once the addresses are known. All
//! of it is pure: what it is made from is a [`DecisionContext`] of snapshots, taken by whoever asks.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::judge::{Policy, RequestedServer};
use super::local_addresses::LocalAddresses;
use super::verdict::{Address, Admitted, PolicyVerdict, Refused, Verdict};
use crate::labels::Route;
use crate::target::{Host, Name, Target};

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct AskedTarget<'a> {
    /// As the client said it; of a redirected client the address it was going to.
    pub target: &'a Target,
    /// Who asks, where somebody is connected: our DNS server may have given it this address for a name.
    pub client: Option<IpAddr>,
    /// The server that a redirected client names in its first bytes, and where.
    pub named: Option<(&'a Name, NamedBy)>,
}

impl<'a> AskedTarget<'a> {
    /// A target that nobody connected to us asks for: of `explain`, of the settings, of a reload.
    pub fn unconnected(target: &'a Target) -> Self {
        Self { target, client: None, named: None }
    }
}

/// Where a redirected client names its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// In the ClientHello of its TLS (RFC 6066 section 3).
    Sni,
    /// In the Host field of its HTTP request.
    HttpHost,
}

/// What a decision is made from, as it is at one moment.
#[derive(Clone, Copy)]
pub struct DecisionContext<'a> {
    /// The rules in force.
    pub policy: &'a Policy,
    /// What belongs to this host.
    pub local_addresses: &'a LocalAddresses,
    /// The names we know for what was asked.
    pub names: &'a dyn KnownNames,
    /// Where the upstream leads.
    pub routes: &'a dyn RouteTable,
}

/// Names known for an address or a bare name. Nobody is asked for them.
pub trait KnownNames {
    /// What an address stands for if it is one of `dns.synthetic`.
    fn synthetic_use(&self, address: IpAddr) -> SyntheticUse;
    /// The name for which our DNS server lately gave `client` this address.
    fn answered_name(&self, client: IpAddr, address: IpAddr) -> Option<Name>;
    /// The whole name behind a bare one, where the tailnet has it.
    fn qualified_name(&self, name: &Name) -> Option<Name>;
}

/// What an address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyntheticUse {
    /// Itself: it is not of the synthetic range.
    NotSynthetic,
    /// Nobody: it is of the range, and no name has it now.
    Unassigned,
    /// The name that has the address now.
    Assigned(Name),
}

/// Where the upstream leads, by the tailnet's snapshot.
pub trait RouteTable {
    /// The route to an address, or to a name that is passed on unresolved (`None`); nothing where that is not known.
    fn route(&self, address: Option<IpAddr>) -> Option<Route>;
    /// Whether addresses that nothing in the tailnet covers may be dialled (`upstream.outside_tailnet`).
    fn may_leave_tailnet(&self) -> bool;
}

/// No name is known and no route: of settings that are judged without a running gateway.
#[derive(Debug, Clone, Copy)]
pub struct NothingKnown;

impl KnownNames for NothingKnown {
    fn synthetic_use(&self, _address: IpAddr) -> SyntheticUse {
        SyntheticUse::NotSynthetic
    }

    fn answered_name(&self, _client: IpAddr, _address: IpAddr) -> Option<Name> {
        None
    }

    fn qualified_name(&self, _name: &Name) -> Option<Name> {
        None
    }
}

impl RouteTable for NothingKnown {
    fn route(&self, _address: Option<IpAddr>) -> Option<Route> {
        None
    }

    fn may_leave_tailnet(&self) -> bool {
        true
    }
}

/// How the effective target was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSource {
    /// It is the target as asked for.
    Asked,
    /// It is the whole name behind the bare one asked for.
    Qualified,
    /// It is the name for which our DNS server gave the address asked for.
    DnsAnswer,
    /// It is the name in the first bytes of a redirected client.
    Named(NamedBy),
}

impl TargetSource {
    /// One word for the debug log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Qualified => "qualified",
            Self::DnsAnswer => "dns_answer",
            Self::Named(NamedBy::Sni) => "sni",
            Self::Named(NamedBy::HttpHost) => "http_host",
        }
    }
}

/// The decision about a target, before its addresses are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The target as it is meant: it is what is judged and written down.
    pub effective_target: Target,
    /// How that was found.
    pub source: TargetSource,
    /// What policy says; none where it was not asked, because nobody is meant.
    pub policy: Option<PolicyVerdict>,
    /// The permission to look it up and to dial it.
    pub permission: Result<Admitted<Target>, Refused>,
    /// Where a client that came by address was going: of the name's addresses this one alone is dialled if it is
    /// among them, so that the client reaches the very host it chose.
    pub pinned: Option<IpAddr>,
    /// What holds if nobody knows where the name is: the address that a redirected client was going to, where it is
    /// admitted without any name.
    pub without_name: Option<Box<Decision>>,
}

/// Decides what is meant by a target and whether it may be reached. No DNS question has been asked.
pub fn decide(asked: &AskedTarget<'_>, context: &DecisionContext<'_>) -> Decision {
    match asked.named {
        Some((name, by)) => decide_named(asked, name, by, context),
        None => decide_unnamed(asked, context),
    }
}

fn decide_unnamed(asked: &AskedTarget<'_>, context: &DecisionContext<'_>) -> Decision {
    let target = asked.target;
    let pinned = target.host.address();
    let name = match pinned {
        None => return decide_qualified(target, TargetSource::Asked, None, context),
        Some(address) => match context.names.synthetic_use(address) {
            SyntheticUse::Unassigned => return refuse_unassigned(target, address),
            // A synthetic address is no host's: any address of its name will do.
            SyntheticUse::Assigned(name) => {
                return decide_about(
                    with_name(target, name),
                    TargetSource::DnsAnswer,
                    None,
                    context,
                );
            }
            SyntheticUse::NotSynthetic => {
                asked.client.and_then(|client| context.names.answered_name(client, address))
            }
        },
    };
    // The name is only a way to read the request: one that policy would not allow does not replace the address.
    let by_answer = name.map(|name| {
        decide_about(with_name(target, name), TargetSource::DnsAnswer, pinned, context)
    });
    by_answer
        .filter(Decision::is_allowed)
        .unwrap_or_else(|| decide_about(target.clone(), TargetSource::Asked, pinned, context))
}

/// A redirected client that names its server itself. The name is a claim: it is judged, and what it resolves to is
/// dialled, never the address on the strength of the name (docs/requirements.md, B18).
fn decide_named(
    asked: &AskedTarget<'_>,
    name: &Name,
    by: NamedBy,
    context: &DecisionContext<'_>,
) -> Decision {
    let pinned = asked.target.host.address();
    let by_address = decide_about(asked.target.clone(), TargetSource::Asked, pinned, context);
    let named = with_name(asked.target, name.clone());
    let mut by_name = decide_qualified(&named, TargetSource::Named(by), pinned, context);
    let verdict = by_name.policy.as_ref().map(|policy| policy.verdict);
    match (&by_name.permission, &by_address.permission, verdict) {
        // TLS for a server that is not allowed, at an address that is (docs/requirements.md, B17).
        (Err(Refused::Denied), Ok(_), _) if by == NamedBy::Sni => {
            by_name.permission = Err(Refused::ServerName);
        }
        // Written down, and carried to where it was going.
        (Ok(_), Ok(admitted), Some(Verdict::WouldDeny)) => {
            by_name.permission = Ok(admitted.clone());
        }
        (Ok(_), Ok(_), _) => by_name.without_name = Some(Box::new(by_address)),
        _ => {}
    }
    by_name
}

fn decide_qualified(
    target: &Target,
    source: TargetSource,
    pinned: Option<IpAddr>,
    context: &DecisionContext<'_>,
) -> Decision {
    match target.host.name().and_then(|name| context.names.qualified_name(name)) {
        Some(whole) => {
            decide_about(with_name(target, whole), TargetSource::Qualified, pinned, context)
        }
        None => decide_about(target.clone(), source, pinned, context),
    }
}

fn decide_about(
    effective_target: Target,
    source: TargetSource,
    pinned: Option<IpAddr>,
    context: &DecisionContext<'_>,
) -> Decision {
    let (policy, permission) =
        context.policy.judge_target(context.local_addresses, &effective_target);
    let policy = Some(policy);
    Decision { effective_target, source, policy, permission, pinned, without_name: None }
}

fn refuse_unassigned(target: &Target, address: IpAddr) -> Decision {
    Decision {
        effective_target: target.clone(),
        source: TargetSource::Asked,
        policy: None,
        permission: Err(Refused::UnassignedSynthetic { address }),
        pinned: None,
        without_name: None,
    }
}

fn with_name(target: &Target, name: Name) -> Target {
    Target { host: Host::Name(name), port: target.port }
}

impl Decision {
    /// Whether policy allows it, and enforcement would too.
    fn is_allowed(&self) -> bool {
        let verdict = self.policy.as_ref().map(|policy| policy.verdict);
        self.permission.is_ok() && verdict == Some(Verdict::Allow)
    }

    /// What the first bytes of a redirected client, whose address alone was decided about, could change.
    pub fn use_of_first_bytes(&self, context: &DecisionContext<'_>) -> FirstBytesUse {
        let DecisionContext { policy, local_addresses, .. } = context;
        match (&self.permission, self.effective_target.host.address()) {
            (_, None) => FirstBytesUse::Nothing,
            (Ok(_), Some(_)) => FirstBytesUse::MayName,
            (Err(Refused::Denied), Some(address))
                if policy.allows_by_name() && policy.may_tell(local_addresses, address) =>
            {
                FirstBytesUse::MustName
            }
            (Err(_), Some(_)) => FirstBytesUse::Nothing,
        }
    }
}

/// What the first bytes of a redirected client could change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytesUse {
    /// Nothing: its target has a name already, or no name could allow the address.
    Nothing,
    /// They may name a target that is admitted as it stands.
    MayName,
    /// Only a name in them could allow the connection.
    MustName,
}

/// The decision about one address of an admitted target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressDecision {
    /// The address, with the target's port.
    pub address: SocketAddr,
    /// What policy says of it.
    pub policy: PolicyVerdict,
    /// Where it leads, as far as that is known.
    pub route: Option<Route>,
    /// The permission to dial it.
    pub permission: Result<Admitted<Address>, Refused>,
}

/// The decisions about the addresses that an admitted target was found to have, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressDecisions(Vec<AddressDecision>);

/// Decides about the addresses of an admitted target: those of a look-up, or its own if it is an address.
pub fn decide_addresses(
    target: &Admitted<Target>,
    pinned: Option<IpAddr>,
    found: &[IpAddr],
    context: &DecisionContext<'_>,
) -> AddressDecisions {
    let pinned = pinned.filter(|address| found.contains(address));
    let candidates = pinned.as_ref().map_or(found, std::slice::from_ref);
    let decide = |address: &IpAddr| decide_address(target, *address, context);
    AddressDecisions(candidates.iter().map(decide).collect())
}

/// Decides about one address of an admitted target.
pub fn decide_address(
    target: &Admitted<Target>,
    address: IpAddr,
    context: &DecisionContext<'_>,
) -> AddressDecision {
    let address = address.to_canonical();
    let route = context.routes.route(Some(address));
    let (policy, mut permission) =
        context.policy.judge_address(context.local_addresses, target, address);
    if permission.is_ok() && route == Some(Route::Outside) && !context.routes.may_leave_tailnet() {
        permission = Err(Refused::OutsideTailnet { address });
    }
    let address = SocketAddr::new(address, target.get().port.get());
    AddressDecision { address, policy, route, permission }
}

impl AddressDecisions {
    /// Every decision, in the order of the addresses.
    pub fn iter(&self) -> std::slice::Iter<'_, AddressDecision> {
        self.0.iter()
    }

    /// The address that is dialled first; of refused ones the first.
    pub fn first_dialled(&self) -> Option<&AddressDecision> {
        self.0.iter().find(|one| one.permission.is_ok()).or(self.0.first())
    }

    /// Why none may be dialled, if that is so: where policy would let one pass, the route of the first such address,
    /// else the rule that refused the last one.
    pub fn decisive_refusal(&self) -> Option<(&PolicyVerdict, Refused)> {
        if self.0.iter().any(|one| one.permission.is_ok()) {
            return None;
        }
        let mut refused =
            self.0.iter().filter_map(|one| Some((&one.policy, one.permission.as_ref().err()?)));
        let outside =
            |(_, refused): &(_, &Refused)| matches!(refused, Refused::OutsideTailnet { .. });
        let decisive = refused.clone().find(outside).or_else(|| refused.next_back());
        decisive.map(|(policy, refused)| (policy, *refused))
    }

    /// The permissions to dial, in their order.
    pub fn into_permissions(self) -> Vec<Admitted<Address>> {
        self.0.into_iter().filter_map(|one| one.permission.ok()).collect()
    }
}

/// What a DNS client asks for.
#[derive(Debug, Clone, Copy)]
pub enum AskedName<'a> {
    /// Records of this name.
    Records(&'a Name),
    /// The name of an address, by its reverse name (PTR).
    Reverse {
        /// The reverse name as it was asked for.
        reverse: &'a Name,
        /// The address that it stands for.
        address: IpAddr,
    },
    /// A name that we would tell as the answer to a question for an address.
    Mention(&'a Name),
}

/// The decision about a DNS question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameDecision {
    /// The whole name behind a bare one, which is what is judged and asked for then.
    pub whole: Option<Name>,
    /// What policy says of the name.
    pub policy: PolicyVerdict,
    /// The permission to look the name up, or to tell it.
    pub permission: Result<Admitted<Name>, Refused>,
}

/// Decides about a DNS question, as about a target of that name but for its port, which nobody has said.
pub fn decide_question(asked: AskedName<'_>, context: &DecisionContext<'_>) -> NameDecision {
    let DecisionContext { policy, local_addresses, .. } = context;
    let (whole, (policy, permission)) = match asked {
        AskedName::Records(name) => {
            let whole = context.names.qualified_name(name);
            let judged = policy.judge_name(local_addresses, whole.as_ref().unwrap_or(name));
            (whole, judged)
        }
        AskedName::Reverse { reverse, address } => {
            (None, policy.judge_reverse(local_addresses, reverse, address))
        }
        AskedName::Mention(name) => (None, policy.judge_mention(name)),
    };
    NameDecision { whole, policy, permission }
}

/// Decides about the server that TLS asks for within an admitted tunnel (docs/requirements.md, B17). Nothing is said
/// of the tunnel's own target.
pub fn decide_server_name(
    target: &Target,
    requested: RequestedServer<'_>,
    context: &DecisionContext<'_>,
) -> Option<PolicyVerdict> {
    let RequestedServer::Host(host) = requested else {
        return Some(context.policy.judge_server(requested));
    };
    let whole = host.name().and_then(|name| context.names.qualified_name(name)).map(Host::Name);
    let host = whole.as_ref().unwrap_or(host);
    match (*host == target.host, host) {
        // The server's own address says no more than nothing.
        (true, Host::Address(_)) => Some(context.policy.judge_server(RequestedServer::Nobody)),
        (true, Host::Name(_)) => None,
        (false, host) => Some(context.policy.judge_server(RequestedServer::Host(host))),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
