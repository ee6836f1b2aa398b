//! `tailrace wait`: returns when a connection would be carried.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::Settings;
use super::{exit, gateway_discovery};
use crate::api::NotReadyAnswer;

/// Pause between two looks at `/readyz`.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run(settings: &Settings, timeout: Duration) -> ExitCode {
    let deadline = Instant::now() + timeout;
    loop {
        let missing = match gateway_discovery::gateway(settings) {
            Ok(found) => missing(&found),
            Err(problems) => return gateway_discovery::misconfigured(&problems),
        };
        let Some(missing) = missing else { return ExitCode::SUCCESS };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            eprintln!("tailrace: not ready: {missing}");
            return ExitCode::from(exit::TRY_AGAIN);
        }
        std::thread::park_timeout(PAUSE.min(left));
    }
}

/// What is missing, in words; nothing when a connection would be carried.
fn missing(found: &gateway_discovery::Found) -> Option<String> {
    let answer = match gateway_discovery::get(found.admin, "/readyz") {
        Ok(answer) if answer.status == 200 => return None,
        Ok(answer) => answer,
        Err(error) => return Some(format!("no gateway answers at {}: {error}", found.admin)),
    };
    match serde_json::from_str(&answer.body) {
        Ok(NotReadyAnswer { error, message, .. }) => Some(format!("{message} ({error})")),
        Err(_) => Some(format!("it answers {} and does not say why", answer.status)),
    }
}
