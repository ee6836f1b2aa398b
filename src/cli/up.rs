//! `tailrace up`: the gateway itself, until a signal ends it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use super::args::Settings;
use super::exit;
use super::find::{self, Given};
use crate::config::{self, Config};
use crate::gateway;
use crate::record::{Book, log};

pub(super) fn run(settings: &Settings) -> ExitCode {
    let given = Given::new(settings);
    let loaded = match given.load() {
        Ok(loaded) => loaded,
        Err(problems) => return find::misconfigured(&problems),
    };
    let (access, writer) = match log::open(&loaded.checked.config.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("config: {}: {error}", loaded.written.origin("log.to"));
            return ExitCode::from(exit::CONFIG);
        }
    };
    log::install(&access);
    for notice in &loaded.checked.notices {
        tracing::warn!("{notice}");
    }
    let book = Book::new(access);
    let again = |running: &Config| again(&given, running);
    let ended = gateway::run(loaded.checked.config, std::sync::Arc::clone(&book), None, &again);
    let code = match ended {
        Ok(code) => code,
        Err(error) => {
            match error.key() {
                Some(key) => eprintln!("config: {}: {error}", loaded.written.origin(key)),
                None => eprintln!("tailrace: {error}"),
            }
            ExitCode::from(error.exit_code())
        }
    };
    writer.close(&book.totals(), gateway::LAST_LINES);
    code
}

/// Reads the settings once more, for SIGHUP.
fn again(given: &Given, running: &Config) -> Result<Config, Vec<String>> {
    let fresh = given.load().map_err(|problems| problems.lines())?.checked;
    let config::Reloaded { config, kept } = config::reloaded(running, fresh.config);
    for table in kept {
        tracing::warn!(table, "changed in the settings, but only a restart takes it over");
    }
    for notice in &fresh.notices {
        tracing::warn!("{notice}");
    }
    Ok(config)
}
