//! Tailrace: a gateway that lets any command-line tool reach private services on a tailnet.
//!
//! The map of the house, in the order a connection walks through it:
//!
//! | step | room | hands on |
//! |---|---|---|
//! | 1 | [`listener`] | an accepted stream and its record |
//! | 2 | [`inbound`] | what the client asks for |
//! | 3 | [`policy`] | an `Admitted` value, or a refusal |
//! | 4 | [`names`] | where the target is |
//! | 5 | [`upstream`] | a connected stream |
//! | 6 | [`relay`] | bytes both ways |
//! | 7 | [`record`] | one log line, counters, the live table |
//!
//! The one-way rule: rooms 1-7 do not import each other. [`connection`] carries values from one
//! to the next; only it and [`gateway`] know every room. The few types that may cross a wall are
//! listed in `docs/architecture.md`, and `tests/walls.rs` holds that list.

pub mod admin;
pub mod cli;
pub mod config;
pub mod connection;
pub mod expiring_cache;
pub mod gateway;
pub mod inbound;
pub mod lifecycle;
pub mod listener;
pub mod names;
pub mod outcome;
pub mod policy;
pub mod record;
pub mod relay;
pub mod secret;
pub mod sys;
pub mod tailnet;
pub mod target;
pub mod upstream;
#[cfg(target_os = "linux")]
pub mod wrap;
