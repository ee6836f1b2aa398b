//! `make bench`: the gateway beside two bare relays and every peer that is installed, on the measures
//! a gateway is judged by. `make bench-check`, `make growth` and the cost of naming callers are here too.
//!
//! Each target in turn carries the same load to the same far end, several rounds; medians and
//! ratios go to `docs/performance.md` and its charts. Noisy cores give noisy absolute figures:
//! compare within one run. CPU time of the process is the main figure.
//!
//! `BENCH_ROUNDS` (3), `BENCH_SECONDS` (0.8, per measure), `BENCH_IDLE` (1000), `BENCH_BESIDE`
//! (9000), `BENCH_ONLY` (ids, comma-separated) and, for growth, `BENCH_MOST` (100000) change the
//! amount of work.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod callers;
mod chart;
mod check;
mod collector;
mod far_end;
mod goals;
mod growth;
mod load;
mod measure;
mod peers;
mod process;
mod report;
mod room;
mod rounds;
mod tables;
mod targets;

use std::process::ExitCode;

use measure::{Amount, Figures, Wanted, number};
use room::Room;
use rounds::Rounds;
use targets::Target;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["far-end"] => far_end::run(),
        ["inside", id, wanted] => return inside(id, wanted),
        ["inside-growth", what, count] => {
            return tell(growth::inside(what, count.parse().unwrap_or(0)));
        }
        ["inside-check"] => return tell(check::inside()),
        ["check"] => {
            process::compile();
            return check::run(found());
        }
        ["callers"] => {
            process::compile();
            run(callers::run()).unwrap();
        }
        ["growth"] => {
            process::compile();
            growth::run(found());
        }
        [] if std::env::args().any(|word| word == "--bench") => {
            process::compile();
            compare();
        }
        _ => {} // `cargo test` only asks whether it starts
    }
    ExitCode::SUCCESS
}

fn inside(id: &str, wanted: &str) -> ExitCode {
    let wanted = match wanted {
        "beside" => Wanted::Beside,
        _ => Wanted::All,
    };
    match targets::by_id(id) {
        Some(target) => tell(measure::inside(target, wanted, Amount::from_environment())),
        None => ExitCode::FAILURE,
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// Prints the figures for the process outside.
fn tell(work: impl Future<Output = std::io::Result<Figures>>) -> ExitCode {
    match run(work) {
        Ok(figures) => {
            println!("{}", serde_json::to_string(&figures).unwrap());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("  {error}");
            ExitCode::FAILURE
        }
    }
}

fn found() -> Room {
    let room = Room::find();
    eprintln!("{}", room.described());
    room
}

/// Those whose figures with thousands of idle connections beside are wanted.
const BESIDE: [&str; 4] = ["bare-copy", "tailrace-socks5", "tailrace-connect", "sing-box-socks5"];

fn compare() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let asked = |target: &Target| only.is_empty() || only.split(',').any(|id| id == target.id);
    let (here, missing): (Vec<Target>, Vec<Target>) =
        targets::ALL.into_iter().filter(asked).partition(Target::installed);
    let missing: Vec<&'static str> = missing.iter().map(|target| target.name).collect();
    for name in &missing {
        eprintln!("missing: {name} (benches/peers/install brings it)");
    }
    let (room, rounds) = (found(), number("BENCH_ROUNDS", 3.0) as usize);
    let mut all: Vec<Rounds> =
        here.iter().map(|target| Rounds { id: target.id, rounds: Vec::new() }).collect();
    for round in 1..=rounds {
        for (target, figures) in here.iter().zip(&mut all) {
            eprintln!("round {round} of {rounds}: {}", target.name);
            let beside = BESIDE.contains(&target.id);
            let wanted = if beside { Wanted::Beside } else { Wanted::All };
            figures.rounds.push(room.measure(*target, wanted));
        }
    }
    let seconds = Amount::from_environment().seconds;
    report::write(
        &all,
        &report::Run { room, rounds, seconds, load, only: &only, missing: &missing },
    );
}
