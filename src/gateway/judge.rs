//! The policy of some settings, to be asked without a running gateway.
#![forbid(unsafe_code)]

use super::{StartError, bind, build, local_addresses};
use crate::config::Config;
use crate::lifecycle::run_dir::Listening;
use crate::policy::{Decision, LocalAddresses, Policy};
use crate::target::Target;

/// Settings' policy and this host as it is now.
#[derive(Debug)]
pub struct Judge {
    policy: Policy,
    own: LocalAddresses,
}

impl Judge {
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
        let own = local_addresses::look(listening.all(), internal, behind.as_ref());
        Ok(Self { policy: build::policy(&config.policy)?, own })
    }

    /// The decision about a target, and whether the present mode refuses it.
    pub fn ask(&self, target: &Target) -> (Decision, bool) {
        let (decision, judged) = self.policy.judge_host(&self.own, target);
        (decision, judged.is_err())
    }
}
