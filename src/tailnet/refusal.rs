//! What a login that does not succeed says, read for what it means: `ErrMessage` where the control server
//! refused, `Health` where it was not reached (tailscale, control/controlclient/direct.go and health/warnings.go).
#![forbid(unsafe_code)]

use super::explain::{KeyRefusal, TailnetFault};
use super::state::TailnetPhase;

/// How the warning `login-state` begins, which `status` tells without its code (health/warnings.go).
pub(super) const LOGGED_OUT: &str = "You are logged out.";

/// Before the words that matter in the warning `login-state` (health/warnings.go).
const LAST_ERROR: &str = "The last login error was: ";

/// Words of the way to the control server, never of the control server itself.
const OF_THE_WAY: [&str; 14] = [
    "dial tcp",
    "lookup ",
    "connection refused",
    "connection reset",
    "no such host",
    "timeout",
    "deadline exceeded",
    "tls:",
    "x509:",
    "certificate",
    "no route to host",
    "unreachable",
    "proxyconnect",
    "eof",
];

/// What an `ErrMessage` of the bus says; the control server's own words.
pub(super) fn of_message(said: &str) -> (TailnetPhase, TailnetFault) {
    let lower = said.to_ascii_lowercase();
    if lower.contains("rate limited") {
        return (TailnetPhase::RateLimited, TailnetFault::RateLimited { wait: retry_wait(said) });
    }
    if lower.contains("requires logging to be enabled") {
        return (TailnetPhase::Stopped, TailnetFault::LogsRequired);
    }
    let refusal = KeyRefusal::of(said);
    (
        TailnetPhase::AuthFailed,
        TailnetFault::KeyRefused { refusal, said: crate::secret::redacted(said).into() },
    )
}

/// What the health warning `login-state` says, where it says more than "logged out".
pub(super) fn of_warning(text: &str, server: &str) -> Option<(TailnetPhase, TailnetFault)> {
    let (_, said) = text.split_once(LAST_ERROR)?;
    let lower = said.to_ascii_lowercase();
    let of_the_way = OF_THE_WAY.iter().any(|words| lower.contains(words));
    let refused = lower.contains("http 401") || lower.contains("http 403");
    if !of_the_way && (refused || KeyRefusal::of(said) != KeyRefusal::Other) {
        return Some(of_message(said));
    }
    let why = crate::secret::redacted(said).into();
    Some((TailnetPhase::Unreachable, TailnetFault::Control { server: server.to_owned(), why }))
}

/// The duration behind "will retry after".
fn retry_wait(said: &str) -> Option<String> {
    let (_, after) = said.split_once("retry after ")?;
    let wait: String =
        after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let wait = wait.trim_end_matches('.');
    (!wait.is_empty()).then(|| wait.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(said: &str) -> KeyRefusal {
        match of_message(said) {
            (TailnetPhase::AuthFailed, TailnetFault::KeyRefused { refusal, .. }) => refusal,
            other => panic!("{said}: {other:?}"),
        }
    }

    #[test]
    fn t5_what_control_servers_say_of_keys() {
        use KeyRefusal::{Expired, Invalid, Tags, UsedUp};
        for (said, expected) in [
            ("invalid key: API key does not exist", Invalid),
            ("invalid key: unable to validate API key", Invalid),
            ("invalid key: API key kABC not valid", UsedUp),
            ("handling register with auth key: failed to parse auth-key: expected prefix", Invalid),
            ("invalid pre auth key", Invalid),
            ("authkey expired", Expired),
            ("authkey already used", UsedUp),
            ("requested tags [tag:x] are invalid or not permitted", Tags),
            ("something nobody has seen", KeyRefusal::Other),
        ] {
            assert_eq!(refusal(said), expected, "{said}");
        }
    }

    #[test]
    fn t5_a_rate_limit_tells_the_wait() {
        let said = "node registration rate limited; will retry after 1m17s";
        let wait = Some("1m17s".to_owned());
        assert_eq!(
            of_message(said),
            (TailnetPhase::RateLimited, TailnetFault::RateLimited { wait })
        );
    }

    #[test]
    fn the_way_to_the_control_server_is_told_from_its_words() {
        let text = |said: &str| format!("You are logged out. The last login error was: {said}");
        for said in [
            "fetch control key: Get \"https://c/key?v=1\": dial tcp 10.0.0.1:443: connect: connection refused",
            "register request: Post \"https://c\": x509: certificate has expired",
        ] {
            let (phase, fault) = of_warning(&text(said), "https://c").unwrap();
            assert_eq!(phase, TailnetPhase::Unreachable, "{said}");
            assert!(fault.sentence().contains("https://c cannot be reached"), "{fault:?}");
        }
        let old = of_warning(&text("register request: http 401: no"), "https://c").unwrap();
        assert_eq!(old.0, TailnetPhase::AuthFailed);
        assert_eq!(of_warning("You are logged out.", "https://c"), None);
    }

    #[test]
    fn k3_a_key_in_the_words_is_made_unreadable() {
        let (_, fault) = of_message("invalid key: API key tskey-auth-CANARY not valid");
        assert!(!fault.sentence().contains("CANARY"), "{fault:?}");
    }
}
