//! `make bench-check`: CPU and memory beside the bare relays, against what is committed.
//!
//! CPU time and memory only: they are steady where rates are not. What disturbs a measurement comes and goes
//! by the minute, so both sides run at the same time and take short turns, and the middle of the turns' ratios
//! counts: in rounds one after another the same build differed by a third from one run to the next.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::load::Way;
use crate::measure::{Amount, Figures, Measuring, number};
use crate::room::Room;
use crate::rounds::{Rounds, in_turns};
use crate::targets::{self, Started};

/// By how much a ratio may be worse than the committed one.
const MARGIN: f64 = 1.15;
const OURS: [&str; 2] = ["tailrace-socks5", "tailrace-connect"];

/// What is compared in turns, and to what.
#[derive(Clone, Copy)]
enum Work {
    Bulk(Way, u64),
    Connect(usize),
}

const WORKS: [(&str, Work, &str); 5] = [
    ("down1.cpu", Work::Bulk(Way::Down, 1), "bare-splice"),
    ("up1.cpu", Work::Bulk(Way::Up, 1), "bare-splice"),
    ("down8.cpu", Work::Bulk(Way::Down, 8), "bare-splice"),
    ("up8.cpu", Work::Bulk(Way::Up, 8), "bare-splice"),
    ("connect32.cpu", Work::Connect(32), "bare-copy"),
];
/// Memory stands for itself: a bare relay needs none.
const MEMORY: &str = "idle.pss";

type Committed = BTreeMap<String, BTreeMap<String, f64>>;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/committed.json")
}

/// Measures, compares or writes, and says which ratio is worse.
pub(crate) fn run(room: Room) -> ExitCode {
    let found = measured(room, number("BENCH_ROUNDS", 3.0) as usize);
    if std::env::var("WRITE").is_ok_and(|write| write == "1") {
        let text = serde_json::to_string_pretty(&found).unwrap();
        std::fs::write(file(), text + "\n").unwrap();
        println!("written: benches/committed.json");
        return ExitCode::SUCCESS;
    }
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let Ok(committed) = serde_json::from_str::<Committed>(&text) else {
        eprintln!("benches/committed.json cannot be read: make bench-check WRITE=1 writes it");
        return ExitCode::FAILURE;
    };
    compare(&found, &committed)
}

fn compare(found: &Committed, committed: &Committed) -> ExitCode {
    let mut worse = Vec::new();
    println!("{:18} {:14} {:>9} {:>9}", "", "", "committed", "now");
    for (target, measures) in committed {
        for (measure, before) in measures {
            let now = found.get(target).and_then(|m| m.get(measure)).copied().unwrap_or(f64::NAN);
            let bad = now.is_nan() || now > before * MARGIN;
            let word = if bad { "  WORSE" } else { "" };
            println!("{target:18} {measure:14} {before:9.2} {now:9.2}{word}");
            if bad {
                worse.push(format!("{target} {measure}: {now:.2}, committed {before:.2}"));
            }
        }
    }
    if worse.is_empty() {
        println!("no ratio is worse than the committed one by more than 15 %");
        return ExitCode::SUCCESS;
    }
    eprintln!("worse by more than 15 %:\n  {}", worse.join("\n  "));
    ExitCode::FAILURE
}

/// Both sides from fresh starts, `rounds` times.
fn measured(room: Room, rounds: usize) -> Committed {
    let mut all = Rounds { id: "check", rounds: Vec::new() };
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        all.rounds.push(room.figures(&["inside-check"]));
    }
    let measures = || WORKS.iter().map(|(measure, ..)| *measure).chain([MEMORY]);
    let of = |id: &'static str| {
        let values = measures().filter_map(|measure| {
            let value = all.median(&figure(id, measure))?;
            Some((measure.to_owned(), (value * 1000.0).round() / 1000.0))
        });
        (id.to_owned(), values.collect())
    };
    OURS.into_iter().map(of).collect()
}

/// How a figure of one of ours is called.
fn figure(id: &str, measure: &str) -> String {
    format!("{id} {measure}")
}

/// One round, in a process of its own: everything is started, then measured in turns.
pub(crate) async fn inside() -> io::Result<Figures> {
    crate::room::raise_descriptors();
    let (_far, port) = targets::far_end()?;
    let start = |id| {
        let target = targets::by_id(id).ok_or(io::ErrorKind::NotFound)?;
        Started::new(target, port, "")
    };
    let ours = [start(OURS[0])?, start(OURS[1])?];
    let mut figures = Figures::new();
    for (measure, work, reference) in WORKS {
        let turns = turns([&start(reference)?, &ours[0], &ours[1]], work).await?;
        for side in &turns[1..] {
            let ratio = side.ratio(&turns[0], measure);
            figures.extend(ratio.map(|ratio| (figure(side.id, measure), ratio.middle)));
        }
    }
    for (id, target) in OURS.iter().zip(&ours) {
        let measuring = Measuring { target, amount: Amount::from_environment() };
        let mut held = Figures::new();
        measuring.keep(&mut held, measuring.idle(measuring.amount.idle)).await;
        figures.extend(held.get(MEMORY).map(|memory| (figure(id, MEMORY), *memory)));
    }
    Ok(figures)
}

/// `BENCH_TURNS` (15) turns of `BENCH_SECONDS` (0.2) for each side.
async fn turns(sides: [&Started; 3], work: Work) -> io::Result<[Rounds; 3]> {
    let amount = Amount { seconds: number("BENCH_SECONDS", 0.2), ..Amount::from_environment() };
    let turn = async |at: usize| {
        let measuring = Measuring { target: sides[at], amount };
        let mut figures = Figures::new();
        match work {
            Work::Bulk(way, streams) => {
                measuring.keep(&mut figures, measuring.bulk(way, streams)).await;
            }
            Work::Connect(at_once) => {
                measuring.keep(&mut figures, measuring.connect(at_once)).await;
            }
        }
        Ok(figures)
    };
    in_turns(["reference", OURS[0], OURS[1]], number("BENCH_TURNS", 15.0) as usize, turn).await
}
