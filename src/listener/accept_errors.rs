//! What to do when accept fails: which errors pass, which need a pause, and how much to say.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::labels::AcceptErrno;

/// First and longest pause when the system is out of something.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Clients that left before they were accepted, in a row, after which a pause is taken all the
/// same: something answers for all of them.
const PATIENCE: u32 = 16;
/// Between two log lines.
const QUIET: Duration = Duration::from_secs(5);

/// The metric's `errno` for a failed accept.
pub(super) fn label(error: &io::Error) -> AcceptErrno {
    match Errno::from_io_error(error) {
        Some(Errno::CONNABORTED) => AcceptErrno::ConnectionAborted,
        Some(Errno::MFILE) => AcceptErrno::ProcessFiles,
        Some(Errno::NFILE) => AcceptErrno::SystemFiles,
        Some(Errno::NOBUFS) => AcceptErrno::NoBuffers,
        Some(Errno::NOMEM) => AcceptErrno::NoMemory,
        Some(Errno::PERM) => AcceptErrno::NotPermitted,
        _ => AcceptErrno::Other,
    }
}

/// Whether the process or the system has no descriptor left.
pub(super) fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether it is the system that is short, not one client that left (accept(2)).
fn out_of_something(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno))
}

/// The failures in a row, and when something was last said about them.
#[derive(Debug)]
pub(super) struct AcceptFailures {
    in_a_row: u32,
    pause: Duration,
    said: Option<Instant>,
    unsaid: u32,
}

impl AcceptFailures {
    /// Starts with no failure seen and the shortest pause, 50 ms.
    pub(super) fn new() -> Self {
        Self { in_a_row: 0, pause: PAUSE[0], said: None, unsaid: 0 }
    }

    /// An accept went well.
    pub(super) fn over(&mut self) {
        self.in_a_row = 0;
        self.pause = PAUSE[0];
    }

    /// The pause to take after this failure.
    pub(super) fn pause(&mut self, error: &io::Error) -> Option<Duration> {
        self.in_a_row += 1;
        if !out_of_something(error) && self.in_a_row <= PATIENCE {
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE[1]);
        Some(pause)
    }

    /// Logs the failure unless that was done a moment ago.
    pub(super) fn say(&mut self, error: &io::Error, now: Instant) {
        if self.said.is_some_and(|said| now.duration_since(said) < QUIET) {
            self.unsaid += 1;
            return;
        }
        let (errno, unsaid) = (label(error), self.unsaid);
        tracing::warn!(%errno, %error, unsaid, "a client could not be accepted");
        (self.said, self.unsaid) = (Some(now), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_pauses_double_to_a_second_and_start_over() {
        let mut trouble = AcceptFailures::new();
        let full = io::Error::from(Errno::MFILE);
        let mut pauses = || trouble.pause(&full).unwrap().as_millis();
        assert_eq!([pauses(), pauses(), pauses()], [50, 100, 200]);
        assert_eq!([pauses(), pauses(), pauses(), pauses()], [400, 800, 1000, 1000]);
        trouble.over();
        assert_eq!(trouble.pause(&full), Some(PAUSE[0]));
    }

    #[test]
    fn r3_a_client_that_left_costs_no_pause_unless_all_do() {
        let mut trouble = AcceptFailures::new();
        let gone = io::Error::from(Errno::CONNABORTED);
        for _ in 0..PATIENCE {
            assert_eq!(trouble.pause(&gone), None);
        }
        assert_eq!(trouble.pause(&gone), Some(PAUSE[0]));
    }

    #[test]
    fn r3_labels_are_the_closed_list() {
        let all = [Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        let names = ["ECONNABORTED", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];
        assert_eq!(all.map(|errno| label(&errno.into()).label()), names);
        assert_eq!(label(&Errno::PERM.into()), AcceptErrno::NotPermitted);
        assert_eq!(label(&Errno::PROTO.into()), AcceptErrno::Other);
    }
}
