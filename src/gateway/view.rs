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
use crate::connection::House;
use crate::lifecycle::drain::Drain;
use crate::lifecycle::run_dir::Listening;
use crate::record::{self, Book};
use crate::relay::Fallback;
use crate::tailnet::{Peer, StatusFeed};
use crate::upstream::Kind;

struct Snapshots {
    house: Arc<House>,
    drain: Arc<Drain>,
    runtime: tokio::runtime::Handle,
    bound: Listening,
    /// With a tailscaled.
    membership: Option<Management>,
    started: Instant,
}

/// What there is to say of a tailscaled beside its state.
struct Management {
    managed: bool,
    /// Where a managed node's identity is kept.
    identity: Option<&'static str>,
    restarts: Arc<AtomicU64>,
}

/// Starts the admin listener on its own thread, with the metrics that live outside the book.
pub(super) fn serve(listener: TcpListener, gateway: &Gateway) -> io::Result<()> {
    let house = Arc::clone(&gateway.house);
    let runtime = tokio::runtime::Handle::current();
    let (sampled, counted) = (Arc::downgrade(&house), runtime.clone());
    house.book.before_scrape(Box::new(move |book| {
        if let Some(house) = sampled.upgrade() {
            sample(book, &house, &counted);
        }
    }));
    let view = Snapshots {
        house,
        drain: Arc::clone(&gateway.drain),
        runtime,
        bound: gateway.bound.clone(),
        membership: gateway.membership.as_ref().map(|m| Management {
            managed: m.is_managed(),
            identity: m.identity(),
            restarts: m.restarts(),
        }),
        started: Instant::now(),
    };
    admin::serve(listener, gateway.config.listen.admin_hosts.clone(), Arc::new(view))
}

fn sample(book: &Book, house: &House, runtime: &tokio::runtime::Handle) {
    book.upstream_up(house.upstream.is_up());
    let (idle, filling) = house.upstream.pool_counts();
    book.pool(idle, filling);
    book.pipes(house.pipes.in_use());
    book.tasks(runtime.metrics().num_alive_tasks());
    for cause in Fallback::ALL {
        book.splice_fallback(cause.label(), house.pipes.fallbacks(cause));
    }
}

impl Snapshots {
    /// What is known of the tailnet, with the kinds that lead into one.
    fn tailnet(&self, peers: bool) -> Value {
        let (Some(inside), Some(management)) = (&self.house.inside, &self.membership) else {
            return Value::Null;
        };
        let state = inside.now();
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
            "half_close": self.house.half_close.with(state.version.as_ref()).label(),
            "news": news(&state.feed),
            "process": state.process,
            "health": state.health,
            "restarts": management.restarts.load(Ordering::Relaxed),
            "fault": state.fault.as_ref().map(explain::of_fault),
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

fn peer(peer: &Peer) -> Value {
    json!({
        "name": peer.name.as_ref().map(ToString::to_string),
        "host": peer.host,
        "addresses": peer.addresses,
        "routes": peer.routes,
        "online": peer.online,
    })
}

impl admin::View for Snapshots {
    fn metrics(&self) -> String {
        self.house.book.metrics_text()
    }

    fn readiness(&self) -> Readiness {
        readiness::look(&self.house, &self.drain)
    }

    fn status(&self, peers: bool) -> Value {
        let (version, commit, target) = record::build();
        let pending = self.readiness().pending;
        let (idle, filling) = self.house.upstream.pool_counts();
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
                "kind": self.house.upstream_kind,
                "address": self.house.upstream.place().map(|place| place.to_string()),
                "up": self.house.upstream.is_up(),
                "pool": {"idle": idle, "filling": filling},
                // Whoever finds tailscaled's SOCKS5 port passes the policy by.
                "internal_port_exposed": self.house.upstream.kind() == Kind::Tailscaled,
            },
            "tailnet": self.tailnet(peers),
            "policy": {"mode": self.house.policy.load().mode().label()},
            "counters": self.house.book.totals(),
        })
    }

    fn connections(&self) -> Value {
        json!(self.house.book.connections())
    }

    fn explain(&self, target: &str) -> Explaining {
        let asked = target.to_owned();
        let target = match explain::target(target) {
            Ok(target) => target,
            Err(why) => return Box::pin(std::future::ready(Err(why))),
        };
        let house = Arc::clone(&self.house);
        // Where connections ask too: the admin thread's own runtime carries nothing.
        let task =
            self.runtime.spawn(async move { explain::explain(&house, &asked, target).await });
        Box::pin(async move { task.await.map_err(|error| error.to_string()) })
    }

    fn tick(&self) {
        self.house.book.tidy();
    }
}
