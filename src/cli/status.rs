//! `tailrace status`: the running gateway at a glance.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use serde_json::Value;

use super::args::Settings;
use super::{display_text, gateway_discovery};

pub(super) fn run(settings: &Settings, peers: bool, json: bool) -> ExitCode {
    let found = match gateway_discovery::gateway(settings) {
        Ok(found) => found,
        Err(problems) => return gateway_discovery::misconfigured(&problems),
    };
    let path = if peers { "/api/v1/status?peers=true" } else { "/api/v1/status" };
    // Every value is shown, those of a newer gateway too.
    let status = match gateway_discovery::object::<Value>(&found, path) {
        Ok(status) => status,
        Err(why) => return gateway_discovery::unanswered(&found, &why),
    };
    if json {
        println!("{status}");
    } else {
        print_table("", &status);
    }
    ExitCode::SUCCESS
}

/// One line per value, nested names joined by dots; a list of objects is a line for each.
fn print_table(prefix: &str, value: &Value) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(_) => print_table(&name, value),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                items.iter().for_each(|item| println!("{name:<28} {}", row(item)));
            }
            _ => println!("{name:<28} {}", display_text::of(value)),
        }
    }
}

/// The values of an object, those that say nothing by themselves with their name.
fn row(item: &Value) -> String {
    let Value::Object(map) = item else { return display_text::of(item) };
    let word = |(key, value): (&String, &Value)| match value {
        Value::Bool(true) => Some(key.clone()),
        Value::Bool(false) => Some(format!("not {key}")),
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(_) if key != "addresses" => Some(format!("{key} {}", display_text::of(value))),
        _ => Some(display_text::of(value)),
    };
    map.iter().filter_map(word).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_peer_is_one_line() {
        let peer = json!({"name": "svc.lab.ts.net", "host": "svc", "addresses": ["100.64.0.1"],
                          "routes": ["10.50.0.0/24"], "online": true});
        let line = row(&peer);
        for part in ["svc.lab.ts.net", "100.64.0.1", "routes 10.50.0.0/24", "online"] {
            assert!(line.contains(part) && !line.contains("not online"), "{line}");
        }
        assert!(row(&json!({"online": false, "routes": [], "host": null})) == "not online");
    }
}
