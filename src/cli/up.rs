//! `tailrace up`: the gateway itself, until a signal ends it, or the program it runs for.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use super::args::Settings;
use super::gateway_discovery::{self, Given};
use super::{exit, key, line_output};
use crate::config::{self, Config, Key, Loaded, LogTo, Origin};
use crate::gateway::{self, ChildCommand, StartError};
use crate::lifecycle::run_dir::RunDir;
use crate::record::log::{AccessLog, AccessWriter};
use crate::record::{Telemetry, log};

/// The gateway's log while a program runs on the same terminal.
const LOG_FILE: &str = "tailrace.log";

pub(super) fn run(settings: &Settings, commanded: Option<&ChildCommand>) -> ExitCode {
    let key = match key::take() {
        Ok(key) => key,
        Err(error) => {
            line_output::error(error);
            return ExitCode::from(exit::CONFIG);
        }
    };
    let given = Given::new(settings);
    let loaded = match load(&given, commanded.is_some()) {
        Ok(loaded) => loaded,
        Err(problems) => return gateway_discovery::misconfigured(&problems),
    };
    let (access, writer) = match open_log(&loaded.checked.config) {
        Ok(log) => log,
        Err(error) => return failed(&loaded.written, &error),
    };
    log::install_subscriber(&access);
    if loaded.checked.config.tailnet.as_ref().is_some_and(|tailnet| tailnet.key.is_some())
        && let Err(error) = crate::sys::harden()
    {
        tracing::warn!(%error, "this process's memory is open to its user: a key passes through it");
    }
    for notice in &loaded.checked.notices {
        tracing::warn!("{notice}");
    }
    let telemetry = Telemetry::new(access);
    let again = |running: &Config| again(&given, commanded.is_some(), running);
    let shared = std::sync::Arc::clone(&telemetry);
    let ended = gateway::run(loaded.checked.config, shared, key, &again, commanded);
    let code = match ended {
        Ok(code) => code,
        Err(error) => failed(&loaded.written, &error),
    };
    telemetry.release_held_lines();
    writer.close_with(&telemetry.counters(), gateway::LAST_LINES);
    code
}

/// Opens the log, and the run directory first where it lies in that.
fn open_log(config: &Config) -> Result<(AccessLog, AccessWriter), StartError> {
    if matches!(&config.log.to, LogTo::File(path) if path.starts_with(&config.run_dir)) {
        RunDir::open(&config.run_dir)?;
    }
    Ok(log::open_log(&config.log)?)
}

/// Says why the gateway did not start, or its program did not.
fn failed(written: &config::RawConfig, error: &StartError) -> ExitCode {
    let forward = error.address().and_then(|address| written.forward_at(address));
    match forward.or_else(|| error.key().map(|key| written.origin(key))) {
        Some(origin) => line_output::error(format_args!("config: {origin}: {error}")),
        None => line_output::error(format_args!("tailrace: {error}")),
    }
    ExitCode::from(error.exit_code())
}

/// The settings. With a program standard error is its own: the log then goes to a file unless told
/// where to.
fn load(given: &Given, with_program: bool) -> Result<Loaded, config::Problems> {
    let mut loaded = given.load()?;
    let config = &mut loaded.checked.config;
    if with_program && loaded.written.origin(Key::LogTo) == Origin::Default {
        config.log.to = LogTo::File(config.run_dir.join(LOG_FILE));
    }
    Ok(loaded)
}

/// Reads the settings once more, for SIGHUP.
fn again(given: &Given, with_program: bool, running: &Config) -> Result<Config, Vec<String>> {
    let fresh = load(given, with_program).map_err(|problems| problems.lines())?.checked;
    let config::Reloaded { config, kept } = config::reloaded(running, fresh.config);
    for table in kept {
        tracing::warn!(table, "changed in the settings, but only a restart takes it over");
    }
    for notice in &fresh.notices {
        tracing::warn!("{notice}");
    }
    Ok(config)
}
