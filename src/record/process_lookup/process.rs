//! A calling program as the log, the live table and `explain` name it.
#![forbid(unsafe_code)]

use std::time::Duration;

use jiff::Timestamp;

pub use crate::api::ClientProcess as Process;
use crate::sys::Program;

impl Process {
    /// Of a process that has not ended meanwhile. `boot` is when this host was started.
    pub(super) fn of(program: &Program, executable: &[u8], boot: Timestamp) -> Option<Self> {
        let started = boot + Duration::try_from_secs_f64(program.started()?).ok()?;
        Some(Self {
            pid: program.id(),
            name: file_name(executable),
            started: format!("{started:.2}"),
        })
    }
}

/// Bytes that are no UTF-8 are shown as U+FFFD.
fn file_name(path: &[u8]) -> String {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    String::from_utf8_lossy(name).into_owned()
}

/// When this host was started, by the clock of now: what is told of one process never changes, even
/// when the clock is set.
pub(super) fn boot_time() -> Timestamp {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::try_from(up).unwrap_or_default();
    Timestamp::now().checked_sub(up).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_file_s() {
        assert_eq!(file_name(b"/usr/bin/curl"), "curl");
        assert_eq!(file_name(b"/memfd:x"), "memfd:x");
        assert_eq!(file_name(b"/opt/a b\"\n\xff"), "a b\"\n\u{fffd}");
        assert_eq!(file_name(b""), "");
    }

    #[test]
    fn we_were_started_a_moment_ago() {
        let program = Program::open(std::process::id()).unwrap();
        let process = Process::of(&program, b"/bin/x", boot_time()).unwrap();
        let started: Timestamp = process.started.parse().unwrap();
        let ago = Timestamp::now().duration_since(started).as_secs_f64();
        assert!((-0.1..3600.0).contains(&ago), "{ago}");
        assert!(process.started.ends_with('Z'), "{}", process.started);
    }
}
