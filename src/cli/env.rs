//! `tailrace env`: the proxy environment, ready for `eval`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::args::{Settings, Shell};
use super::{exit, gateway_discovery};
use crate::config::Key;
use crate::lifecycle::environment::{self, Ours, Variable};

pub(super) fn run(settings: &Settings, shell: Shell) -> ExitCode {
    let found = match gateway_discovery::listening(settings) {
        Ok(found) => found,
        Err(problems) => return gateway_discovery::misconfigured(&problems),
    };
    let Some(variables) = environment::variables(&found, &ours(settings)) else {
        eprintln!("tailrace: listen.proxy is empty: name an address there");
        return ExitCode::from(exit::CONFIG);
    };
    print!("{}", text(&variables, shell));
    ExitCode::SUCCESS
}

/// What leads programs to us: what was given by flags, as variables of theirs.
pub(super) fn ours(settings: &Settings) -> Ours {
    let file = settings.config.as_ref().and_then(|file| std::path::absolute(file).ok());
    let file = file.and_then(|file| file.into_os_string().into_string().ok());
    let mut given: Vec<_> = file.map(|file| ("TAILRACE_CONFIG", file)).into_iter().collect();
    let run_dir = settings.set.iter().rev().find_map(|set| {
        let (key, value) = set.split_once('=')?;
        (key.trim() == Key::RunDir.path()).then(|| value.trim().to_owned())
    });
    given.extend(run_dir.map(|run_dir| ("TAILRACE_RUN_DIR", run_dir)));
    Ours { program: std::env::current_exe().ok(), settings: given }
}

fn text(variables: &[Variable], shell: Shell) -> String {
    match shell {
        Shell::Sh => variables
            .iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', "'\\''")))
            .collect(),
        Shell::Fish => variables
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                format!("set -gx {name} '{value}'\n")
            })
            .collect(),
        Shell::Json => {
            let object: Map<String, Value> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Value::from(value.clone())))
                .collect();
            format!("{}\n", Value::Object(object))
        }
    }
}
