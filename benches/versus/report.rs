//! Medians, ratios, the table and the chart.

use std::fmt::Write as _;
use std::path::Path;

use crate::Figures;
use crate::targets::Kind;

/// Name, unit, decimals, and the bare relay its ratio is taken to.
pub(crate) const MEASURES: [(&str, &str, usize, Kind); 14] = [
    ("down, 1 stream", "GB/s", 2, Kind::BareSplice),
    ("down, 1 stream, CPU", "s/GB", 3, Kind::BareSplice),
    ("up, 1 stream", "GB/s", 2, Kind::BareSplice),
    ("up, 1 stream, CPU", "s/GB", 3, Kind::BareSplice),
    ("down, 8 streams", "GB/s", 2, Kind::BareSplice),
    ("down, 8 streams, CPU", "s/GB", 3, Kind::BareSplice),
    ("up, 8 streams", "GB/s", 2, Kind::BareSplice),
    ("up, 8 streams, CPU", "s/GB", 3, Kind::BareSplice),
    ("connect + 1 byte, 32 at a time", "/s", 0, Kind::BareCopy),
    ("connect + 1 byte, CPU", "µs", 1, Kind::BareCopy),
    ("64-byte round trip, p50", "µs", 1, Kind::BareCopy),
    ("64-byte round trip, p99", "µs", 1, Kind::BareCopy),
    ("idle connection, PSS", "kB", 2, Kind::BareCopy),
    ("idle connection, descriptors", "", 1, Kind::BareCopy),
];

/// Prints the table and writes it, and the chart, to `docs/`.
pub(crate) fn write(all: &[(Kind, Vec<Figures>)], rounds: usize, load: &str) {
    let medians: Vec<(Kind, Figures)> =
        all.iter().map(|(kind, rounds)| (*kind, median(rounds))).collect();
    let table = table(&medians);
    println!("{table}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::create_dir_all(&docs).unwrap();
    std::fs::write(docs.join("performance.md"), page(&table, rounds, load)).unwrap();
    std::fs::write(docs.join("performance.svg"), chart(&medians)).unwrap();
    println!("written: docs/performance.md, docs/performance.svg");
}

fn median(rounds: &[Figures]) -> Figures {
    let middle = |i: usize| {
        let mut values: Vec<f64> = rounds.iter().map(|round| round[i]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    (0..MEASURES.len()).map(middle).collect()
}

fn of(medians: &[(Kind, Figures)], kind: Kind, measure: usize) -> f64 {
    medians.iter().find(|(other, _)| *other == kind).map_or(f64::NAN, |(_, f)| f[measure])
}

/// One row a measure, one column a target; behind each figure of ours its ratio to the reference.
fn table(medians: &[(Kind, Figures)]) -> String {
    let mut text = String::from("| measure |");
    medians.iter().for_each(|(kind, _)| write!(text, " {} |", kind.name()).unwrap());
    text += "\n|---|";
    medians.iter().for_each(|_| text += "---|");
    for (i, (name, unit, decimals, reference)) in MEASURES.iter().enumerate() {
        write!(text, "\n| {name} |").unwrap();
        for (kind, figures) in medians {
            let value = figures[i];
            write!(text, " {value:.decimals$} {unit}").unwrap();
            let ratio = value / of(medians, *reference, i);
            let ours = !matches!(kind, Kind::BareCopy | Kind::BareSplice);
            if ours && of(medians, *reference, i) >= 0.01 {
                write!(text, " (× {ratio:.2})").unwrap();
            }
            text += " |";
        }
    }
    text + "\n"
}

fn page(table: &str, rounds: usize, load: &str) -> String {
    format!(
        "# Performance\n\n\
         Written by `make bench`: one hop on loopback, client → target → a far end that speaks \
         SOCKS5, each target in turn, medians of {rounds} rounds. CPU is the target's own user and \
         system time. In brackets: the ratio to the bare splice relay for bulk, to the bare copy \
         relay for the rest, from the same run. The bare relays (`benches/bare/`) parse nothing \
         and shake no hands; they are the floor. Absolute figures differ from machine to machine. \
         Load average when the run began: {load}; well over 0 means that others worked on the same \
         cores, and then rates and round trips say little.\n\n\
         {table}\n![CPU and time beside the bare relays](performance.svg)\n"
    )
}

/// Bars of our ratios; the line at 1 is the bare relay.
fn chart(medians: &[(Kind, Figures)]) -> String {
    let (left, scale, row) = (260, 160.0, 26);
    let mut bars = String::new();
    for (i, (name, _, _, reference)) in MEASURES.iter().enumerate().take(12) {
        let y = 40 + i * row;
        let ratio = of(medians, Kind::Socks5, i) / of(medians, *reference, i);
        let width = (ratio * scale).clamp(0.0, 500.0);
        let after = f64::from(left) + width + 6.0;
        let (label, base) = (left - 8, y + 14);
        writeln!(
            bars,
            "<text x=\"{label}\" y=\"{base}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{left}\" y=\"{y}\" width=\"{width:.0}\" height=\"18\" fill=\"#3b7dd8\"/>\
             <text x=\"{after:.0}\" y=\"{base}\">{ratio:.2}</text>",
        )
        .unwrap();
    }
    let (one, bottom) = (f64::from(left) + scale, 40 + 12 * row);
    let height = bottom + 10;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\">tailrace (SOCKS5) beside the bare relays = 1</text>\n{bars}\
         <line x1=\"{one}\" y1=\"34\" x2=\"{one}\" y2=\"{bottom}\" stroke=\"#888\" \
         stroke-dasharray=\"4 3\"/>\n</svg>\n"
    )
}
