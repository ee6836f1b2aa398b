//! From start to end: readiness, draining, signals, child processes, the run directory.
//!
//! It knows no connection and no protocol; `gateway.rs` asks it when to stop.
#![forbid(unsafe_code)]

pub mod children;
pub mod command;
pub mod connection_cut;
pub mod drain;
pub mod environment;
pub mod pause;
pub(crate) mod port_owner;
pub mod program;
pub mod run_dir;
pub mod signals;
