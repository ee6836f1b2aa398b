//! What is known of one connection's caller, and the access lines that wait to hear of it.
//!
//! Nothing else waits: a connection goes on and ends while its caller is looked for, and only the line
//! is held back for some milliseconds.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::process::Process;
use crate::record::access_log::AccessLine;
use crate::record::log::{AccessLog, HeldLine};

/// Lines of one connection that wait at once; further ones go out without a caller.
const MOST_HELD: usize = 16;

/// The caller of one connection.
#[derive(Default)]
pub(in crate::record) struct CallerSlot(Mutex<LookupState>);

#[derive(Default)]
enum LookupState {
    /// Nobody looked, or it was not found.
    #[default]
    Unknown,
    /// It is being looked for.
    Sought(Vec<HeldLine>),
    /// It was found.
    Known(Arc<Process>),
}

impl CallerSlot {
    /// From now on somebody looks.
    pub(super) fn begin_lookup(&self) {
        *self.lock() = LookupState::Sought(Vec::new());
    }

    /// What a search came to: lines that waited go out. A later search may come to more.
    pub(super) fn settle_lookup(&self, found: Option<Arc<Process>>, log: &AccessLog) {
        let mut caller = self.lock();
        if let LookupState::Sought(held) = &mut *caller {
            for line in std::mem::take(held) {
                log.release_line(line, found.as_deref());
            }
            *caller = LookupState::Unknown;
        }
        if let Some(process) = found {
            *caller = LookupState::Known(process);
        }
    }

    /// Writes a line, once its caller is known or was not found.
    pub(in crate::record) fn write_line(&self, line: AccessLine<'_>, log: &AccessLog) {
        let mut caller = self.lock();
        match &mut *caller {
            LookupState::Sought(held) if held.len() < MOST_HELD => {
                held.reserve_exact(1); // nearly always the only one
                held.extend(log.hold_line(&line));
            }
            LookupState::Known(process) => {
                log.write_access_line(&AccessLine { process: Some(process), ..line })
            }
            LookupState::Sought(_) | LookupState::Unknown => log.write_access_line(&line),
        }
    }

    /// The caller, where it is known.
    pub(in crate::record) fn process(&self) -> Option<Arc<Process>> {
        match &*self.lock() {
            LookupState::Known(process) => Some(Arc::clone(process)),
            LookupState::Sought(_) | LookupState::Unknown => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, LookupState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
