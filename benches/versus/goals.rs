//! What is asked of the gateway, and whether this run shows it.

use std::fmt::Write as _;

use crate::rounds::{Ratio, Rounds, of};
use crate::targets::{self, Target};

/// Most or least that is asked.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Most(f64),
    Least(f64),
}

impl Asked {
    fn held(self, value: f64) -> bool {
        match self {
            Asked::Most(limit) => value <= limit,
            Asked::Least(limit) => value >= limit,
        }
    }

    /// Of two values the one further from what is asked.
    fn worse(self, a: f64, b: f64) -> bool {
        match self {
            Asked::Most(_) => a > b,
            Asked::Least(_) => a < b,
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Asked::Most(limit) => write!(f, "≤ {limit}"),
            Asked::Least(limit) => write!(f, "≥ {limit}"),
        }
    }
}

const CPU: [&str; 4] = ["down1.cpu", "up1.cpu", "down8.cpu", "up8.cpu"];
const RATE: [&str; 4] = ["down1.rate", "up1.rate", "down8.rate", "up8.rate"];
/// Ours, the word for it, and the bare proxy that shakes the same hands.
const OURS: [(&str, &str, &str); 2] = [
    ("tailrace-socks5", "SOCKS5", "bare-proxy-socks5"),
    ("tailrace-connect", "CONNECT", "bare-proxy-connect"),
];

/// The table, a row a goal.
pub(crate) fn table(all: &[Rounds]) -> String {
    let mut page = Page { all, text: String::new() };
    for (ours, inbound, floor) in OURS {
        let what = format!("bulk CPU per GB, {inbound}");
        page.against(ours, &what, &CPU, "bare-splice", Asked::Most(1.05));
        page.against_best(ours, &what, &CPU, false, Asked::Most(0.95));
        let what = format!("bulk throughput, {inbound}");
        page.against(ours, &what, &RATE, "bare-splice", Asked::Least(1.0));
        page.against_best(ours, &what, &RATE, false, Asked::Least(1.0));
        let what = format!("CPU per connection, {inbound}");
        page.against(ours, &what, &["connect32.cpu"], "bare-copy", Asked::Most(1.25));
        page.floor(floor, "connect32.cpu", "bare-copy");
        page.compared(ours, &what, "connect32.cpu", floor);
        page.against_best(ours, &what, &["connect32.cpu"], true, Asked::Most(0.75));
        let what = format!("connections per second, {inbound}");
        page.against_best(ours, &what, &["connect32.rate"], true, Asked::Least(1.15));
        for percentile in ["p50", "p99"] {
            let what = format!("64-byte round trip {percentile}, {inbound}");
            let measure = format!("trip.{percentile}");
            page.against(ours, &what, &[&measure], "bare-copy", Asked::Most(1.1));
        }
        page.alone(ours, &format!("idle connection, PSS in kB, {inbound}"), "idle.pss", 2.5);
        page.alone(ours, &format!("idle connection, descriptors, {inbound}"), "idle.fds", 2.0);
        page.alone(ours, &format!("start to first byte in ms, {inbound}"), "start", 20.0);
        page.unchanged(ours, &format!("cost with thousands idle beside, {inbound}"));
    }
    page.binary();
    let head = "| goal | against | measured | asked | |\n|---|---|---|---|---|\n";
    format!("{head}{}", page.text)
}

struct Page<'a> {
    all: &'a [Rounds],
    text: String,
}

