//! `tailrace connect`: standard input and output through the gateway, for ssh's ProxyCommand, git
//! and socat.
#![forbid(unsafe_code)]

mod pump;

use std::process::ExitCode;

use super::args::Settings;
use super::find::{self, Unanswered};
use super::{exit, tell, tunnel, words};
use crate::lifecycle::environment;
use crate::target::Target;

pub(super) fn run(settings: &Settings, target: &Target) -> ExitCode {
    let found = match find::listening(settings) {
        Ok(found) => found,
        Err(problems) => return find::misconfigured(&problems),
    };
    let Some(proxy) = environment::preferred(&found.proxy) else {
        return find::unanswered(&found, &Unanswered::Nobody("it has no proxy port".to_owned()));
    };
    match tunnel::open(proxy, target, None, None) {
        Ok(Ok(open)) => match pump::run(open.stream, &open.early) {
            Ok(()) => ExitCode::SUCCESS,
            Err(broken) => failed(&format!("{target}: {broken}")),
        },
        Ok(Err(refusal)) => failed(&format!("{} ({})", refusal.message, refusal.error())),
        Err(error) => {
            tell::error(format_args!(
                "tailrace: no gateway answers at {proxy}: {error}; start one with `tailrace up`, or name its settings with --config"
            ));
            ExitCode::from(exit::NO_GATEWAY)
        }
    }
}

fn failed(sentence: &str) -> ExitCode {
    tell::error(format_args!("tailrace: {}", words::plain(sentence)));
    ExitCode::from(exit::FAILED)
}
