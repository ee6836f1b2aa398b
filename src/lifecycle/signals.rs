//! Signals as values: reload on SIGHUP, stop on SIGTERM and SIGINT.
#![forbid(unsafe_code)]

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// signal(7): the same on every Linux and on macOS.
const SIGINT: u8 = 2;
/// signal(7).
const SIGTERM: u8 = 15;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Read the settings again (SIGHUP).
    Reload,
    /// Drain and end (SIGTERM or SIGINT), with the signal's number.
    Stop(u8),
}

/// The signals the gateway listens to, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the three signals over from their default, which is to end the process.
    ///
    /// # Errors
    /// What `sigaction(2)` says.
    pub fn take_over() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop(SIGTERM),
            _ = self.interrupt.recv() => Asked::Stop(SIGINT),
        }
    }
}
