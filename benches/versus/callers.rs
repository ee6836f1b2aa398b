//! What naming the calling programs costs: connections with `record.process` on and off, in turns.

use std::io;
use std::time::Duration;

use crate::measure::number;
use crate::targets::{self, Started};
use crate::{load, room};

/// Connections a second, and microseconds of the gateway's processor time for each.
type Pair = (f64, f64);

/// Compares the two within one run, round by round: `BENCH_ROUNDS` (5) of `BENCH_SECONDS`
/// (6: after a rest the search may spend more for a moment, which is not what a busy gateway pays).
pub(crate) async fn run() -> io::Result<()> {
    room::raise_descriptors();
    let rounds = number("BENCH_ROUNDS", 5.0) as usize;
    let time = Duration::from_secs_f64(number("BENCH_SECONDS", 6.0));
    let (_far, port) = targets::far_end()?;
    let gateway = |process: bool| {
        let target = targets::by_id("tailrace-socks5").ok_or(io::ErrorKind::NotFound)?;
        Started::new(target, port, &format!("[record]\nprocess = {process}"))
    };
    let sides = [gateway(false)?, gateway(true)?];
    let mut found = [Vec::new(), Vec::new()];
    for side in &sides {
        measure(side, time).await?; // warm
    }
    for round in 0..rounds {
        // Who comes first changes with every round.
        for at in [round % 2, 1 - round % 2] {
            found[at].push(measure(&sides[at], time).await?);
        }
    }
    let [off, on] = found;
    println!("connect + 1 byte, 32 at a time; {rounds} rounds of {time:?}");
    println!("{:<24}{:>10}{:>10}{:>22}", "record.process", "off", "on", "on / off, of pairs");
    row("connections a second", &off, &on, |pair| pair.0);
    row("CPU, µs a connection", &off, &on, |pair| pair.1);
    Ok(())
}

async fn measure(target: &Started, time: Duration) -> io::Result<Pair> {
    let (made, seconds, cpu) = target.cost(load::connections(target, 32, time)).await;
    let made = made? as f64;
    Ok((made / seconds, cpu / made * 1e6))
}

fn row(name: &str, off: &[Pair], on: &[Pair], of: impl Fn(&Pair) -> f64) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let ratios = off.iter().zip(on).map(|(off, on)| of(on) / of(off)).collect();
    let [off, on] = [off, on].map(|side| median(side.iter().map(&of).collect()));
    println!("{name:<24}{off:>10.1}{on:>10.1}{:>22.3}", median(ratios));
}
