//! `tailrace connect`: standard input and output through the gateway, for ssh's ProxyCommand, git
//! and socat.
#![forbid(unsafe_code)]

mod pump;

use std::process::ExitCode;

use super::args::Settings;
use super::gateway_discovery::{self, Unanswered};
use super::{connect_tunnel, display_text, exit, line_output};
use crate::lifecycle::environment;
use crate::target::Target;

pub(super) fn run(settings: &Settings, target: &Target) -> ExitCode {
    let found = match gateway_discovery::listening(settings) {
        Ok(found) => found,
        Err(problems) => return gateway_discovery::misconfigured(&problems),
    };
    let Some(proxy) = environment::preferred(&found.proxy) else {
        return gateway_discovery::unanswered(
            &found,
            &Unanswered::Nobody("it has no proxy port".to_owned()),
        );
    };
    match connect_tunnel::open(proxy, target, None, None) {
        Ok(Ok(open)) => match pump::run(open.stream, &open.early) {
            Ok(()) => ExitCode::SUCCESS,
            Err(broken) => failed(&format!("{target}: {broken}")),
        },
        Ok(Err(refusal)) => failed(&format!("{} ({})", refusal.message, refusal.error())),
        Err(error) => {
            line_output::error(format_args!(
                "tailrace: no gateway answers at {proxy}: {error}; start one with `tailrace up`, or name its settings with --config"
            ));
            ExitCode::from(exit::NO_GATEWAY)
        }
    }
}

fn failed(sentence: &str) -> ExitCode {
    line_output::error(format_args!("tailrace: {}", display_text::plain(sentence)));
    ExitCode::from(exit::FAILED)
}
