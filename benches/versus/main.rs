//! `make bench`: the gateway beside two bare relays, on the measures a gateway is judged by.
//!
//! Each target in turn carries the same load to the same far end, several rounds; medians and
//! ratios go to `docs/performance.md` and a chart to `docs/performance.svg`. Two noisy cores give
//! noisy absolute figures: compare within one run.
//!
//! `BENCH_ROUNDS` (3), `BENCH_GIB` (1, per bulk measure), `BENCH_CONNECTIONS` (3000),
//! `BENCH_IDLE` (1000) change the amount of work.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod far_end;
mod load;
mod report;
mod targets;

use load::{Bulk, Way};
use targets::{Kind, Target};

/// One round's figures of one target, in the order of [`report::MEASURES`].
type Figures = Vec<f64>;

/// How much work a measure is.
#[derive(Debug, Clone, Copy)]
struct Amount {
    rounds: usize,
    bytes: u64,
    connections: usize,
    idle: usize,
}

impl Amount {
    fn from_environment() -> Self {
        let number = |name: &str, default: usize| {
            std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        Self {
            rounds: number("BENCH_ROUNDS", 3),
            bytes: (number("BENCH_GIB", 1) as u64) << 30,
            connections: number("BENCH_CONNECTIONS", 3_000),
            idle: number("BENCH_IDLE", 1_000),
        }
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("far-end") => return far_end::run(),
        Some("--bench") => {}
        _ => return, // `cargo test` only asks whether it starts
    }
    let amount = Amount::from_environment();
    let load = targets::load_average();
    let far = targets::far_end();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut all: Vec<(Kind, Vec<Figures>)> = Kind::ALL.map(|kind| (kind, Vec::new())).into();
    for round in 1..=amount.rounds {
        for (kind, figures) in &mut all {
            eprintln!("round {round} of {}: {}", amount.rounds, kind.name());
            let target = Target::start(*kind, far.port());
            figures.push(runtime.block_on(measure(&target, amount)));
        }
    }
    report::write(&all, amount.rounds, &load);
}

/// Everything about one target.
async fn measure(target: &Target, amount: Amount) -> Figures {
    let mut figures = Vec::new();
    for streams in [1, 8] {
        for way in [Way::Down, Way::Up] {
            let bulk = Bulk { way, streams, bytes: amount.bytes };
            let (seconds, cpu) = target.cost(load::bulk(target, bulk)).await;
            let gigabytes = amount.bytes as f64 / 1e9;
            figures.extend([gigabytes / seconds, cpu / gigabytes]);
        }
    }
    let (seconds, cpu) = target.cost(load::connections(target, amount.connections)).await;
    let n = amount.connections as f64;
    figures.extend([n / seconds, cpu / n * 1e6]);
    let mut trips = load::round_trips(target, 5_000).await;
    trips.sort_by(f64::total_cmp);
    figures.extend([trips[trips.len() / 2] * 1e6, trips[trips.len() * 99 / 100] * 1e6]);
    let before = (target.pss(), target.descriptors());
    let held = load::idle(target, amount.idle).await;
    let n = amount.idle as f64;
    figures.push((target.pss() - before.0) / n);
    figures.push((target.descriptors() - before.1) / n);
    drop(held);
    figures
}
