//! Settings: as written (flags, environment, file), then what they mean.
//!
//! Nothing here binds, dials or starts anything, and nothing here reads a file from the working
//! directory, which may be a stranger's repository.
#![forbid(unsafe_code)]

mod settings;

pub use settings::{
    Config, Dns, DnsMode, HalfClose, Limits, Listen, Log, LogFormat, LogTo, Policy, PolicyMode,
    Record, Relay, Suffix, Transparent, Upstream, UpstreamKind,
};
