//! The programs people use, each through the gateway and the real tailnet against a real server.
//!
//! `TAILRACE_WRITE_CLIENTS=1` runs each several times, also without the gateway beside its server, and
//! writes their rows of `docs/clients.md`. Without it nothing in the checkout changes.

mod commanded;
mod database;
mod field;
mod further;
mod kube;
mod remote;
mod script;
pub mod table;
mod web;

pub use database::{PASSWORD, serve_postgresql};
pub use field::{Field, NAMES, installed, source};

use crate::case::{Case, Need};

pub fn cases() -> Vec<Case> {
    let each = [web::cases(), database::cases(), remote::cases(), kube::cases(), further::cases()];
    let all = each.concat().into_iter().chain(commanded::cases());
    all.map(|case| case.needing(Need::Clients)).collect()
}
