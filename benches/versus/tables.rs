//! The tables: one row a target, one column a measure.

use std::fmt::Write as _;

use crate::rounds::{Rounds, of};
use crate::targets::{self, Target};

/// One column: the figures shown, and the reference of the last one.
struct Column {
    title: &'static str,
    /// Measure, unit, decimals.
    shown: &'static [(&'static str, &'static str, usize)],
    reference: Option<&'static str>,
}

const fn column(
    title: &'static str,
    shown: &'static [(&'static str, &'static str, usize)],
    reference: Option<&'static str>,
) -> Column {
    Column { title, shown, reference }
}

const SPLICE: Option<&str> = Some("bare-splice");
const COPY: Option<&str> = Some("bare-copy");

const BULK: [Column; 4] = [
    column("down, 1 stream", &[("down1.rate", "GB/s", 2), ("down1.cpu", "s/GB", 3)], SPLICE),
    column("up, 1 stream", &[("up1.rate", "GB/s", 2), ("up1.cpu", "s/GB", 3)], SPLICE),
    column("down, 8 streams", &[("down8.rate", "GB/s", 2), ("down8.cpu", "s/GB", 3)], SPLICE),
    column("up, 8 streams", &[("up8.rate", "GB/s", 2), ("up8.cpu", "s/GB", 3)], SPLICE),
];

const CONNECTIONS: [Column; 4] = [
    column("1 at a time", &[("connect1.rate", "/s", 0), ("connect1.cpu", "µs", 0)], COPY),
    column("32 at a time", &[("connect32.rate", "/s", 0), ("connect32.cpu", "µs", 0)], COPY),
    column("round trip, p50", &[("trip.p50", "µs", 0)], COPY),
    column("round trip, p99", &[("trip.p99", "µs", 0)], COPY),
];

const RESTING: [Column; 3] = [
    column("memory (PSS) per idle connection", &[("idle.pss", "kB", 2)], None),
    column("descriptors", &[("idle.fds", "", 1)], None),
    column("start to first byte", &[("start", "ms", 0)], None),
];

/// Figures beside idle connections, as a ratio to the target's own without them.
const BESIDE: [(&str, &str); 6] = [
    ("down1.cpu", "down, 1 stream, CPU"),
    ("up8.cpu", "up, 8 streams, CPU"),
    ("connect32.cpu", "32 at a time, CPU"),
    ("connect32.rate", "32 at a time, rate"),
    ("trip.p50", "round trip, p50"),
    ("trip.p99", "round trip, p99"),
];

/// All tables, with their headings.
pub(crate) fn all(all: &[Rounds]) -> String {
    let mut text = String::from("### Bulk\n\nThroughput, CPU per GB, × the bare splice relay.\n\n");
    text += &table(all, &BULK);
    text += "\n### Short connections and round trips\n\nConnect and have one byte echoed: rate, CPU \
             per connection, × the bare copy relay. Then 64 bytes there and back.\n\n";
    text += &table(all, &CONNECTIONS);
    text += "\n### Memory and start\n\n";
    text += &table(all, &RESTING);
    text += &beside(all);
    text
}

fn rows(all: &[Rounds]) -> impl Iterator<Item = (Target, &Rounds)> {
    all.iter().filter_map(|rounds| Some((targets::by_id(rounds.id)?, rounds)))
}

fn table(all: &[Rounds], columns: &[Column]) -> String {
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let mut text = format!("| | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    for (target, rounds) in rows(all) {
        write!(text, "| {} |", target.name).unwrap();
        for column in columns {
            write!(text, " {} |", cell(all, rounds, column)).unwrap();
        }
        text += "\n";
    }
    text
}

fn cell(all: &[Rounds], rounds: &Rounds, column: &Column) -> String {
    let mut parts = Vec::new();
    for (measure, unit, decimals) in column.shown {
        if let Some(value) = rounds.median(measure) {
            parts.push(format!("{value:.decimals$} {unit}").trim().to_owned());
        }
    }
    let last = column.shown.last().map_or("", |(measure, ..)| measure);
    let reference = column.reference.filter(|id| *id != rounds.id).and_then(|id| of(all, id));
    if let Some(ratio) = reference.and_then(|reference| rounds.ratio(reference, last)) {
        parts.push(ratio.to_string());
    }
    if parts.is_empty() { "–".into() } else { parts.join(" · ") }
}

fn beside(all: &[Rounds]) -> String {
    let titles: Vec<&str> = BESIDE.iter().map(|(_, title)| *title).collect();
    let mut text = format!(
        "\n### With thousands of idle connections beside\n\nEach figure × the target's own without \
         them; CPU at rest in ms per second.\n\n| | {} | at rest |\n|---|{}\n",
        titles.join(" | "),
        "---|".repeat(titles.len() + 1)
    );
    for (target, rounds) in rows(all).filter(|(_, r)| r.median("beside.trip.p50").is_some()) {
        write!(text, "| {} |", target.name).unwrap();
        for (measure, _) in BESIDE {
            let ratio = rounds.ratio_of(&format!("beside.{measure}"), rounds, measure);
            write!(text, " {} |", ratio.map_or("–".into(), |ratio| ratio.to_string())).unwrap();
        }
        let rest = rounds.median("beside.rest.cpu");
        writeln!(text, " {} |", rest.map_or("–".into(), |cpu| format!("{cpu:.1}"))).unwrap();
    }
    text
}
