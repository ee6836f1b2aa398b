//! The admin listener: metrics, health, status, live connections. Nothing here changes anything.
//!
//! It runs on a thread and runtime of its own, so that a slow or hostile reader costs the data path
//! nothing, and it sees snapshots through [`View`], never a connection.
#![forbid(unsafe_code)]

mod query_parameters;
mod request_origin;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

use std::pin::Pin;

use crate::api::{ConnectionAnswer, ExplainAnswer, StatusAnswer};
use crate::labels::ReadinessPart;

pub use serve::serve;

/// Whether a connection would be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It would be carried: the upstream is up, the tailnet too where there is one, and no drain has begun.
    Ready,
    /// It would be refused, or would have to wait; `/readyz` answers this with status 503.
    NotReady {
        /// One word: the tailnet's state, `upstream_down` or `draining`.
        error: &'static str,
        /// A sentence a person can act on.
        message: String,
        /// What is missing; never empty.
        pending: Vec<ReadinessPart>,
    },
}

/// An explanation under way, or a sentence why the target is none.
pub type Explaining = Pin<Box<dyn Future<Output = Result<ExplainAnswer, String>> + Send>>;

/// What the admin listener may know of the gateway.
pub trait View: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
    /// Whether a connection would be carried.
    fn readiness(&self) -> Readiness;
    /// The answer of `/api/v1/status`, with the tailnet's peers if asked; it holds no secret.
    fn status(&self, peers: bool) -> StatusAnswer;
    /// The rows of `/api/v1/connections`.
    fn connections(&self) -> Vec<ConnectionAnswer>;
    /// What would become of `target`, `HOST` or `HOST:PORT`, and why. It dials nothing, but asks
    /// for the name as a connection would.
    fn explain(&self, target: &str) -> Explaining;
    /// Called every few seconds, for what has to be brought up to date.
    fn tick(&self);
}

impl Readiness {
    /// Whether a connection would be carried.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// What is missing, in alphabetical order; empty when ready.
    pub fn pending(self) -> Vec<ReadinessPart> {
        match self {
            Self::Ready => Vec::new(),
            Self::NotReady { pending, .. } => pending,
        }
    }
}
