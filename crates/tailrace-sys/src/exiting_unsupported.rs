//! Whether a process is on its way out is not told here.

use std::io;

/// Cannot be made here.
#[derive(Debug)]
pub enum Exiting {}

impl Exiting {
    /// Only Linux tells.
    ///
    /// # Errors
    /// Always `Unsupported`.
    pub fn of(_pid: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called: nothing is watched.
    pub fn exiting(&self) -> bool {
        match *self {}
    }
}
