//! The admin listener: metrics, health, status, live connections. Nothing here changes anything.
//!
//! It runs on a thread and runtime of its own, so that a slow or hostile reader costs the data path
//! nothing, and it sees snapshots through [`View`], never a connection.
#![forbid(unsafe_code)]

mod guard;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use serve::serve;

/// What the admin listener may know of the gateway.
pub trait View: Send + Sync + 'static {
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
    /// What is missing before a connection would be carried; empty when ready.
    fn pending(&self) -> Vec<&'static str>;
    /// The object of `/api/v1/status`; it holds no secret.
    fn status(&self) -> Value;
    /// The rows of `/api/v1/connections`.
    fn connections(&self) -> Value;
    /// Called every few seconds, for what has to be brought up to date.
    fn tick(&self);
}
