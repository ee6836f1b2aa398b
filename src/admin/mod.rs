//! The admin listener: metrics, health, status, live connections. Nothing here changes anything.
//!
//! It runs on a thread and runtime of its own, so that a slow or hostile reader costs the data path
//! nothing, and it sees snapshots through [`View`], never a connection.
#![forbid(unsafe_code)]

mod guard;
mod query;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

use std::pin::Pin;

use serde_json::Value;

pub use serve::serve;

/// Whether a connection would be carried, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// One word: the tailnet's state, `upstream_down`, `draining` or `starting`. Empty when ready.
    pub error: &'static str,
    /// A sentence a person can act on. Empty when ready.
    pub message: String,
    /// What is missing, by name; empty when ready.
    pub pending: Vec<&'static str>,
}

/// An explanation under way: an object, or a sentence why the target is none.
pub type Explaining = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// What the admin listener may know of the gateway.
pub trait View: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
    /// Whether a connection would be carried.
    fn readiness(&self) -> Readiness;
    /// The object of `/api/v1/status`, with the tailnet's peers if asked; it holds no secret.
    fn status(&self, peers: bool) -> Value;
    /// The rows of `/api/v1/connections`.
    fn connections(&self) -> Value;
    /// What would become of `target`, `HOST` or `HOST:PORT`, and why. It dials nothing, but asks
    /// for the name as a connection would.
    fn explain(&self, target: &str) -> Explaining;
    /// Called every few seconds, for what has to be brought up to date.
    fn tick(&self);
}

impl Readiness {
    /// Nothing is missing.
    pub fn ready() -> Self {
        Self { error: "", message: String::new(), pending: Vec::new() }
    }

    /// Whether a connection would be carried.
    pub fn is_ready(&self) -> bool {
        self.pending.is_empty()
    }
}
