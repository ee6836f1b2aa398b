//! What naming the calling programs costs: connections with `record.process` on and off, in turns.

use std::io;
use std::time::Duration;

use crate::measure::{Figures, number};
use crate::rounds::in_turns;
use crate::targets::{self, Started};
use crate::{load, room};

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
    for side in &sides {
        measure(side, time).await?; // warm
    }
    let turn = async |at: usize| measure(&sides[at], time).await;
    let [off, on] = &in_turns(["off", "on"], rounds, turn).await?;
    println!("connect + 1 byte, 32 at a time; {rounds} rounds of {time:?}");
    println!("{:<24}{:>10}{:>10}{:>22}", "record.process", "off", "on", "on / off, of pairs");
    for (name, measure) in [("connections a second", "rate"), ("CPU, µs a connection", "cpu")] {
        let [off_median, on_median] =
            [off, on].map(|side| side.median(measure).unwrap_or(f64::NAN));
        let ratio = on.ratio(off, measure).map_or(f64::NAN, |ratio| ratio.middle);
        println!("{name:<24}{off_median:>10.1}{on_median:>10.1}{ratio:>22.3}");
    }
    Ok(())
}

/// Connections a second, and microseconds of the gateway's processor time for each.
async fn measure(target: &Started, time: Duration) -> io::Result<Figures> {
    let (made, seconds, cpu) = target.cost(load::connections(target, 32, time)).await;
    let made = made? as f64;
    Ok(Figures::from([("rate".into(), made / seconds), ("cpu".into(), cpu / made * 1e6)]))
}
