//! `make growth`: what a connection and a gigabyte cost with many connections, many suffixes and many
//! hosts seen, and what one gateway gives a collector to carry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::chart::{self, Line};
use crate::collector::{self, scrape};
use crate::load::{self, Bulk, Way};
use crate::measure::{Amount, Figures, Measuring, number};
use crate::report;
use crate::room::Room;
use crate::targets::{self, Started};

/// Figures by what was counted, and how many there were of it.
type Points = BTreeMap<String, BTreeMap<u64, Figures>>;

/// Measures in rooms, writes `docs/scale.md` and its chart.
pub(crate) fn run(room: Room) {
    let most = number("BENCH_MOST", 100_000.0) as u64;
    let mut points = Points::new();
    let asked: [(&str, &[u64]); 3] = [
        ("idle", &[1, 100, 1_000, 9_000]),
        ("suffixes", &[1, 100, 10_000]),
        ("hosts", &[10, 1_000, 100_000]),
    ];
    for (what, counts) in asked {
        for count in counts.iter().copied().filter(|count| *count <= most) {
            eprintln!("{count} {what}");
            let figures = room.figures(&["inside-growth", what, &count.to_string()]);
            points.entry(what.into()).or_default().insert(count, figures);
        }
    }
    eprintln!("for the collector");
    write(&points, &room.figures(&["inside-growth", "collector", "0"]));
}

/// One point, in a process of its own.
pub(crate) async fn inside(what: &str, count: usize) -> io::Result<Figures> {
    crate::room::raise_descriptors();
    let (_far, port) = targets::far_end()?;
    let ours = targets::by_id("tailrace-socks5").ok_or(io::ErrorKind::NotFound)?;
    let extra = match what {
        "suffixes" => suffixes(count),
        "collector" => "log = { to = \"@FOLDER@/access.log\", format = \"json\" }\n".into(),
        _ => String::new(),
    };
    let target = Started::new(ours, port, &extra)?;
    let amount = Amount::from_environment();
    let measuring = Measuring { target: &target, amount };
    let mut figures = Figures::new();
    match what {
        "hosts" => {
            load::hosts(&target, 1_000_000, 2_000).await?; // the allocator's first growth
            let before = target.pss();
            load::hosts(&target, 0, count).await?;
            figures.insert("grown".into(), target.pss() - before);
            figures.insert("series".into(), scrape(&target)?.series);
            measuring.keep(&mut figures, measuring.connect(32)).await;
        }
        "collector" => collector::inside(&target, &mut figures).await?,
        _ => {
            let (fresh, others) = (target.pss(), if what == "idle" { count } else { 0 });
            let held = load::idle(&target, others).await?;
            figures.insert("pss".into(), target.pss() - fresh);
            measuring.keep(&mut figures, measuring.connect(32)).await;
            measuring.keep(&mut figures, measuring.bulk(Way::Down, 1)).await;
            figures.insert("series".into(), scrape(&target)?.series);
            drop(held);
            if what == "idle" && (1..=1_000).contains(&count) {
                let many = many_streams(&target, count as u64, amount.seconds);
                measuring.keep(&mut figures, many).await;
            }
        }
    }
    Ok(figures)
}

/// An enforcing policy with so many suffixes, the one in use among them.
fn suffixes(count: usize) -> String {
    let others: String = (1..count).map(|n| format!(", \".s{n}.internal.example.net\"")).collect();
    format!(
        "policy = {{ mode = \"enforce\", allowed_host_suffixes = [\".example.com\"{others}] }}\n"
    )
}

/// A gigabyte or so over `streams` at the same time.
async fn many_streams(
    target: &Started,
    streams: u64,
    seconds: f64,
) -> io::Result<Vec<(String, f64)>> {
    let bytes = ((seconds * 1.5e9) as u64).max(streams << 20);
    let bulk = Bulk { way: Way::Down, streams, bytes };
    let (done, _, cpu) = target.cost(load::bulk(target, bulk)).await;
    done?;
    Ok(vec![("streams.cpu".into(), cpu / (bytes as f64 / 1e9))])
}

fn write(points: &Points, given: &Figures) {
    let connect = ("connect32.cpu", "CPU per connection, µs", 1);
    let bulk = ("down1.cpu", "CPU per GB, s", 3);
    let series = ("series", "series at `/metrics`", 0);
    let streams = ("streams.cpu", "CPU per GB over that many streams at once, s", 3);
    let mut text = String::from("### Connections open beside\n\n");
    text += &table(points, "idle", &[connect, bulk, streams, ("pss", "memory of them all, kB", 0)]);
    text += "\n### Suffixes in the policy\n\n";
    text += &table(points, "suffixes", &[connect, bulk, series]);
    text += "\n### Different hosts seen\n\n";
    text += &table(points, "hosts", &[connect, series, ("grown", "memory grown, kB", 0)]);
    text += "\n![growth](scale.svg)\n\n";
    text += &collector::section(given);
    println!("{text}");
    let line = |what: &str, measure: &str, label| Line {
        label,
        points: points
            .get(what)
            .into_iter()
            .flatten()
            .filter_map(|(count, figures)| Some((*count as f64, *figures.get(measure)?)))
            .collect(),
    };
    let lines = [
        line("idle", "connect32.cpu", "CPU per connection, by connections"),
        line("idle", "down1.cpu", "CPU per GB, by connections"),
        line("suffixes", "connect32.cpu", "CPU per connection, by suffixes"),
        line("hosts", "connect32.cpu", "CPU per connection, by hosts seen"),
    ];
    report::into_docs("scale.svg", &chart::lines("Cost beside the cost of the fewest", &lines));
    report::between_markers("scale.md", "# Many sandboxes", &text);
}

fn table(points: &Points, what: &str, columns: &[(&str, &str, usize)]) -> String {
    let titles: Vec<&str> = columns.iter().map(|(_, title, _)| *title).collect();
    let mut text =
        format!("| {what} | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    for (count, figures) in points.get(what).into_iter().flatten() {
        write!(text, "| {count} |").unwrap();
        for (measure, _, decimals) in columns {
            match figures.get(*measure) {
                Some(value) => write!(text, " {value:.decimals$} |").unwrap(),
                None => text += " – |",
            }
        }
        text += "\n";
    }
    text
}
