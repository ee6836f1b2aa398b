//! How many calls a supervisor carried, refused and let pass, for `--explain`.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Counts calls, from every thread of the supervisor.
#[derive(Debug, Default)]
pub(super) struct CallCounters {
    carried: AtomicU64,
    refused: AtomicU64,
    questions: AtomicU64,
    left_alone: AtomicU64,
    unreadable: AtomicU64,
}

/// What was counted until the program ended, as it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct CallTotals {
    carried: u64,
    refused: u64,
    questions: u64,
    left_alone: u64,
    unreadable: u64,
}

impl CallCounters {
    /// A TCP connection was made through the gateway, or was not.
    pub(super) fn count_connection(&self, ended: Result<(), Errno>) {
        increment(if ended.is_ok() { &self.carried } else { &self.refused });
    }

    /// A question to a nameserver went to the gateway.
    pub(super) fn count_question(&self) {
        increment(&self.questions);
    }

    /// A datagram, or a socket's worth of them, went its own way.
    pub(super) fn count_left_alone(&self) {
        increment(&self.left_alone);
    }

    /// A call was let pass because the program is closed to us.
    pub(super) fn count_unreadable(&self) {
        increment(&self.unreadable);
    }

    /// What was counted so far.
    pub(super) fn current_totals(&self) -> CallTotals {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CallTotals {
            carried: value(&self.carried),
            refused: value(&self.refused),
            questions: value(&self.questions),
            left_alone: value(&self.left_alone),
            unreadable: value(&self.unreadable),
        }
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Display for CallTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { carried, refused, questions, left_alone, unreadable } = self;
        write!(
            f,
            "TCP connections carried {carried}, refused {refused}; DNS sockets and questions \
             redirected {questions}; UDP left alone {left_alone}; calls passed unread {unreadable}"
        )
    }
}
