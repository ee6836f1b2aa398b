//! `tailrace run`: a program whose connections go through the running gateway.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use super::args::Settings;
use super::find::{self, Given};
use super::{exit, tell, words};
use crate::api::StatusAnswer;
use crate::lifecycle::command::CommandLine;
use crate::lifecycle::run_dir::Listening;
use crate::wrap::{self, Gateway, Tell};

/// Beyond the gateway's own limit for a connection, for its answer to arrive.
const GRACE: Duration = Duration::from_secs(2);
/// When the gateway's settings are not ours to read: more than any sound `upstream.connect_timeout`.
const LONG: Duration = Duration::from_secs(60);

pub(super) fn run(settings: &Settings, explain: bool, command: Vec<OsString>) -> ExitCode {
    let mut command = command.into_iter();
    let Some(program) = command.next() else { return ExitCode::from(exit::USAGE) };
    let line = CommandLine { program, arguments: command.collect() };
    let gateway = match gateway(settings) {
        Ok(gateway) => gateway,
        Err(code) => return code,
    };
    let say = |text: &str| tell::error(format_args!("tailrace run: {}", words::plain(text)));
    let explained = |text: &str| {
        if explain {
            say(text);
        }
    };
    // Not the run directory, which may be another user's.
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("tailrace-run-{user}"));
    match wrap::run(&line, gateway, &folder, Tell { warn: &say, explain: &explained }) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell::error(format_args!("tailrace: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The running gateway, as it says itself.
fn gateway(settings: &Settings) -> Result<Gateway, ExitCode> {
    let found = find::gateway(settings).map_err(|problems| find::misconfigured(&problems))?;
    let status = find::object::<StatusAnswer>(&found, "/api/v1/status");
    let Listening { proxy, dns, .. } =
        status.map_err(|why| find::unanswered(&found, &why))?.listeners;
    let limit = Given::new(settings).load().map(|it| it.checked.config.upstream.connect_timeout);
    Ok(Gateway {
        proxy: if proxy.is_empty() { found.proxy } else { proxy },
        admin: found.admin,
        dns: found.dns.or(dns),
        patience: limit.map_or(LONG, |limit| limit + GRACE),
    })
}