impl Page<'_> {
    fn row(&mut self, what: &str, against: &str, shown: &str, asked: Asked, value: f64) {
        let word = if asked.held(value) { "held" } else { "**missed**" };
        writeln!(self.text, "| {what} | {against} | {shown} | {asked} | {word} |").unwrap();
    }

    fn missing(&mut self, what: &str, against: &str, asked: Asked) {
        writeln!(self.text, "| {what} | {against} | – | {asked} | not measured |").unwrap();
    }

    /// The worst of these measures beside one reference.
    fn against(
        &mut self,
        ours: &str,
        what: &str,
        measures: &[&str],
        reference: &str,
        asked: Asked,
    ) {
        let name = targets::by_id(reference).map_or("", |target| target.name);
        let pair = of(self.all, ours).zip(of(self.all, reference));
        let ratios = measures.iter().filter_map(|measure| {
            let (ours, reference) = pair?;
            Some((ours.ratio(reference, measure)?, *measure))
        });
        match worst(ratios, asked) {
            Some((ratio, measure)) => {
                let shown = named(ratio, measure, measures);
                self.row(what, name, &shown, asked, ratio.middle);
            }
            None => self.missing(what, name, asked),
        }
    }

    /// What the least that could do it comes to: nothing is asked of it.
    fn floor(&mut self, floor: &str, measure: &str, reference: &str) {
        let name = targets::by_id(floor).map_or("", |target| target.name);
        self.compared(floor, &format!("of that the {name} alone"), measure, reference);
    }

    /// A ratio that nothing is asked of.
    fn compared(&mut self, id: &str, what: &str, measure: &str, reference: &str) {
        let pair = of(self.all, id).zip(of(self.all, reference));
        let Some(ratio) = pair.and_then(|(id, reference)| id.ratio(reference, measure)) else {
            return;
        };
        let name = targets::by_id(reference).map_or("", |target| target.name);
        writeln!(self.text, "| {what} | {name} | {ratio} | – | |").unwrap();
    }

    /// The worst of these measures, each beside the peer that is best at it.
    fn against_best(
        &mut self,
        ours: &str,
        what: &str,
        measures: &[&str],
        same: bool,
        asked: Asked,
    ) {
        let found = measures.iter().filter_map(|measure| {
            let best = self.best(ours, measure, same, asked)?;
            let ratio = of(self.all, ours)?.ratio(best, measure)?;
            Some((ratio, (*measure, best.id)))
        });
        match worst(found, asked) {
            Some((ratio, (measure, best))) => {
                let name = targets::by_id(best).map_or("", |target| target.name);
                let shown = named(ratio, measure, measures);
                self.row(what, &format!("best peer: {name}"), &shown, asked, ratio.middle);
            }
            None => self.missing(what, "best peer", asked),
        }
    }

    fn best(&self, ours: &str, measure: &str, same: bool, asked: Asked) -> Option<&Rounds> {
        let speech = targets::by_id(ours)?.speech;
        let fits = |target: Target| target.is_peer() && (!same || target.speech.alike(speech));
        let peers = self.all.iter().filter(|r| targets::by_id(r.id).is_some_and(fits));
        let valued = peers.filter_map(|rounds| Some((rounds.median(measure)?, rounds)));
        // The best peer is the one that is hardest to beat.
        let harder = valued.reduce(|a, b| if asked.worse(a.0, b.0) { b } else { a });
        harder.map(|(_, rounds)| rounds)
    }

    fn alone(&mut self, ours: &str, what: &str, measure: &str, most: f64) {
        // Descriptors of a pool or a thread beside a thousand connections are not theirs.
        let rounded = |value: f64| (value * 20.0).round() / 20.0;
        match of(self.all, ours).and_then(|rounds| rounds.median(measure)) {
            Some(value) => {
                self.row(what, "", &format!("{value:.2}"), Asked::Most(most), rounded(value));
            }
            None => self.missing(what, "", Asked::Most(most)),
        }
    }

    fn unchanged(&mut self, ours: &str, what: &str) {
        let measures = ["down1.cpu", "up8.cpu", "connect32.cpu", "trip.p50"];
        let ratios = measures.iter().filter_map(|measure| {
            let rounds = of(self.all, ours)?;
            Some((rounds.ratio_of(&format!("beside.{measure}"), rounds, measure)?, *measure))
        });
        let asked = Asked::Most(1.1);
        match worst(ratios, asked) {
            Some((ratio, measure)) => {
                let shown = named(ratio, measure, &measures);
                self.row(what, "itself without", &shown, asked, ratio.middle);
            }
            None => self.missing(what, "itself without", asked),
        }
    }

    /// The release build has the size that counts; a bench build is not stripped.
    fn binary(&mut self) {
        let what = "binary in MB, stripped";
        let own = targets::binary();
        let out = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("stripped");
        let strip = std::process::Command::new("strip").arg("-o").arg(&out).arg(own).status();
        let size = std::fs::metadata(&out).map(|file| file.len() as f64 / 1e6);
        match (strip.is_ok_and(|status| status.success()), size) {
            (true, Ok(size)) => self.row(what, "", &format!("{size:.1}"), Asked::Most(12.0), size),
            _ => self.missing(what, "", Asked::Most(12.0)),
        }
    }
}

fn worst<T>(found: impl Iterator<Item = (Ratio, T)>, asked: Asked) -> Option<(Ratio, T)> {
    found.reduce(|a, b| if asked.worse(b.0.middle, a.0.middle) { b } else { a })
}

/// The ratio, and of several measures which one it is.
fn named(ratio: Ratio, measure: &str, among: &[&str]) -> String {
    match among.len() {
        0 | 1 => ratio.to_string(),
        _ => format!(
            "{ratio}, at worst: {}",
            measure.trim_end_matches(".cpu").trim_end_matches(".rate")
        ),
    }
}
