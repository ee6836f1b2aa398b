//! The `process_*` metrics every Prometheus client library has, read from `/proc/self` (proc(5)).
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::sys::stat::{self, TICKS};

/// Appends the family in the text format. A value the system does not tell is left out.
pub(super) fn append_family(text: &mut String) {
    let stat = std::fs::read("/proc/self/stat").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = |key| number_after(&status, key).map(|kib: u64| kib * 1024);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let fds = std::fs::read_dir("/proc/self/fd").ok().map(|all| all.count().saturating_sub(1));
    append_metric(
        text,
        "cpu_seconds_total",
        "counter",
        "User and system CPU time spent.",
        cpu_seconds(&stat),
    );
    append_metric(text, "resident_memory_bytes", "gauge", "Resident memory.", memory("VmRSS:"));
    append_metric(text, "virtual_memory_bytes", "gauge", "Virtual memory.", memory("VmSize:"));
    append_metric(text, "open_fds", "gauge", "Open file descriptors.", fds);
    append_metric(text, "max_fds", "gauge", "Most file descriptors that may be open.", limit);
    append_metric(text, "threads", "gauge", "Threads.", number_after::<u64>(&status, "Threads:"));
    let start = start_seconds(&stat);
    append_metric(text, "start_time_seconds", "gauge", "Start, in seconds since 1970.", start);
}

fn append_metric<T: std::fmt::Display>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    value: Option<T>,
) {
    if let Some(value) = value {
        let name = format!("process_{name}");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

fn cpu_seconds(stat: &[u8]) -> Option<f64> {
    Some((stat::number(stat, 14)? + stat::number(stat, 15)?) / TICKS)
}

fn start_seconds(stat: &[u8]) -> Option<f64> {
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = number_after(&system, "btime")?;
    Some(boot + stat::number(stat, 22)? / TICKS)
}

/// The first number after `key` at the start of a line.
fn number_after<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = b"7 (a) b c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1200 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(stat::number(stat, 22), Some(1200.0));
    }

    #[test]
    fn the_whole_family_is_there() {
        let mut text = String::new();
        append_family(&mut text);
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"]
        {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name}: {text}");
        }
    }
}
