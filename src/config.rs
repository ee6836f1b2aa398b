//! Settings: as written (flags, environment, file), then what they mean.
//!
//! Stage one ([`parse`]) knows types and names and keeps where each value came from; stage two
//! (`check`) knows meanings. Both find every problem, not just the first. Nothing here binds,
//! dials or starts anything, and nothing here reads a file from the working directory, which may
//! be a stranger's repository.
#![forbid(unsafe_code)]

mod byte_size;
mod check;
mod check_dns;
mod check_listen;
mod check_policy;
mod check_tailnet;
mod config_problem;
mod duration;
mod environment;
mod from_file;
mod from_texts;
mod keys;
mod load;
mod log_filter;
mod nearest_word;
mod raw_config;
mod reload;
mod setting_types;
mod settings;
mod show;
#[cfg(test)]
mod tests;

pub(crate) use duration::parse_duration;

pub use check::{CheckedConfig, GatewayLocation, check_config, gateway_location};
pub use config_problem::{Origin, Problem, Problems};
pub use environment::ProcessEnvironment;
pub use from_texts::{KEY_FD, SettingFlag};
pub use keys::{Key, ListenerKey, ManageChoice, OutsideChoice, UpstreamChoice};
pub use load::{Loaded, SYSTEM_FILE, load, read};
pub use log_filter::{BadFilter, LogFilter};
pub use raw_config::{RawConfig, parse};
pub use reload::{Reloaded, reloaded};
pub use settings::{
    Config, Dns, DnsMode, HalfCloseChoice, KeySource, Limits, Listen, Log, LogFormat, LogTo,
    NodeState, Policy, PolicyMode, Record, Relay, Tailnet, Transparent, Upstream, UpstreamKind,
};
pub use show::{Shown, shown, shown_forwards};
