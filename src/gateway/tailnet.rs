//! What the tailnet says, taken over by the modules: where the upstream is, which names there are, what
//! is our own.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use super::{Gateway, StartError, StartupResources, local_addresses};
use crate::config::{self, Config, UpstreamKind};
use crate::connection::{GatewayState, TailnetGate};
use crate::dns::{self as dns_resolver, NameserverDial, NameserverWay, TailnetZone};
use crate::labels::NodeIdentity;
use crate::lifecycle::children::Children;
use crate::lifecycle::run_dir::Listening;
use crate::policy::Address;
use crate::sys::Exiting;
use crate::tailnet::{
    self, KeyProvider, ManageError, PeerWarmup, SupervisorHooks, TailnetHandle, TailnetNameserver,
    TailnetState,
};
use crate::target::Name;
use crate::upstream::{Destination, Endpoint};

/// Descriptors of tailscaled's that its own work needs. It ends when its SOCKS5 listener has none left: `Serve`
/// of tailscale's net/socks5/socks5.go returns, and cmd/tailscaled/proxy.go calls `log.Fatalf`.
const OF_ITS_OWN: u64 = 256;

/// Said whenever that port is another one (docs/requirements.md, B25).
const EXPOSED: &str = "who finds tailscaled's own SOCKS5 port passes the policy by; \
                       upstream.kind = \"localapi\" opens none";

/// The states as connections see them: after every module has taken them over.
pub(super) struct States(watch::Sender<Arc<TailnetState>>);

impl States {
    /// Only with the kinds that have a tailscaled.
    pub(super) fn of(config: &Config) -> Option<Self> {
        config.tailnet.as_ref()?;
        Some(Self(watch::Sender::new(Arc::new(TailnetState::starting()))))
    }

    pub(super) fn now(&self) -> Arc<TailnetState> {
        Arc::clone(&self.0.borrow())
    }

    /// Lets connections see what every module has taken over.
    pub(super) fn publish(&self, state: Arc<TailnetState>) {
        self.0.send_replace(state);
    }

    /// What connections get of it.
    pub(super) fn tailnet_gate(&self, config: &Config) -> TailnetGate {
        let ready_wait =
            config.tailnet.as_ref().map_or(Duration::ZERO, |tailnet| tailnet.ready_wait);
        let tailnet_gate =
            TailnetGate::new(self.0.subscribe(), ready_wait, config.upstream.outside_tailnet);
        match &config.tailnet {
            Some(tailnet) if tailnet.manage => {
                tailnet_gate.with_warmup(PeerWarmup::new(&tailnet.socket))
            }
            _ => tailnet_gate,
        }
    }
}

/// Our part of the tailnet, and what is counted of it.
pub(super) struct Membership {
    tailnet: TailnetHandle,
    restarts: Arc<AtomicU64>,
}

impl Membership {
    /// Starts tailscaled, or turns to the one that is there; states are carried into the modules from
    /// then on.
    pub(super) fn begin(
        gateway: &Gateway,
        states: States,
        means: StartupResources,
    ) -> Result<Option<Self>, StartError> {
        let config = &gateway.config;
        let Some(settings) = &config.tailnet else { return Ok(None) };
        let failed = |source| StartError::System { what: "the supervisor of tailscaled", source };
        let restarts = Arc::new(AtomicU64::new(0));
        let startup = tailnet::TailnetSettings::new(
            settings,
            config.upstream.kind,
            config.run_dir.clone(),
            gateway.descriptors.before,
        );
        let tailnet = if settings.manage {
            let children = match means.children {
                Some(children) => children,
                None => Children::start().map_err(failed)?,
            };
            let keys = KeyProvider::new(settings.key.clone(), means.key);
            let hooks = hooks(&gateway.gateway_state, &restarts);
            TailnetHandle::start_managed(startup, keys, children, hooks).map_err(|error| {
                match error {
                    ManageError::Binary(fault) => StartError::Tailscaled(fault),
                    ManageError::State(error) => StartError::NodeState(error),
                    ManageError::System(source) => failed(source),
                }
            })?
        } else {
            TailnetHandle::use_external(startup)
        };
        let follower = StateFollower {
            gateway_state: Arc::clone(&gateway.gateway_state),
            zone: Arc::clone(&gateway.naming.zone),
            settings: config.upstream.clone(),
            socket: settings.socket.clone(),
            bound: gateway.bound.clone(),
            process: Arc::clone(&gateway.live.upstream_process),
            applied: states,
        };
        tokio::spawn(follower.follow(tailnet.subscribe()));
        Ok(Some(Self { tailnet, restarts }))
    }

    /// Whether tailscaled is ours.
    pub(super) fn is_managed(&self) -> bool {
        self.tailnet.is_managed()
    }

    /// Where pauses of this machine are to be counted.
    pub(super) fn pauses(&self) -> watch::Sender<u64> {
        self.tailnet.pause_sender()
    }

    /// Where a managed node's identity is kept.
    pub(super) fn identity(&self) -> Option<NodeIdentity> {
        self.tailnet.identity_label()
    }

