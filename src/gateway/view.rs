//! What the admin listener sees of the gateway: snapshots, nothing it could change.
#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Gateway, explain, readiness};
use crate::admin::{self, Explaining, Readiness};
use crate::connection::GatewayState;
use crate::lifecycle::drain::Drain;
use crate::lifecycle::run_dir::Listening;
use crate::record::{self, Telemetry};
use crate::relay::Fallback;
use crate::tailnet::{StatusFeed, TailnetPeer};
use crate::upstream::Kind;

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
    identity: Option<&'static str>,
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
    telemetry.upstream_up(gateway_state.upstream.is_up());
    let (idle, filling) = gateway_state.upstream.pool_counts();
    telemetry.pool(idle, filling);
    telemetry.pipes(gateway_state.pipes.in_use());
    telemetry.tasks(runtime.metrics().num_alive_tasks());
    for cause in Fallback::ALL {
        telemetry.splice_fallback(cause.label(), gateway_state.pipes.fallbacks(cause));
    }
}

impl AdminSnapshots {
    /// What is known of the tailnet, with the kinds that lead into one.
    fn tailnet(&self, peers: bool) -> Value {
        let (Some(tailnet_gate), Some(management)) =
            (&self.gateway_state.tailnet_gate, &self.membership)
        else {
            return Value::Null;
        };
        let state = tailnet_gate.now();
        let node = state.node.as_ref();
        let mut told = json!({
            "managed": management.managed,
            "identity": management.identity,
            "state": state.phase.label(),
            "name": node.map(|node| &node.name),
            "addresses": node.map_or(&[][..], |node| &node.addresses),
            "tags": node.map_or(&[][..], |node| &node.tags),
            "key_expiry": node.and_then(|node| node.key_expiry.as_ref()),
            "version": state.version.as_ref().map(ToString::to_string),
            "half_close": self.gateway_state.half_close.with(state.version.as_ref()).label(),
            "news": news(&state.feed),
            "process": state.process,
            "health": state.health,
            "restarts": management.restarts.load(Ordering::Relaxed),
            "fault": state.fault.as_ref().map(explain::fault_answer),
        });
        if peers {
            told["peers"] = state.netmap.peers.iter().map(peer).collect();
        }
        told
    }
}

/// By which way changes are learned: `bus`, `polling` with the reason, or null while that is not known.
fn news(feed: &StatusFeed) -> Value {
    match feed {
        StatusFeed::Pending => Value::Null,
        StatusFeed::Bus => json!({"by": "bus"}),
        StatusFeed::Polling { why } => json!({"by": "polling", "why": why}),
    }
}

fn peer(peer: &TailnetPeer) -> Value {
    json!({
        "name": peer.name.as_ref().map(ToString::to_string),
        "host": peer.host,
        "addresses": peer.addresses,
        "routes": peer.routes,
        "online": peer.online,
    })
}

impl admin::View for AdminSnapshots {
    fn metrics(&self) -> String {
        self.gateway_state.telemetry.metrics_text()
    }

    fn readiness(&self) -> Readiness {
        readiness::look(&self.gateway_state, &self.drain)
    }

    fn status(&self, peers: bool) -> Value {
        let (version, commit, target) = record::build();
        let pending = self.readiness().pending;
        let (idle, filling) = self.gateway_state.upstream.pool_counts();
        json!({
            "version": version,
            "commit": commit,
            "target": target,
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": pending.is_empty(),
            "pending": pending,
            "listeners": self.bound,
            "upstream": {
                "kind": self.gateway_state.upstream_kind,
                "address": self.gateway_state.upstream.endpoint().map(|endpoint| endpoint.to_string()),
                "up": self.gateway_state.upstream.is_up(),
                "pool": {"idle": idle, "filling": filling},
                // Whoever finds tailscaled's SOCKS5 port passes the policy by.
                "internal_port_exposed": self.gateway_state.upstream.kind() == Kind::Tailscaled,
            },
            "tailnet": self.tailnet(peers),
            "policy": {"mode": self.gateway_state.policy.load().mode().label()},
            "counters": self.gateway_state.telemetry.totals(),
        })
    }

    fn connections(&self) -> Value {
        json!(self.gateway_state.telemetry.connections())
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
        self.gateway_state.telemetry.tidy();
    }
}
