//! `tailrace env`: the proxy environment, ready for `eval`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::args::{Settings, Shell};
use super::{exit, find};
use crate::lifecycle::environment;

pub(super) fn run(settings: &Settings, shell: Shell) -> ExitCode {
    let found = match find::gateway(settings) {
        Ok(found) => found,
        Err(problems) => return find::misconfigured(&problems),
    };
    let Some(proxy) = environment::preferred(&found.proxy) else {
        eprintln!("tailrace: listen.proxy is empty: name an address there");
        return ExitCode::from(exit::CONFIG);
    };
    print!("{}", text(&environment::proxied(proxy), shell));
    ExitCode::SUCCESS
}

fn text(variables: &[(&'static str, String)], shell: Shell) -> String {
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
