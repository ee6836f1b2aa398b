//! `make bench-check`: CPU and memory beside the bare relays, against what is committed.
//!
//! CPU time and memory only: they are steady where rates are not. What disturbs a measurement only
//! ever adds CPU, so the best round of each side is compared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::measure::{Wanted, number};
use crate::room::Room;
use crate::rounds::{Rounds, of};
use crate::targets;

/// By how much a ratio may be worse than the committed one.
const MARGIN: f64 = 1.15;
const TARGETS: [&str; 4] = ["bare-copy", "bare-splice", "tailrace-socks5", "tailrace-connect"];
/// Each measure and what it is compared to; memory stands for itself (a bare relay needs none).
const MEASURES: [(&str, Option<&str>); 6] = [
    ("down1.cpu", Some("bare-splice")),
    ("up1.cpu", Some("bare-splice")),
    ("down8.cpu", Some("bare-splice")),
    ("up8.cpu", Some("bare-splice")),
    ("connect32.cpu", Some("bare-copy")),
    ("idle.pss", None),
];

type Committed = BTreeMap<String, BTreeMap<String, f64>>;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/committed.json")
}

/// Measures, compares or writes, and says which ratio is worse.
pub(crate) fn run(room: Room) -> ExitCode {
    let found = measured(room, number("BENCH_ROUNDS", 5.0) as usize);
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

fn measured(room: Room, rounds: usize) -> Committed {
    let mut all: Vec<Rounds> = TARGETS.map(|id| Rounds { id, rounds: Vec::new() }).into();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for target in &mut all {
            if let Some(which) = targets::by_id(target.id) {
                target.rounds.push(room.measure(which, Wanted::Check));
            }
        }
    }
    let mut found = Committed::new();
    for ours in all.iter().filter(|rounds| rounds.id.starts_with("tailrace")) {
        let values = MEASURES.iter().filter_map(|(measure, reference)| {
            let value = ours.least(measure)?;
            let beside = match reference {
                Some(id) => of(&all, id)?.least(measure)?,
                None => 1.0,
            };
            let rounded = (value / beside * 1000.0).round() / 1000.0;
            Some(((*measure).to_owned(), rounded))
        });
        found.insert(ours.id.to_owned(), values.collect());
    }
    found
}
