//! Writes what was measured between the two markers of a page; what people wrote around it stays.

use std::path::{Path, PathBuf};

use crate::chart::{self, Bar};
use crate::room::Room;
use crate::rounds::Rounds;
use crate::{goals, tables, targets};

const BEGIN: &str = "<!-- measured: written anew by the bench -->";
const END: &str = "<!-- end of measured -->";

/// About a run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) room: Room,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) load: &'a str,
    /// The ids asked for, or nothing: all of them.
    pub(crate) only: &'a str,
    pub(crate) missing: &'a [&'static str],
}

/// Prints the tables and writes them, and the charts, to `docs/`.
pub(crate) fn write(all: &[Rounds], run: &Run<'_>) {
    let mut text = described(run);
    text += "\n### Goals\n\n";
    text += &goals::table(all);
    text += "\n![CPU per GB](performance-bulk.svg)\n\n";
    text += "![CPU per connection](performance-connections.svg)\n\n";
    text += &tables::all(all);
    println!("{text}");
    let bulk = bars(all, "down1.cpu");
    let connections = bars(all, "connect32.cpu");
    let title = "CPU of the proxy per GB, one stream down (shorter is better)";
    into_docs("performance-bulk.svg", &chart::bars(title, "s", &bulk));
    let title = "CPU of the proxy per short connection, 32 at a time (shorter is better)";
    into_docs("performance-connections.svg", &chart::bars(title, "µs", &connections));
    between_markers("performance.md", "# Performance", &text);
}

fn described(run: &Run<'_>) -> String {
    let Run { room, rounds, seconds, load, only, missing } = run;
    let here = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let missing = match (missing.is_empty(), only.is_empty()) {
        (true, true) => "Every peer is installed.".to_owned(),
        (true, false) => format!("Only these were asked for: {}.", only.replace(',', ", ")),
        (false, _) => format!("Not installed, so not measured: {}.", missing.join(", ")),
    };
    let plural = if *rounds == 1 { "" } else { "s" };
    format!(
        "`make bench`, {rounds} round{plural} in turn, {seconds} s a measure; {cores} cores, Linux {}; \
         {}. Load average at the start: {load} (well over 0: others worked on the same cores, and \
         rates and round trips say little). {missing}\n",
        here.trim().split('-').next().unwrap_or_default(),
        room.described(),
    )
}

fn bars(all: &[Rounds], measure: &str) -> Vec<Bar> {
    let bar = |rounds: &Rounds| {
        let target = targets::by_id(rounds.id)?;
        let value = rounds.median(measure)?;
        let ours = matches!(target.program, targets::Program::Gateway { .. });
        Some(Bar { label: target.name.to_owned(), value, ours })
    };
    let mut bars: Vec<Bar> = all.iter().filter_map(bar).collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    bars
}

/// `docs/NAME`.
fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Writes a file of `docs/`.
pub(crate) fn into_docs(name: &str, text: &str) {
    std::fs::write(page(name), text).unwrap();
    println!("written: docs/{name}");
}

/// Puts `text` between the markers of a page; a page without them gets them at its end.
pub(crate) fn between_markers(name: &str, title: &str, text: &str) {
    let old = std::fs::read_to_string(page(name)).unwrap_or_else(|_| format!("{title}\n\n"));
    let found = old.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before.to_owned(), after.to_owned()))
    });
    let (before, after) = found.unwrap_or_else(|| (old.clone() + "\n", "\n".into()));
    into_docs(name, &format!("{before}{BEGIN}\n\n{text}\n{END}{after}"));
}
