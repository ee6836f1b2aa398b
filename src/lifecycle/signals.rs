//! Signals as values: reload on SIGHUP, stop on SIGTERM and SIGINT, the rest for a program we run.
#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Read the settings again (SIGHUP).
    Reload,
    /// Drain and end (SIGTERM or SIGINT).
    Stop(Signal),
    /// Nothing of us; a program we run may want to know.
    Pass(Signal),
}

/// The signals the gateway listens to, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    taken: Vec<(Asked, unix::Signal)>,
}

impl Signals {
    /// Takes SIGHUP, SIGTERM and SIGINT over from their default, which is to end the process.
    ///
    /// # Errors
    /// What `sigaction(2)` says.
    pub fn take_over() -> io::Result<Self> {
        let mut signals = Self { taken: Vec::new() };
        signals.take(Asked::Reload, Signal::HUP)?;
        signals.take(Asked::Stop(Signal::TERM), Signal::TERM)?;
        signals.take(Asked::Stop(Signal::INT), Signal::INT)?;
        Ok(signals)
    }

    /// Takes over what else a program we run is to be told.
    ///
    /// # Errors
    /// What `sigaction(2)` says.
    pub fn take_over_for_a_program(&mut self) -> io::Result<()> {
        for signal in [Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH] {
            self.take(Asked::Pass(signal), signal)?;
        }
        Ok(())
    }

    fn take(&mut self, asked: Asked, number: Signal) -> io::Result<()> {
        self.taken.push((asked, signal(SignalKind::from_raw(number.as_raw()))?));
        Ok(())
    }

    /// Waits for the next one. May be cancelled.
    pub async fn next(&mut self) -> Asked {
        poll_fn(|cx| {
            let mut taken = self.taken.iter_mut();
            let came =
                taken.find_map(|(asked, signal)| signal.poll_recv(cx).is_ready().then_some(*asked));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
