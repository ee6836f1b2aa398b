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
pub(in crate::record) struct CallerSlot(Mutex<Caller>);

#[derive(Default)]
enum Caller {
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
    pub(super) fn seek(&self) {
        *self.lock() = Caller::Sought(Vec::new());
    }

    /// What a search came to: lines that waited go out. A later search may come to more.
    pub(super) fn settle(&self, found: Option<Arc<Process>>, log: &AccessLog) {
        let mut caller = self.lock();
        if let Caller::Sought(held) = &mut *caller {
            for line in std::mem::take(held) {
                log.release_line(line, found.as_deref());
            }
            *caller = Caller::Unknown;
        }
        if let Some(process) = found {
            *caller = Caller::Known(process);
        }
    }

    /// Writes a line, once its caller is known or was not found.
    pub(in crate::record) fn write(&self, line: AccessLine<'_>, log: &AccessLog) {
        let mut caller = self.lock();
        match &mut *caller {
            Caller::Sought(held) if held.len() < MOST_HELD => {
                held.reserve_exact(1); // nearly always the only one
                held.extend(log.hold_line(&line));
            }
            Caller::Known(process) => {
                log.write_access_line(&AccessLine { process: Some(process), ..line })
            }
            Caller::Sought(_) | Caller::Unknown => log.write_access_line(&line),
        }
    }

    /// The caller, where it is known.
    pub(in crate::record) fn process(&self) -> Option<Arc<Process>> {
        match &*self.lock() {
            Caller::Known(process) => Some(Arc::clone(process)),
            Caller::Sought(_) | Caller::Unknown => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Caller> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