    /// How often it was started again; the number lives on in whoever asked.
    pub(super) fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.restarts)
    }

    /// The key may be another one now.
    pub(super) fn key_changed(&self) {
        self.tailnet.key_changed();
    }

    /// What is known, as the tailnet module itself knows it.
    pub(super) fn state(&self) -> watch::Receiver<TailnetState> {
        self.tailnet.subscribe()
    }

    /// Ends tailscaled, if it is ours.
    pub(super) async fn end(self, hurry: impl Future<Output = ()>) {
        self.tailnet.stop(hurry).await;
    }
}

fn hooks(gateway_state: &Arc<GatewayState>, restarts: &Arc<AtomicU64>) -> SupervisorHooks {
    let (upstream, telemetry) =
        (Arc::clone(&gateway_state.upstream), Arc::clone(&gateway_state.telemetry));
    let restarts = Arc::clone(restarts);
    SupervisorHooks {
        probe: Box::new(move || {
            let upstream = Arc::clone(&upstream);
            // Where there is nothing to ask yet, nothing hangs.
            Box::pin(async move { upstream.endpoint().is_none() || upstream.probe().await.is_ok() })
        }),
        restarted: Box::new(move |cause| {
            restarts.fetch_add(1, Ordering::Relaxed);
            telemetry.count_restart(cause);
        }),
        dropped_lines: gateway_state.telemetry.child_lines(),
    }
}

/// Carries each state from the tailnet module into the others; connections see it last.
struct StateFollower {
    gateway_state: Arc<GatewayState>,
    zone: Arc<ArcSwap<TailnetZone>>,
    settings: config::Upstream,
    socket: PathBuf,
    bound: Listening,
    process: Arc<ArcSwapOption<Exiting>>,
    applied: States,
}

