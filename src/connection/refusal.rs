//! Why a target was not carried: causes of every module become an outcome here, once, by `match`.
#![forbid(unsafe_code)]

use crate::dns::NameError;
use crate::labels::DnsRoute;
use crate::lifecycle::connection_cut::CutReason;
use crate::outcome::Outcome;
use crate::policy::Refused;
use crate::tailnet::TailnetFault;
use crate::target::Target;
use crate::upstream::UpstreamError;

/// An outcome and the one sentence a person can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How the target ends.
    pub outcome: Outcome,
    /// What the client is told, where its protocol has room for it.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into() }
    }

    /// Whether the name's address was not to be found.
    pub(super) fn is_of_dns(&self) -> bool {
        matches!(self.outcome, Outcome::DnsError | Outcome::DnsTimeout)
    }

    pub(crate) fn client_gone() -> Self {
        Self::new(Outcome::ClientGone, "the client left before the far side answered")
    }

    pub(crate) fn draining() -> Self {
        Self::new(Outcome::Draining, "the gateway is shutting down: try again when it is back")
    }

    /// For a target cut before it was reached: by the end of a drain, or by a reload.
    pub(super) fn cut(reason: CutReason, target: &Target) -> Self {
        match reason {
            CutReason::Drained => Self::draining(),
            CutReason::Denied => Self::denied(target, Some("since a reload")),
        }
    }

    pub(crate) fn overloaded() -> Self {
        let message = "too many connections at once: close some, or raise limits.max_connections \
                       or limits.per_client";
        Self::new(Outcome::Overloaded, message)
    }

    pub(crate) fn sni_mismatch(target: &Target, rule: &str) -> Self {
        let message = format!(
            "the TLS in the tunnel to {target} is not allowed by policy ({rule}): connect to the server \
             that is asked for, or have it added to [policy]"
        );
        Self::new(Outcome::SniMismatch, message)
    }

    pub(crate) fn for_proxy() -> Self {
        let message = "this connection was redirected, and asks for a target as of a proxy: send the \
                       path alone, or set the proxy to this gateway";
        Self::new(Outcome::BadRequest, message)
    }

    /// For what was decided against; `rule` is policy's.
    pub(super) fn by_decision(refused: Refused, target: &Target, rule: Option<&str>) -> Self {
        match refused {
            Refused::Loop => Self::new(
                Outcome::Loop,
                format!("{target} is this gateway itself{}: ask for another target", of_rule(rule)),
            ),
            Refused::Denied => Self::denied(target, rule),
            Refused::ServerName => Self::sni_mismatch(target, rule.unwrap_or_default()),
            Refused::UnassignedSynthetic { .. } | Refused::OutsideTailnet { .. } => {
                fault_of_refusal(refused)
                    .as_ref()
                    .map_or_else(|| Self::denied(target, rule), Self::from)
            }
        }
    }

    fn denied(target: &Target, rule: Option<&str>) -> Self {
        let rule = of_rule(rule);
        let message = format!(
            "{target} is not allowed by policy{rule}: ask for another target, or have it added to [policy]"
        );
        Self::new(Outcome::Denied, message)
    }
}

fn of_rule(rule: Option<&str>) -> String {
    rule.map(|rule| format!(" ({rule})")).unwrap_or_default()
}

/// The fault that a decision found, in the words shared with doctor; none where it is policy that refuses.
pub(crate) fn fault_of_refusal(refused: Refused) -> Option<TailnetFault> {
    match refused {
        Refused::Loop | Refused::Denied | Refused::ServerName => None,
        Refused::UnassignedSynthetic { address } => {
            Some(TailnetFault::UnassignedSynthetic { address })
        }
        Refused::OutsideTailnet { address } => Some(TailnetFault::NoRoute { address }),
    }
}

impl From<&TailnetFault> for Refusal {
    fn from(fault: &TailnetFault) -> Self {
        Self::new(fault.outcome(), fault.sentence())
    }
}

/// A name without an address, in the words shared with doctor. `in_a_tailnet`: whether this gateway is in
/// one, whose DNS routes and rules are then what to look at.
pub(crate) fn fault_of_name(error: &NameError, in_a_tailnet: bool) -> TailnetFault {
    match error {
        NameError::NotFound { name, asked, .. } if !in_a_tailnet => {
            TailnetFault::NameUnknownHere { name: name.to_string(), asked: asked.clone() }
        }
        NameError::Timeout { name, asked, after, .. } if !in_a_tailnet => {
            let (name, asked) = (name.to_string(), asked.clone());
            TailnetFault::ResolverSilent { name, asked, after: *after }
        }
        NameError::NotFound { name, route: DnsRoute::Magicdns | DnsRoute::Split, asked } => {
            TailnetFault::NameUnknown { name: name.to_string(), asked: asked.clone() }
        }
        NameError::NotFound { name, asked, .. } => {
            TailnetFault::NoDnsRoute { name: name.to_string(), asked: asked.clone() }
        }
        NameError::Failed { name, asked, why, .. } => {
            let (name, asked, why) = (name.to_string(), asked.clone(), why.clone());
            TailnetFault::NameserverFailed { name, asked, why }
        }
        NameError::Timeout { name, asked, after, .. } => {
            let (name, asked) = (name.to_string(), asked.clone());
            TailnetFault::NameserverSilent { name, asked, after: *after }
        }
        NameError::NoNameserver { name, domain, skipped } => {
            let (name, domain, skipped) = (name.to_string(), domain.to_string(), skipped.clone());
            TailnetFault::NoNameserver { name, domain, skipped }
        }
    }
}

impl From<UpstreamError> for Refusal {
    fn from(error: UpstreamError) -> Self {
        Self::new(error.outcome(), error.to_string())
    }
}
