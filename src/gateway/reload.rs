//! New settings for a running gateway: swapped whole, and live connections are judged again.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Gateway, StartError, build_modules};
use crate::config::Config;
use crate::lifecycle::connection_cut::CutReason;
use crate::policy::{self, AskedTarget, DecisionContext, PolicyVerdict, Verdict};
use crate::target::Target;

impl Gateway {
    /// Takes over `policy`, `limits`, `dns` and `relay` of `config`; live connections that the new
    /// policy refuses are cut with a reset both ways.
    ///
    /// # Errors
    /// [`StartError::Policy`]; then everything stays as it was.
    pub fn reload(&mut self, config: Config) -> Result<(), StartError> {
        let policy = build_modules::policy(&config.policy)?;
        self.gateway_state.policy.store(Arc::new(policy));
        self.gateway_state.resolver.store(Arc::new(self.naming.names(&config.dns)));
        self.gateway_state.synthetic_addresses.store(build_modules::synthetic(
            &config.dns,
            self.gateway_state.synthetic_addresses.load_full(),
        ));
        self.live.splice.store(config.relay.splice, Ordering::Relaxed);
        self.gateway_state.limits.store(Arc::new(self.live.limits(&config)));
        let most = build_modules::fitting(config.limits.max_connections, self.descriptors.after);
        self.limits.set(most, config.limits.per_client);
        self.gateway_state.telemetry.access_log().reload(&config.log)?;
        self.config = config;
        self.judge_again();
        if let Some(membership) = &self.membership {
            membership.key_changed();
        }
        Ok(())
    }

    /// What was allowed yesterday is asked again today (docs/requirements.md, B24).
    fn judge_again(&self) {
        self.gateway_state.telemetry.live_connections().for_each(|entry| {
            // Between two requests nothing is carried, and the next one may be for somebody else.
            let Some(target) = entry.target().filter(|_| !entry.is_finished()) else { return };
            let snapshot = self.gateway_state.decision_snapshot();
            if let Some(refused) =
                refused_now(&target, entry.address(), &snapshot.decision_context())
            {
                entry.set_verdict(refused.mode, refused.verdict, refused.rule);
                entry.cut().cut(CutReason::Denied);
            }
        });
    }
}

/// What policy says of a live connection, if it refuses it now: of its target, which may be caught before it was
/// decided what that means, or of the address it leads to.
fn refused_now(
    target: &Target,
    address: Option<SocketAddr>,
    context: &DecisionContext<'_>,
) -> Option<PolicyVerdict> {
    let decision = policy::decide(&AskedTarget::unconnected(target), context);
    match (decision.permission, address) {
        (Err(_), _) => decision.policy,
        (Ok(admitted), Some(address)) => {
            let decision = policy::decide_address(&admitted, address.ip(), context);
            (decision.policy.verdict == Verdict::Deny).then_some(decision.policy)
        }
        (Ok(_), None) => None,
    }
}