impl StateFollower {
    /// Ends with the tailnet module.
    async fn follow(self, mut state: watch::Receiver<TailnetState>) {
        loop {
            let now = Arc::new(state.borrow_and_update().clone());
            self.apply(&now);
            self.applied.publish(now);
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    fn apply(&self, now: &Arc<TailnetState>) {
        let before = self.applied.now();
        if before.process != now.process {
            let exiting = now.process.and_then(|pid| Exiting::of(pid).ok());
            self.process.store(exiting.map(Arc::new));
        }
        if let Some(port) = now.port.filter(|_| before.port != now.port) {
            tracing::info!(%port, internal_port_exposed = true, "{EXPOSED}");
        }
        if !Arc::ptr_eq(&before.netmap, &now.netmap) || before.node != now.node {
            self.zone.store(Arc::new(zone(now)));
        }
        self.gateway_state.upstream.set_limit(most(self.settings.max_connections, now.open_files));
        self.gateway_state.upstream.set_endpoint(self.place(now));
        self.look(now);
        self.gateway_state.telemetry.set_tailnet_phase(now.phase);
    }

    /// This host and its node, as they are now.
    fn look(&self, now: &TailnetState) {
        let internal = now.port.or(fixed_port(&self.settings)).into_iter().collect();
        let own = local_addresses::look(self.bound.all(), internal, Some(now));
        if **self.gateway_state.local_addresses.load() != own {
            self.gateway_state.local_addresses.store(Arc::new(own));
        }
    }

    /// Nowhere unless tailscaled is up: what is dialled before that is dialled from this host's own
    /// network (tailscale, net/tsdial/tsdial.go, `UserDial`).
    fn place(&self, now: &TailnetState) -> Option<Endpoint> {
        let _it_answers = now.version.as_ref()?;
        match self.settings.kind {
            UpstreamKind::LocalApi => Some(Endpoint::Socket(self.socket.clone())),
            _ => now.port.map(Endpoint::Port),
        }
    }
}

/// A port that was set by hand is tailscaled's even while that is down.
fn fixed_port(settings: &config::Upstream) -> Option<std::net::SocketAddr> {
    match settings.kind {
        UpstreamKind::Tailscaled(port) => port,
        _ => None,
    }
}

/// tailscaled ends when it has no descriptor left to accept with, so it is never asked for as many as
/// it may have.
fn most(set: Option<u32>, open_files: Option<u64>) -> Option<u32> {
    let room = |files: u64| files.saturating_sub(OF_ITS_OWN).max(files / 2);
    set.or_else(|| open_files.map(|files| u32::try_from(room(files)).unwrap_or(u32::MAX)))
}

/// The netmap's names, in the types of the dns module.
pub(super) fn zone(state: &TailnetState) -> TailnetZone {
    let netmap = &state.netmap;
    let mut hosts: HashMap<Name, Vec<IpAddr>> = HashMap::new();
    let mut pointers = HashMap::new();
    let node = state
        .node
        .as_ref()
        .and_then(|node| Some((Name::parse(node.name.as_bytes()).ok()?, node.addresses.clone())));
    let peers =
        netmap.peers.iter().filter_map(|peer| Some((peer.name.clone()?, peer.addresses.clone())));
    for (name, addresses) in peers.chain(node) {
        pointers.extend(addresses.iter().map(|address| (*address, name.clone())));
        hosts.entry(name).or_insert(addresses);
    }
    for (name, address) in &netmap.dns.records {
        let addresses = hosts.entry(name.clone()).or_default();
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    let servers = |list: &[TailnetNameserver]| list.iter().map(nameserver).collect();
    let routes = netmap.dns.routes.iter();
    TailnetZone {
        suffix: netmap.suffix.clone(),
        hosts,
        pointers,
        routes: routes.map(|(domain, list)| (domain.clone(), servers(list))).collect(),
        global: servers(&netmap.dns.resolvers),
    }
}

fn nameserver(server: &TailnetNameserver) -> dns_resolver::NameserverAddress {
    match server.clone() {
        TailnetNameserver::Address(address) => dns_resolver::NameserverAddress::Address(address),
        TailnetNameserver::Https { url, bootstrap } => {
            dns_resolver::NameserverAddress::Https { url, bootstrap }
        }
        TailnetNameserver::Other(text) => dns_resolver::NameserverAddress::Other(text),
    }
}

/// The way to nameservers inside: judged as any dial is, then through the upstream.
pub(super) struct ThroughUpstream {
    state: watch::Receiver<Arc<TailnetState>>,
    gateway_state: OnceLock<Weak<GatewayState>>,
}

impl ThroughUpstream {
    pub(super) fn new(states: &States) -> Arc<Self> {
        Arc::new(Self { state: states.0.subscribe(), gateway_state: OnceLock::new() })
    }

    /// The gateway state whose upstream is used. It owns the resolver that holds this.
    pub(super) fn lead_through(&self, gateway_state: &Arc<GatewayState>) {
        let _first_stays = self.gateway_state.set(Arc::downgrade(gateway_state));
    }
}

impl NameserverWay for ThroughUpstream {
    fn covers(&self, address: IpAddr) -> bool {
        let state = self.state.borrow();
        state.netmap.covering_route(address).is_some() && !state.is_own(address)
    }

    fn dial(&self, to: std::net::SocketAddr) -> NameserverDial {
        let gateway_state = self.gateway_state.get().and_then(Weak::upgrade);
        Box::pin(async move {
            let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
            let gateway_state = gateway_state.ok_or_else(gone)?;
            let port = NonZeroU16::new(to.port()).ok_or_else(gone)?;
            let judged = {
                let (policy, own) =
                    (gateway_state.policy.load(), gateway_state.local_addresses.load());
                policy.judge_nameserver(&own, Address { ip: to.ip(), port })
            };
            let refused = |_| std::io::Error::other("policy refuses that nameserver");
            let address = judged.1.map_err(refused)?;
            if let Some(tailnet_gate) = &gateway_state.tailnet_gate {
                tailnet_gate.warm_up(to.ip()).await;
            }
            let connected =
                gateway_state.upstream.connect(Destination::Addresses(vec![address])).await;
            connected.map(|connected| connected.stream).map_err(std::io::Error::other)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::tailnet::{Netmap, OwnNode, TailnetDns, TailnetPeer};

    use super::*;

    #[test]
    fn t2_never_as_many_as_tailscaled_may_open() {
        assert_eq!(most(None, Some(256)), Some(128));
        assert_eq!(most(None, Some(20_000)), Some(19_744));
        assert_eq!(most(Some(7), Some(20_000)), Some(7));
        assert_eq!(most(None, None), None);
        assert_eq!(most(None, Some(u64::MAX)), Some(u32::MAX));
    }

    #[test]
    fn peers_the_node_and_extra_records_are_hosts() {
        let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let peer = TailnetPeer {
            name: Some(name("svc.lab.ts.net")),
            host: "svc".to_owned(),
            addresses: vec![ip("100.64.0.1"), ip("fd7a::1")],
            routes: Vec::new(),
            online: true,
        };
        let records = vec![(name("grafana.lab.ts.net"), ip("100.64.0.1"))];
        let dns = TailnetDns { records, ..TailnetDns::default() };
        let netmap = Netmap::new(None, true, vec![peer], dns);
        let node = OwnNode {
            name: "autoheal-1.lab.ts.net".to_owned(),
            addresses: vec![ip("100.64.0.2")],
            tags: Vec::new(),
            key_expiry: None,
        };
        let state =
            TailnetState { netmap: Arc::new(netmap), node: Some(node), ..TailnetState::starting() };
        let TailnetZone { hosts, pointers, .. } = zone(&state);
        assert_eq!(pointers.len(), 3, "an extra record is no node");
        assert_eq!(pointers[&ip("fd7a::1")], name("svc.lab.ts.net"));
        assert_eq!(hosts.len(), 3);
        assert_eq!(hosts[&name("svc.lab.ts.net")].len(), 2);
        assert_eq!(hosts[&name("autoheal-1.lab.ts.net")], [ip("100.64.0.2")]);
    }
}
