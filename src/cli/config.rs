//! `tailrace config check` and `config show`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::args::Settings;
use super::gateway_discovery::{self, Given};
use crate::config::{self, Origin};
use crate::target::Forward;

pub(super) fn check(settings: Settings, file: Option<PathBuf>) -> ExitCode {
    let settings = Settings { config: file.or(settings.config), ..settings };
    let given = Given::new(&settings);
    match given.load() {
        Ok(loaded) => {
            for notice in &loaded.checked.notices {
                eprintln!("{notice}");
            }
            match &loaded.file {
                Some(file) => println!("{}: sound", file.display()),
                None => println!("no file, the settings are sound"),
            }
            ExitCode::SUCCESS
        }
        Err(problems) => gateway_discovery::misconfigured(&problems),
    }
}

pub(super) fn show(settings: &Settings, json: bool) -> ExitCode {
    let given = Given::new(settings);
    match given.load() {
        Ok(loaded) => {
            let (written, config) = (&loaded.written, &loaded.checked.config);
            let shown = config::shown(written, config);
            let forwards: Vec<_> = config::shown_forwards(written, config).collect();
            if json {
                print_json(&shown, &forwards)
            } else {
                print_text(&shown, &forwards)
            }
            ExitCode::SUCCESS
        }
        Err(problems) => gateway_discovery::misconfigured(&problems),
    }
}

fn print_text(shown: &[config::Shown], forwards: &[(&Forward, &Origin)]) {
    for one in shown {
        println!("{} = {}  # {}", one.key.path(), one.value, one.origin);
    }
    for (Forward { listen, target }, origin) in forwards {
        println!("[[forward]]  # {origin}\nlisten = \"{listen}\"\ntarget = \"{target}\"");
    }
}

fn print_json(shown: &[config::Shown], forwards: &[(&Forward, &Origin)]) {
    let mut object: serde_json::Map<String, serde_json::Value> = shown
        .iter()
        .map(|one| {
            let row = json!({"value": one.value, "origin": one.origin.to_string()});
            (one.key.path().to_owned(), row)
        })
        .collect();
    if !forwards.is_empty() {
        let row = |(forward, origin): &(&Forward, &Origin)| json!({"value": forward, "origin": origin.to_string()});
        object.insert("forward".to_owned(), forwards.iter().map(row).collect());
    }
    println!("{}", serde_json::Value::Object(object));
}
