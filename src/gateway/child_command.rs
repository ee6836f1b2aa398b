//! `up -- CMD`: waits until a connection would be carried, runs CMD, ends with it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Gateway, StartError};
use crate::admin::Readiness;
use crate::lifecycle::children::Children;
use crate::lifecycle::command::{CommandLine, Running};
use crate::lifecycle::environment::{self, Ours};
use crate::lifecycle::signals::{Asked, Signals};

/// Between two looks at readiness.
const PAUSE: Duration = Duration::from_millis(50);

/// What is to be run, once the gateway is ready.
#[derive(Debug, Clone)]
pub struct ChildCommand {
    /// CMD and its arguments.
    pub line: CommandLine,
    /// How long the gateway may take to be ready.
    pub ready_timeout: Duration,
    /// How it finds us.
    pub ours: Ours,
}

/// The gateway's part of it.
pub(super) struct Stage<'a> {
    pub(super) signals: &'a mut Signals,
    pub(super) children: &'a Arc<Children>,
    /// Reads the settings again.
    pub(super) reload: &'a mut dyn FnMut(&mut Gateway),
}

impl Stage<'_> {
    /// Runs CMD; its exit code.
    ///
    /// # Errors
    /// [`StartError`] when CMD was not started.
    pub(super) async fn run(
        mut self,
        gateway: &mut Gateway,
        commanded: &ChildCommand,
    ) -> Result<u8, StartError> {
        if let Some(code) = self.ready(gateway, commanded.ready_timeout).await? {
            return Ok(code);
        }
        let variables = environment::variables(gateway.listening(), &commanded.ours)
            .ok_or(StartError::NoListener)?;
        let line = &commanded.line;
        let open_files = gateway.descriptors.before;
        let mut running = Running::start(self.children, line, variables, open_files)?;
        loop {
            tokio::select! {
                code = running.ended() => return Ok(code),
                asked = self.signals.next() => match asked {
                    Asked::Reload => (self.reload)(gateway),
                    Asked::Stop(signal) | Asked::Pass(signal) => running.forward(signal),
                },
            }
        }
    }

    /// Waits until a connection would be carried. A code: a signal ended the wait, and CMD never ran.
    async fn ready(
        &mut self,
        gateway: &mut Gateway,
        timeout: Duration,
    ) -> Result<Option<u8>, StartError> {
        let deadline = Instant::now() + timeout;
        loop {
            let Readiness::NotReady { message, .. } = gateway.readiness() else {
                return Ok(None);
            };
            if let Some(message) = gateway.hopeless() {
                return Err(StartError::Hopeless { message });
            }
            if Instant::now() >= deadline {
                return Err(StartError::NotReady { after: timeout, message });
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                asked = self.signals.next() => match asked {
                    Asked::Reload => (self.reload)(gateway),
                    Asked::Stop(signal) => return Ok(Some(super::run::code_of(signal))),
                    Asked::Pass(_) => {}
                },
            }
        }
    }
}
