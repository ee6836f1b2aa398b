//! The policy of some settings, to be asked without a running gateway.
#![forbid(unsafe_code)]

use super::{StartError, bind, build, local_addresses};
use crate::config::Config;
use crate::lifecycle::run_dir::Listening;
use crate::policy::{
    self, AskedTarget, Decision, DecisionContext, LocalAddresses, NothingKnown, Policy,
};
use crate::target::Target;

/// The policy of some settings, and this host as it is now.
#[derive(Debug)]
pub struct OfflineJudge {
    policy: Policy,
    local_addresses: LocalAddresses,
}

impl OfflineJudge {
    /// Compiles the settings' rules.
    ///
    /// # Errors
    /// [`StartError::Policy`].
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let listening = Listening {
            proxy: config.listen.proxy.clone(),
            tproxy: config.listen.tproxy.clone(),
            admin: config.listen.admin,
            forward: config.forwards.clone(),
            dns: None,
            dns_clients: config.listen.dns,
        };
        let internal = bind::internal(&config.upstream);
        let behind = config.tailnet.as_ref().map(|_| crate::tailnet::TailnetState::starting());
        let local_addresses = local_addresses::look(listening.all(), internal, behind.as_ref());
        Ok(Self { policy: build::policy(&config.policy)?, local_addresses })
    }

    /// The decision about a target as far as settings alone can tell: no name is known, and no route.
    pub fn decide_target(&self, target: &Target) -> Decision {
        let context = DecisionContext {
            policy: &self.policy,
            local_addresses: &self.local_addresses,
            names: &NothingKnown,
            routes: &NothingKnown,
        };
        policy::decide(&AskedTarget::unconnected(target), &context)
    }
}
