//! New settings for a running gateway: swapped whole, and live connections are judged again.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Gateway, StartError, build};
use crate::config::Config;
use crate::lifecycle::cut::CutReason;

impl Gateway {
    /// Takes over `policy`, `limits`, `dns` and `relay` of `config`; live connections that the new
    /// policy refuses are cut with a reset both ways.
    ///
    /// # Errors
    /// [`StartError::Policy`]; then everything stays as it was.
    pub fn reload(&mut self, config: Config) -> Result<(), StartError> {
        let policy = build::policy(&config.policy)?;
        self.gateway_state.policy.store(Arc::new(policy));
        self.gateway_state.names.store(Arc::new(self.naming.names(&config.dns)));
        self.gateway_state
            .synthetic
            .store(build::synthetic(&config.dns, self.gateway_state.synthetic.load_full()));
        self.live.splice.store(config.relay.splice, Ordering::Relaxed);
        self.gateway_state.limits.store(Arc::new(self.live.limits(&config)));
        let most = build::fitting(config.limits.max_connections, self.descriptors.after);
        self.limits.set(most, config.limits.per_client);
        self.gateway_state.telemetry.log().reload(&config.log)?;
        self.config = config;
        self.judge_again();
        if let Some(membership) = &self.membership {
            membership.key_changed();
        }
        Ok(())
    }

    /// What was allowed yesterday is asked again today (docs/requirements.md, B24).
    fn judge_again(&self) {
        let (policy, own) = (self.gateway_state.policy.load(), self.gateway_state.own.load());
        self.gateway_state.telemetry.live().each(|entry| {
            let Some(target) = entry.target() else { return };
            // It may be caught before it was settled what it means.
            let target = self.gateway_state.effective_target(target);
            let (mut decision, judged) = policy.judge_host(&own, &target);
            let mut refused = judged.is_err();
            if let (Ok(admitted), Some(address)) = (judged, entry.address()) {
                let (of_address, judged) = policy.judge_address(&own, &admitted, address.ip());
                if judged.is_err() {
                    (decision, refused) = (of_address, true);
                }
            }
            if refused {
                entry.judged(decision.mode, decision.verdict, decision.rule);
                entry.cut().cut(CutReason::Denied);
            }
        });
    }
}
