//! Why a name has no address: the name, who was asked, how long, and what they said.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::labels::{DnsResult, DnsRoute};
use crate::target::Name;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no such name, or none with an address.
    #[error(
        "{name} has no address: {asked} knows none; check the spelling and that its domain is resolved here"
    )]
    NotFound {
        /// The name asked for.
        name: Name,
        /// By which route it was asked.
        route: DnsRoute,
        /// Who says so: nameservers, `MagicDNS` or `this host's resolver`.
        asked: String,
    },
    /// Everybody who was asked failed.
    #[error("{name} could not be resolved: {why}; try again, or check the nameserver")]
    Failed {
        /// The name asked for.
        name: Name,
        /// By which way the name was asked for; the metric's `route`.
        route: DnsRoute,
        /// The nameservers in their order, or `this host's resolver`.
        asked: String,
        /// What each of them said.
        why: String,
    },
    /// No answer in time.
    #[error("{asked} did not answer for {name} within {after:?}: check that it is reachable")]
    Timeout {
        /// The name asked for.
        name: Name,
        /// By which way the name was asked for; the metric's `route`.
        route: DnsRoute,
        /// The nameservers in their order, or `this host's resolver`.
        asked: String,
        /// How long was waited.
        after: Duration,
    },
    /// An internal name whose nameservers all have a form that is not asked here. Nobody was asked.
    #[error(
        "{name} cannot be resolved: no nameserver of {domain} can be asked ({skipped}); give it one by address or https://"
    )]
    NoNameserver {
        /// The name asked for.
        name: Name,
        /// The split-DNS route that covers it.
        domain: Name,
        /// Its nameservers, as written.
        skipped: String,
    },
}

impl NameError {
    /// The metric's `result`: whether there is no such name, resolving failed, or it took too long.
    pub const fn result(&self) -> DnsResult {
        match self {
            Self::NotFound { .. } => DnsResult::Nxdomain,
            Self::Failed { .. } | Self::NoNameserver { .. } => DnsResult::Error,
            Self::Timeout { .. } => DnsResult::Timeout,
        }
    }

    /// The metric's `route`: by which way the name was asked.
    pub const fn route(&self) -> DnsRoute {
        match self {
            Self::NotFound { route, .. }
            | Self::Failed { route, .. }
            | Self::Timeout { route, .. } => *route,
            Self::NoNameserver { .. } => DnsRoute::Split,
        }
    }
}
