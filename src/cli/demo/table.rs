//! What the demonstration prints.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::StepFailure;
use super::client::BytesMoved;
use crate::cli::line_output;

/// How a step ended, when it ended as it should.
pub(super) enum StepEnd {
    /// Carried, with its bytes.
    Carried(BytesMoved),
    /// Refused, as it has to be: the reason.
    Refused(String),
    /// Could not be shown here: why.
    NotHere(String),
}

/// One line of the table.
pub(super) struct TableRow {
    way: &'static str,
    what: &'static str,
    ended: Result<StepEnd, StepFailure>,
    took: Duration,
}

impl TableRow {
    pub(super) fn new(
        way: &'static str,
        what: &'static str,
        ended: Result<StepEnd, StepFailure>,
        took: Duration,
    ) -> Self {
        Self { way, what, ended, took }
    }

    pub(super) fn held(&self) -> bool {
        self.ended.is_ok()
    }

    fn cells(&self) -> (&'static str, String, String) {
        match &self.ended {
            Ok(StepEnd::Carried((up, down))) => {
                ("✓", "carried".to_owned(), format!("{} ↑ {} ↓", size(*up), size(*down)))
            }
            Ok(StepEnd::Refused(why)) => ("✓", format!("refused: {why}"), String::new()),
            Ok(StepEnd::NotHere(why)) => ("–", format!("not shown here: {why}"), String::new()),
            Err(why) => ("✗", format!("FAILED: {why}"), String::new()),
        }
    }
}

pub(super) fn print(rows: &[TableRow]) {
    let heads = ["way", "what", "result", "bytes", "ms"];
    let [way, what, result, bytes, took] = heads;
    line_output::out(format_args!("  {way:<14} {what:<34} {result:<44} {bytes:>21} {took:>9}"));
    for row in rows {
        let (mark, result, bytes) = row.cells();
        let took = row.took.as_secs_f64() * 1000.0;
        let (way, what) = (row.way, row.what);
        line_output::out(format_args!(
            "{mark} {way:<14} {what:<34} {result:<44} {bytes:>21} {took:>9.1}"
        ));
    }
}

/// The counters that moved.
pub(super) fn print_metrics(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    line_output::out("\nmetrics that moved:");
    for (name, value) in after {
        let moved = value - before.get(name).copied().unwrap_or(0.0);
        let telling = name.contains("_total") && !name.contains("process_");
        if telling && moved > 0.0 {
            line_output::out(format_args!("  {name:<78} +{moved}"));
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
