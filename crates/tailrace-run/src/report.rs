//! What the supervisor tells the process in front of it, one message each.
#![forbid(unsafe_code)]

use rustix::process::WaitStatus;
use serde::{Deserialize, Serialize};

use super::call_counters::CallTotals;

/// More than any of them takes.
pub(super) const LONGEST: usize = 1024;

/// One message, as JSON in one packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SupervisorReport {
    /// The program runs, under this id; whether its sockets can be duplicated.
    Started { pid: i32, duplicates: bool },
    /// The kernel or a sandbox takes no filter with a listener: the errno.
    NoFilter { errno: i32 },
    /// The program cannot be run: the errno.
    NotRun { errno: i32 },
    /// Nothing could be begun.
    NotBegun { what: String },
    /// The program was stopped.
    Stopped,
    /// The program has ended; `alone`: it left nobody running, and the supervisor ends too.
    Ended { how: ProgramEnd, counts: CallTotals, alone: bool },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ProgramEnd {
    /// By itself, with this exit status.
    Code(i32),
    /// Killed, by the signal of this number.
    Signal(i32),
}

impl ProgramEnd {
    /// What the status of a process that was waited for says.
    pub(super) fn from_status(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(status.exit_status().unwrap_or_default()),
        }
    }
}
