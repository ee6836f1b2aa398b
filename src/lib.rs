//! Tailrace: a gateway that lets any command-line tool reach private services on a tailnet.
//!
//! The modules, in the order in which a connection passes them:
//!
//! | step | module | hands on |
//! |---|---|---|
//! | 1 | [`listener`] | an accepted stream; its record begins in `connection::spawn_connection` |
//! | 2 | [`inbound`] | what the client asks for |
//! | 3 | [`policy`] | an `Admitted` value, or a refusal |
//! | 4 | [`dns`] | where the target is |
//! | 5 | [`upstream`] | a connected stream |
//! | 6 | [`relay`] | bytes both ways |
//! | 7 | [`record`] | one log line, counters, the live table |
//!
//! The one-way rule: modules 1-7 do not import each other. [`connection`] carries values from one
//! to the next; only it and [`gateway`] know all of them. The few types that may be imported across are
//! listed in `docs/architecture.md`, and `tests/module_borders` holds that list.
#![forbid(unsafe_code)]

pub mod admin;
pub mod api;
pub mod cli;
pub mod config;
pub mod connection;
pub mod dns;
pub mod expiring_cache;
pub mod gateway;
pub mod http_client;
pub mod inbound;
pub mod labels;
pub mod lifecycle;
pub mod listener;
pub mod localapi;
pub mod outcome;
pub mod policy;
pub mod record;
pub mod relay;
pub mod secret;
pub mod tailnet;
pub mod target;
pub(crate) mod tls_client;
pub mod upstream;

pub use tailrace_sys as sys;
