//! The one place where what is known of the tailnet is written.
#![forbid(unsafe_code)]

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::explain::TailnetFault;
use super::state::{TailnetPhase, TailnetState};

/// The writing end. Every change is logged once, in words.
#[derive(Debug, Clone)]
pub(super) struct StateStore(Arc<watch::Sender<TailnetState>>);

impl StateStore {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(TailnetState::starting())))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<TailnetState> {
        self.0.subscribe()
    }

    pub(super) fn phase(&self) -> TailnetPhase {
        self.0.borrow().phase
    }

    pub(super) fn get<T>(&self, read: impl FnOnce(&TailnetState) -> T) -> T {
        read(&self.0.borrow())
    }

    /// Changes what is known; readers wake only if something did change.
    pub(super) fn update(&self, change: impl FnOnce(&mut TailnetState)) {
        self.0.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            if let Some(fault) = &state.barred {
                (state.phase, state.fault) = (TailnetPhase::Unreachable, Some(fault.clone()));
                state.first_login = false;
            }
            if before.is_running() != state.is_running() {
                state.since = state.is_running().then(Instant::now);
            }
            log_change(&before, state);
            *state != before
        });
    }

    /// A phase, with the fault that explains it.
    pub(super) fn set_phase(&self, phase: TailnetPhase, fault: impl Into<Option<TailnetFault>>) {
        let fault = fault.into();
        self.update(|state| {
            state.phase = phase;
            state.fault = fault;
        });
    }

    /// The same; and the first login is over: connections no longer wait for it.
    pub(super) fn settle_phase(&self, phase: TailnetPhase, fault: impl Into<Option<TailnetFault>>) {
        let fault = fault.into();
        self.update(|state| {
            state.phase = phase;
            state.fault = fault;
            state.first_login = false;
        });
    }
}

fn log_change(before: &TailnetState, now: &TailnetState) {
    if (before.phase, &before.fault) == (now.phase, &now.fault) {
        return;
    }
    let state = now.phase.label();
    match (&now.fault, &now.node) {
        (Some(fault), _) => tracing::warn!(state, "tailnet: {}", fault.sentence()),
        (None, Some(node)) if now.is_running() => {
            let address = node.addresses.first().map(ToString::to_string).unwrap_or_default();
            tracing::info!(state, node = node.name, address, "tailnet: connected");
        }
        (None, _) => tracing::info!(state, "tailnet: {state}"),
    }
}
