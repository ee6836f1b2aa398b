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

pub use database::{PASSWORD, postgres};
pub use field::{Field, NAMES, installed, source};

use crate::case::{Case, Need};

pub fn cases() -> Vec<Case> {
    let all = [web::cases(), database::cases(), remote::cases(), kube::cases()].concat();
    all.into_iter().map(|case| case.needing(Need::Clients)).collect()
}
