//! `tailrace status`: the running gateway at a glance.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use serde_json::Value;

use super::args::Settings;
use super::{exit, find};

pub(super) fn run(settings: &Settings, json: bool) -> ExitCode {
    let found = match find::gateway(settings) {
        Ok(found) => found,
        Err(problems) => return find::misconfigured(&problems),
    };
    let answer = match find::get(found.admin, "/api/v1/status") {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return nobody(&found, &format!("it answered {}", answer.status)),
        Err(error) => return nobody(&found, &error.to_string()),
    };
    let Ok(status) = serde_json::from_str::<Value>(&answer.body) else {
        return nobody(&found, "it answered no JSON");
    };
    if json {
        println!("{status}");
    } else {
        print_table("", &status);
    }
    ExitCode::SUCCESS
}

fn nobody(found: &find::Found, why: &str) -> ExitCode {
    eprintln!(
        "tailrace: no gateway answers at {}: {why}; start one with `tailrace up`, or name its settings with --config",
        found.admin
    );
    ExitCode::from(exit::NO_GATEWAY)
}

/// One line per value, nested names joined by dots.
fn print_table(prefix: &str, value: &Value) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(_) => print_table(&name, value),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                println!("{name:<28} {}", items.join(" "));
            }
            _ => println!("{name:<28} {}", plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
