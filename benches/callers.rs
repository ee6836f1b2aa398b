//! What naming the calling programs costs: connections with `record.process` on and off, in turns.
//!
//! `BENCH_ROUNDS` (10) and `BENCH_CONNECTIONS` (3000, per round and side) change the amount of work;
//! `TAILRACE_BIN` measures another binary. Compare within one run, pair by pair.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(dead_code, reason = "its parts serve more measures than this one")]

#[path = "versus/far_end.rs"]
mod far_end;
#[path = "versus/load.rs"]
mod load;
#[path = "versus/targets.rs"]
mod targets;

use targets::{Kind, Target};

/// Connections a second, and microseconds of the gateway's processor time for each.
type Figures = (f64, f64);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("far-end") => return far_end::run(),
        Some("--bench") => {}
        _ => return, // `cargo test` only asks whether it starts
    }
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (rounds, connections) = (number("BENCH_ROUNDS", 10), number("BENCH_CONNECTIONS", 3_000));
    let load = targets::load_average();
    let far = targets::far_end();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sides = [Kind::Unnamed, Kind::Socks5].map(|kind| Target::start(kind, far.port()));
    let measure = |target: &Target| -> Figures {
        let work = load::connections(target, connections);
        let (seconds, cpu) = runtime.block_on(target.cost(work));
        let n = connections as f64;
        (n / seconds, cpu / n * 1e6)
    };
    sides.iter().for_each(|side| _ = measure(side)); // warm
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who comes first changes with every round.
        if round % 2 == 0 {
            off.push(measure(&sides[0]));
            on.push(measure(&sides[1]));
        } else {
            on.push(measure(&sides[1]));
            off.push(measure(&sides[0]));
        }
    }
    println!(
        "connect + 1 byte, 32 at a time; {rounds} rounds of {connections}; load average {load}"
    );
    println!("{:<24}{:>10}{:>10}{:>22}", "", "off", "on", "on / off, of pairs");
    let rate = |figures: &Figures| figures.0;
    let cpu = |figures: &Figures| figures.1;
    row("connections a second", &off, &on, rate);
    row("CPU, µs a connection", &off, &on, cpu);
}

fn row(name: &str, off: &[Figures], on: &[Figures], of: impl Fn(&Figures) -> f64) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let ratios = off.iter().zip(on).map(|(off, on)| of(on) / of(off)).collect();
    let [off, on] = [off, on].map(|side| median(side.iter().map(&of).collect()));
    println!("{name:<24}{off:>10.1}{on:>10.1}{:>22.3}", median(ratios));
}
