//! The closed lists of label values: no series is ever named by a host, an address or an error text.
#![forbid(unsafe_code)]

use crate::outcome::Outcome;

/// `inbound`; the last one is a connection that has not said what it speaks.
pub(super) const INBOUND: [&str; 7] =
    ["socks4", "socks5", "connect", "http", "transparent", "forward", "unknown"];
/// Index of `unknown`.
pub(super) const UNKNOWN: u8 = 6;
/// `direction`.
pub(super) const DIRECTION: [&str; 2] = ["up", "down"];
/// `mode` of a policy decision.
pub(super) const MODE: [&str; 3] = ["off", "log", "enforce"];
/// `verdict` of a policy decision.
pub(super) const VERDICT: [&str; 3] = ["allow", "would_deny", "deny"];
/// `route` of a DNS question.
pub(super) const DNS_ROUTE: [&str; 5] = ["magicdns", "split", "global", "system", "cache"];
/// `result` of a DNS question.
pub(super) const DNS_RESULT: [&str; 5] = ["ok", "error", "nxdomain", "timeout", "refused"];
/// `state` of a pooled upstream connection.
pub(super) const POOL_STATE: [&str; 2] = ["idle", "filling"];
/// `state` of the tailnet.
pub(super) const TAILNET: [&str; 9] = [
    "starting",
    "needs_login",
    "needs_approval",
    "running",
    "stopped",
    "auth_failed",
    "rate_limited",
    "crash_loop",
    "unreachable",
];
/// `cause` of a restart of tailscaled.
pub(super) const RESTART: [&str; 4] = ["exit", "signal", "hang", "oom"];
/// `cause` of a fallback from splice to copy.
pub(super) const FALLBACK: [&str; 4] = ["pipe", "urgent", "error", "off"];
/// `errno` of a failed accept; anything else is the last one.
pub(super) const ERRNO: [&str; 7] =
    ["ECONNABORTED", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EPERM", "other"];
/// `result` of a reload.
pub(super) const RELOAD: [&str; 2] = ["ok", "error"];
/// `stream` of dropped log lines.
pub(super) const STREAM: [&str; 2] = ["access", "child"];

/// Where `value` stands in a closed list; a value that is not of it counts as the last one.
pub(super) fn index(list: &[&str], value: &str) -> usize {
    list.iter().position(|known| *known == value).unwrap_or(list.len() - 1)
}

/// Where an outcome stands in [`Outcome::ALL`].
pub(super) fn outcome_index(outcome: Outcome) -> usize {
    Outcome::ALL.iter().position(|known| *known == outcome).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_index() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome_index(outcome), at);
        }
    }

    #[test]
    fn a_foreign_value_never_makes_a_new_series() {
        assert_eq!(ERRNO[index(&ERRNO, "EWHATEVER")], "other");
        assert_eq!(INBOUND[index(&INBOUND, "a\"} 1\nfake_metric 1")], "unknown");
        assert_eq!(INBOUND[usize::from(UNKNOWN)], "unknown");
    }
}
