//! What the admin listener sees of the gateway: snapshots, nothing it could change.
#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::Gateway;
use super::bind::Addresses;
use crate::admin;
use crate::connection::House;
use crate::lifecycle::drain::{Drain, Phase};
use crate::lifecycle::ready::Ready;
use crate::record::{self, Book};
use crate::relay::Fallback;

/// The readiness list's names.
const UPSTREAM: &str = "upstream";
const DRAIN: &str = "drain";

struct Snapshots {
    house: Arc<House>,
    drain: Arc<Drain>,
    ready: Ready,
    bound: Addresses,
    started: Instant,
}

/// Starts the admin listener on its own thread, with the metrics that live outside the book.
pub(super) fn serve(listener: TcpListener, gateway: &Gateway) -> io::Result<()> {
    let house = Arc::clone(&gateway.house);
    let runtime = tokio::runtime::Handle::current();
    let sampled = Arc::downgrade(&house);
    house.book.before_scrape(Box::new(move |book| {
        if let Some(house) = sampled.upgrade() {
            sample(book, &house, &runtime);
        }
    }));
    let view = Snapshots {
        house,
        drain: Arc::clone(&gateway.drain),
        ready: Ready::waiting_for(&[UPSTREAM]),
        bound: gateway.bound.clone(),
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
    fn refresh(&self) -> Vec<&'static str> {
        self.ready.set(UPSTREAM, self.house.upstream.is_up());
        self.ready.set(DRAIN, self.drain.phase() == Phase::Serving);
        self.ready.pending()
    }
}

impl admin::View for Snapshots {
    fn metrics(&self) -> String {
        self.house.book.metrics_text()
    }

    fn pending(&self) -> Vec<&'static str> {
        self.refresh()
    }

    fn status(&self) -> Value {
        let (version, commit, target) = record::build();
        let pending = self.refresh();
        let (idle, filling) = self.house.upstream.pool_counts();
        json!({
            "version": version,
            "commit": commit,
            "target": target,
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": pending.is_empty(),
            "pending": pending,
            "listeners": {
                "proxy": self.bound.proxy,
                "admin": self.bound.admin,
            },
            "upstream": {
                "kind": self.house.upstream_kind,
                "address": self.house.own.load().internal.first(),
                "up": self.house.upstream.is_up(),
                "pool": {"idle": idle, "filling": filling},
            },
            "policy": {"mode": self.house.policy.load().mode().label()},
            "counters": self.house.book.totals(),
        })
    }

    fn connections(&self) -> Value {
        json!(self.house.book.connections())
    }

    fn tick(&self) {
        self.house.book.tidy();
    }
}
