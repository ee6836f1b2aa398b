//! The programs people use, each through the gateway and the real tailnet against a real server.
//!
//! `TAILRACE_WRITE_CLIENTS=1` runs each several times, also without the gateway beside its server, and
//! writes `docs/clients.md`. Without it nothing in the checkout changes.

mod database;
mod field;
mod kube;
mod remote;
mod script;
pub mod table;
mod web;

pub use field::{Field, NAMES};

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    [web::cases(), database::cases(), remote::cases(), kube::cases()].concat()
}
