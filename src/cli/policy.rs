//! `tailrace policy test`: a host's verdict and why, from the settings, without a gateway.
#![forbid(unsafe_code)]

use std::num::NonZeroU16;
use std::process::ExitCode;

use serde::Serialize;

use super::args::Settings;
use super::exit;
use super::find::{self, Given};
use crate::gateway;
use crate::outcome::Outcome;
use crate::policy::Verdict;
use crate::target::Target;

/// The port judged with a host given without one: ports matter only to our own listeners.
const ANY_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// What the settings say of one host.
#[derive(Serialize)]
struct HostVerdict {
    host: String,
    rule: String,
    /// A verdict's word; an outcome's where the host is none.
    verdict: &'static str,
    #[serde(skip)]
    refused: bool,
}

pub(super) fn test_hosts(settings: &Settings, hosts: &[String], json: bool) -> ExitCode {
    let given = Given::new(settings);
    let loaded = match given.load() {
        Ok(loaded) => loaded,
        Err(problems) => return find::misconfigured(&problems),
    };
    let judge = match gateway::OfflineJudge::new(&loaded.checked.config) {
        Ok(judge) => judge,
        Err(error) => {
            eprintln!("tailrace: {error}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    let answers: Vec<HostVerdict> = hosts.iter().map(|host| judge_host(&judge, host)).collect();
    for answer in &answers {
        print_verdict(answer, json);
    }
    let refused = answers.iter().any(|answer| answer.refused);
    if refused { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS }
}

fn judge_host(judge: &gateway::OfflineJudge, text: &str) -> HostVerdict {
    let target = match Target::parse_typed(text, ANY_PORT) {
        Ok(target) => target,
        Err(error) => {
            let (host, rule) = (text.to_owned(), error.to_string());
            let verdict = Outcome::BadRequest.label();
            return HostVerdict { host, rule, verdict, refused: true };
        }
    };
    let decision = judge.decide_target(&target);
    let verdict = decision.policy.as_ref().map(|policy| policy.verdict);
    // What enforcement would refuse counts as refused: that is what one asks this for.
    let refused = decision.permission.is_err() || verdict == Some(Verdict::WouldDeny);
    let rule = decision.policy.and_then(|policy| policy.rule);
    HostVerdict {
        host: decision.effective_target.host.to_string(),
        verdict: verdict.unwrap_or(Verdict::Deny).label(),
        rule: rule.unwrap_or_else(|| "no rule".to_owned()),
        refused,
    }
}

fn print_verdict(answer: &HostVerdict, json: bool) {
    if json {
        println!("{}", serde_json::json!(answer));
    } else {
        println!("{:<12} {}  ({})", answer.verdict, answer.host, answer.rule);
    }
}
