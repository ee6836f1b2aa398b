//! Step 7, what happened: one log line per target, counters, the live table.
//!
//! It hears of connections through the guard alone and knows neither protocols nor policy, only outcomes and targets.
//! Nothing here may hold up traffic: numbers are atomics, lines go to a thread that may drop them.
#![forbid(unsafe_code)]

mod access_log;
mod connection_id;
mod connection_record;
mod escape;
mod json_object;
mod live_connections;
pub mod log;
mod log_writer;
mod metrics;
mod outcome_counters;
mod own_process;
mod process_lookup;
mod telemetry;
#[cfg(test)]
mod tests;
mod tracing_events;

pub use crate::labels::Stage;
pub use connection_record::{ConnectionRecord, TargetRecord};
pub use live_connections::{LiveConnection, LiveConnections};
pub use log::{AccessLog, AccessWriter};
pub use process_lookup::Process;
pub use telemetry::{Sampler, Telemetry};

/// Version, commit and target of this binary.
pub fn build_info() -> (&'static str, &'static str, &'static str) {
    (
        env!("CARGO_PKG_VERSION"),
        option_env!("BUILD_COMMIT").unwrap_or("unknown"),
        option_env!("BUILD_TARGET").unwrap_or(std::env::consts::ARCH),
    )
}
