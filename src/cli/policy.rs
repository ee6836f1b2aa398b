//! `tailrace policy test`: a host's verdict and why, from the settings, without a gateway.
#![forbid(unsafe_code)]

use std::num::NonZeroU16;
use std::process::ExitCode;

use serde_json::json;

use super::args::Settings;
use super::exit;
use super::find::{self, Given};
use crate::gateway;
use crate::policy::Verdict;
use crate::target::Target;

/// The port judged with a host given without one: ports matter only to our own listeners.
const ANY_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// One host's answer.
struct Answer {
    host: String,
    verdict: &'static str,
    rule: String,
    refused: bool,
}

pub(super) fn test(settings: &Settings, hosts: &[String], json: bool) -> ExitCode {
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
    let answers: Vec<Answer> = hosts.iter().map(|host| answer(&judge, host)).collect();
    for answer in &answers {
        print(answer, json);
    }
    let refused = answers.iter().any(|answer| answer.refused);
    if refused { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS }
}

fn answer(judge: &gateway::OfflineJudge, text: &str) -> Answer {
    let target = match Target::typed(text, ANY_PORT) {
        Ok(target) => target,
        Err(error) => {
            let (host, rule) = (text.to_owned(), error.to_string());
            return Answer { host, verdict: "bad_request", rule, refused: true };
        }
    };
    let decision = judge.decide(&target);
    let verdict = decision.policy.as_ref().map(|policy| policy.verdict);
    // What enforcement would refuse counts as refused: that is what one asks this for.
    let refused = decision.permission.is_err() || verdict == Some(Verdict::WouldDeny);
    let rule = decision.policy.and_then(|policy| policy.rule);
    Answer {
        host: decision.effective_target.host.to_string(),
        verdict: verdict.map_or("deny", Verdict::label),
        rule: rule.unwrap_or_else(|| "no rule".to_owned()),
        refused,
    }
}

fn print(answer: &Answer, json: bool) {
    if json {
        let object = json!({"host": answer.host, "verdict": answer.verdict, "rule": answer.rule});
        println!("{object}");
    } else {
        println!("{:<12} {}  ({})", answer.verdict, answer.host, answer.rule);
    }
}
