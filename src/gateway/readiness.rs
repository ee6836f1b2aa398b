//! Whether a connection would be carried now, and if not, why, in words for people and programs.
#![forbid(unsafe_code)]

use crate::admin::Readiness;
use crate::connection::House;
use crate::lifecycle::drain::{Drain, Phase};
use crate::lifecycle::ready::Ready;

/// The readiness list's names.
const UPSTREAM: &str = "upstream";
const DRAIN: &str = "drain";

/// Looks at everything a connection needs.
pub(super) fn look(house: &House, drain: &Drain) -> Readiness {
    let ready = Ready::new();
    let serving = drain.phase() == Phase::Serving;
    ready.set(UPSTREAM, house.upstream.is_up());
    ready.set(DRAIN, serving);
    let pending = ready.pending();
    let (error, message) = match pending.is_empty() {
        true => return Readiness::ready(),
        false if !serving => ("draining", "the gateway is shutting down"),
        false => (
            "upstream_down",
            "the upstream cannot be reached: check that it runs where upstream.socks5 points",
        ),
    };
    Readiness { error, message: message.to_owned(), pending }
}
