//! Where is it: an admitted host in, addresses out, or the name passed on to the upstream.
//!
//! It asks only for what policy admitted, and knows neither inbounds nor rules.
#![forbid(unsafe_code)]

mod hosts;
mod system;
mod zone;

use std::net::IpAddr;
use std::time::Duration;

use crate::policy::Admitted;
use crate::target::{Host, Name, Target};

use self::system::System;
pub use self::zone::{Dialling, Nameserver, Way, Zone};

/// Who resolves names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The upstream: names are passed on.
    Upstream,
    /// This host's resolver.
    System,
}

/// Where an admitted host is.
#[derive(Debug)]
pub enum Resolved {
    /// The upstream will find out.
    Passed(Admitted<Target>),
    /// Addresses, best first, none twice.
    Addresses {
        /// At least one.
        addresses: Vec<IpAddr>,
        /// The log's `resolved_by`: `literal` or `system`.
        by: &'static str,
    },
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The resolver knows no such name, or none with an address.
    #[error("{name} has no address: check the spelling and that its domain is resolved here")]
    NotFound {
        /// The name asked for.
        name: Name,
    },
    /// The resolver failed.
    #[error("{name} could not be resolved: {why}; try again, or check the nameserver")]
    Failed {
        /// The name asked for.
        name: Name,
        /// What the resolver said.
        why: String,
    },
    /// No answer in time.
    #[error("no nameserver answered for {name} within {after:?}: check that it is reachable")]
    Timeout {
        /// The name asked for.
        name: Name,
        /// How long was waited.
        after: Duration,
    },
}

impl NameError {
    /// The metric's `result`.
    pub const fn result(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "nxdomain",
            Self::Failed { .. } => "error",
            Self::Timeout { .. } => "timeout",
        }
    }
}

/// The resolver of one setting.
#[derive(Debug)]
pub struct Names {
    system: Option<System>,
}

impl Names {
    /// A resolver; `timeout` is for one answer.
    pub fn new(mode: Mode, timeout: Duration) -> Self {
        let system = match mode {
            Mode::Upstream => None,
            Mode::System => Some(System::new(timeout)),
        };
        Self { system }
    }

    /// Finds where `host` is. A literal asks nobody.
    ///
    /// # Errors
    /// [`NameError`], naming the host.
    pub async fn resolve(&self, host: &Admitted<Target>) -> Result<Resolved, NameError> {
        match (&host.get().host, &self.system) {
            (Host::Address(ip), _) => {
                Ok(Resolved::Addresses { addresses: vec![*ip], by: "literal" })
            }
            (Host::Name(_), None) => Ok(Resolved::Passed(host.clone())),
            (Host::Name(name), Some(system)) => {
                let addresses = system.addresses(name).await?;
                Ok(Resolved::Addresses { addresses, by: "system" })
            }
        }
    }
}
