//! What the admin listener sees of the gateway: snapshots, nothing it could change.
#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Gateway, explain, readiness};
use crate::admin::{self, Explaining, Readiness};
use crate::api::{
    ConnectionAnswer, NewsAnswer, PeerAnswer, PolicyAnswer, PoolAnswer, StatusAnswer,
    TailnetAnswer, UpstreamAnswer,
};
use crate::connection::GatewayState;
use crate::labels::{NodeIdentity, SpliceFallback, UpstreamKind};
use crate::lifecycle::drain::Drain;
use crate::lifecycle::run_dir::Listening;
use crate::record::{self, Telemetry};
use crate::tailnet::{StatusFeed, TailnetFault, TailnetPeer};

struct AdminSnapshots {
    gateway_state: Arc<GatewayState>,
    drain: Arc<Drain>,
    runtime: tokio::runtime::Handle,
    bound: Listening,
    /// With a tailscaled.
    membership: Option<TailscaledManagement>,
    started: Instant,
}

/// What there is to say of a tailscaled beside its state.
struct TailscaledManagement {
    managed: bool,
    /// Where a managed node's identity is kept.
    identity: Option<NodeIdentity>,
    restarts: Arc<AtomicU64>,
}

/// Starts the admin listener on its own thread, with the metrics that are kept elsewhere.
pub(super) fn serve(listener: TcpListener, gateway: &Gateway) -> io::Result<()> {
    let gateway_state = Arc::clone(&gateway.gateway_state);
    let runtime = tokio::runtime::Handle::current();
    let (sampled, counted) = (Arc::downgrade(&gateway_state), runtime.clone());
    gateway_state.telemetry.before_scrape(Box::new(move |telemetry| {
        if let Some(gateway_state) = sampled.upgrade() {
            sample(telemetry, &gateway_state, &counted);
        }
    }));
    let view = AdminSnapshots {
        gateway_state,
        drain: Arc::clone(&gateway.drain),
        runtime,
        bound: gateway.bound.clone(),
        membership: gateway.membership.as_ref().map(|m| TailscaledManagement {
            managed: m.is_managed(),
            identity: m.identity(),
            restarts: m.restarts(),
        }),
        started: Instant::now(),
    };
    admin::serve(listener, gateway.config.listen.admin_hosts.clone(), Arc::new(view))
}

fn sample(telemetry: &Telemetry, gateway_state: &GatewayState, runtime: &tokio::runtime::Handle) {
    telemetry.set_upstream_up(gateway_state.upstream.is_up());
    let (idle, filling) = gateway_state.upstream.pool_counts();
    telemetry.set_pool(idle, filling);
    telemetry.set_pipes(gateway_state.pipes.in_use());
    telemetry.set_tasks(runtime.metrics().num_alive_tasks());
    for cause in SpliceFallback::ALL {
        telemetry.set_splice_fallbacks(cause, gateway_state.pipes.fallback_count(cause));
    }
}

impl AdminSnapshots {
    /// What is known of the tailnet, with the kinds that lead into one.
    fn tailnet(&self, peers: bool) -> Option<TailnetAnswer> {
        let (tailnet_gate, management) =
            self.gateway_state.tailnet_gate.as_ref().zip(self.membership.as_ref())?;
        let state = tailnet_gate.now();
        let node = state.node.as_ref();
        Some(TailnetAnswer {
            managed: management.managed,
            identity: management.identity,
            state: state.phase,
            name: node.map(|node| node.name.clone()),
            addresses: node.map(|node| node.addresses.clone()).unwrap_or_default(),
            tags: node.map(|node| node.tags.clone()).unwrap_or_default(),
            key_expiry: node.and_then(|node| node.key_expiry.clone()),
            version: state.version.as_ref().map(ToString::to_string),
            half_close: self.gateway_state.half_close.half_close_for(state.version.as_ref()),
            news: news(&state.feed),
            process: state.process,
            health: state.health.clone(),
            restarts: management.restarts.load(Ordering::Relaxed),
            fault: state.fault.as_ref().map(TailnetFault::advice),
            peers: peers.then(|| state.netmap.peers.iter().map(peer).collect()),
        })
    }
}

fn news(feed: &StatusFeed) -> Option<NewsAnswer> {
    match feed {
        StatusFeed::Pending => None,
        StatusFeed::Bus => Some(NewsAnswer::Bus),
        StatusFeed::Polling { why } => Some(NewsAnswer::Polling { why: why.clone() }),
    }
}

fn peer(peer: &TailnetPeer) -> PeerAnswer {
    PeerAnswer {
        name: peer.name.as_ref().map(ToString::to_string),
        host: peer.host.clone(),
        addresses: peer.addresses.clone(),
        routes: peer.routes.clone(),
        online: peer.online,
    }
}

impl admin::View for AdminSnapshots {
    fn metrics(&self) -> String {
        self.gateway_state.telemetry.metrics_text()
    }

    fn readiness(&self) -> Readiness {
        readiness::readiness(&self.gateway_state, &self.drain)
    }

    fn status(&self, peers: bool) -> StatusAnswer {
        let (version, commit, target) = record::build_info();
        let pending = self.readiness().pending();
        let upstream = &self.gateway_state.upstream;
        let (idle, filling) = upstream.pool_counts();
        StatusAnswer {
            version: version.into(),
            commit: commit.into(),
            target: target.into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: pending.is_empty(),
            pending,
            listeners: self.bound.clone(),
            upstream: UpstreamAnswer {
                kind: self.gateway_state.upstream_kind,
                address: upstream.endpoint().map(|endpoint| endpoint.to_string()),
                up: upstream.is_up(),
                pool: PoolAnswer { idle, filling },
                internal_port_exposed: upstream.kind() == UpstreamKind::Tailscaled,
            },
            tailnet: self.tailnet(peers),
            policy: PolicyAnswer { mode: self.gateway_state.policy.load().mode() },
            counters: self.gateway_state.telemetry.counters(),
        }
    }

    fn connections(&self) -> Vec<ConnectionAnswer> {
        self.gateway_state.telemetry.connection_rows()
    }

    fn explain(&self, target: &str) -> Explaining {
        let asked = target.to_owned();
        let target = match explain::parse_target(target) {
            Ok(target) => target,
            Err(why) => return Box::pin(std::future::ready(Err(why))),
        };
        let gateway_state = Arc::clone(&self.gateway_state);
        // Where connections ask too: the admin thread's own runtime carries nothing.
        let task = self
            .runtime
            .spawn(async move { explain::explain(&gateway_state, &asked, target).await });
        Box::pin(async move { task.await.map_err(|error| error.to_string()) })
    }

    fn tick(&self) {
        self.gateway_state.telemetry.update_metrics();
    }
}
