//! `tailrace explain`: the decision about one target, in slow motion.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use serde_json::Value;

use super::args::Settings;
use super::find;
use super::words::{self, of};

pub(super) fn run(settings: &Settings, target: &str, json: bool) -> ExitCode {
    let found = match find::gateway(settings) {
        Ok(found) => found,
        Err(problems) => return find::misconfigured(&problems),
    };
    let told = match find::object(&found, &path(target)) {
        Ok(told) => told,
        Err(why) => return find::unanswered(&found, &why),
    };
    if json {
        println!("{told}");
    } else {
        for (name, text) in lines(&told) {
            println!("{name:<10} {text}");
        }
    }
    ExitCode::SUCCESS
}

/// The question for one target.
pub(super) fn path(target: &str) -> String {
    format!("/api/v1/explain?target={}", find::in_a_query(target))
}

/// What is to be read, top to bottom, in the order of the decision.
fn lines(told: &Value) -> Vec<(&'static str, String)> {
    let mut lines = vec![("target", of(&told["target"])), ("policy", of_policy(told))];
    if told["dns"].is_object() {
        lines.push(("dns", of_dns(&told["dns"])));
        let skipped = words::items(&told["dns"]["skipped"]).iter();
        lines.extend(skipped.map(|one| ("", format!("{}: a form that is not asked", of(one)))));
    }
    let addresses = words::items(&told["addresses"]).iter();
    lines.extend(addresses.map(|address| ("address", of_address(address))));
    if told["tailnet"].is_object() {
        lines.push(("tailnet", of(&told["tailnet"]["state"])));
    }
    let clients = words::items(&told["clients"]).iter();
    lines.extend(clients.map(|client| ("used by", of_client(client))));
    let fault = &told["fault"];
    if fault.is_object() {
        let part = |name: &'static str| (name, of(&fault[name]));
        lines.extend([part("symptom"), part("cause"), part("fix")]);
    }
    lines
}

fn of_policy(told: &Value) -> String {
    let policy = &told["policy"];
    let rule = policy["rule"].as_str().map(|rule| format!(" ({})", words::plain(rule)));
    let refused = if told["refused"] == true { "; refused" } else { "" };
    let (verdict, mode) = (of(&policy["verdict"]), of(&policy["mode"]));
    format!("{verdict}{}, mode {mode}{refused}", rule.unwrap_or_default())
}

/// By which route a name was asked, of whom, and what came back.
pub(super) fn of_dns(dns: &Value) -> String {
    let mut text = of(&dns["route"]);
    if let Some(suffix) = dns["suffix"].as_str() {
        text += &format!(" route of {}", words::plain(suffix));
    }
    if !words::items(&dns["nameservers"]).is_empty() {
        text += &format!(", asked {}", of(&dns["nameservers"]));
    }
    if dns["took_ms"].is_number() {
        text += &format!(", {} ms", of(&dns["took_ms"]));
    }
    match dns["error"].as_str() {
        Some(error) => text + ": " + &words::plain(error),
        None => text,
    }
}

/// Where an address leads, and what policy says of it.
pub(super) fn of_address(row: &Value) -> String {
    let mut text = format!("{}  {}", of(&row["address"]), of(&row["verdict"]));
    if let Some(rule) = row["rule"].as_str() {
        text += &format!(" ({})", words::plain(rule));
    }
    if let Some(route) = row["route"].as_str() {
        text += &format!("  {}", words::plain(route));
    }
    if let Some(peer) = row["peer"].as_str() {
        text += &format!(" by {} ({})", words::plain(peer), of(&row["net"]));
    }
    match row["online"].as_bool() {
        Some(true) => text + ", online",
        Some(false) => text + ", offline",
        None => text,
    }
}

/// A program that has connections to the target open now.
fn of_client(client: &Value) -> String {
    let process = &client["process"];
    let who = match process.is_object() {
        true => {
            let (name, pid) = (of(&process["name"]), of(&process["pid"]));
            format!("{name} (pid {pid}, since {})", of(&process["started"]))
        }
        false => "clients not known".to_owned(),
    };
    match client["connections"].as_u64() {
        Some(1) => format!("{who}, 1 connection"),
        _ => format!("{who}, {} connections", of(&client["connections"])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_split_name_told_line_by_line() {
        let told = json!({
            "target": "grafana.corp.example:8080", "asked": "grafana.corp.example:8080",
            "policy": {"mode": "log", "verdict": "would_deny", "rule": "no allowed suffix or glob"},
            "refused": false,
            "dns": {"route": "split", "suffix": "corp.example", "nameservers": ["100.64.0.1:53"],
                    "skipped": ["tls://1.1.1.1"], "addresses": ["100.64.0.1"], "took_ms": 4,
                    "error": null},
            "addresses": [{"address": "100.64.0.1", "verdict": "allow", "rule": null,
                           "route": "tailnet", "peer": "svc", "net": "100.64.0.1/32",
                           "online": false}],
            "tailnet": {"state": "running"},
            "clients": [
                {"process": {"pid": 7, "name": "psql", "started": "2025-01-02T03:04:05.60Z"},
                 "connections": 2},
                {"process": null, "connections": 1},
            ],
            "fault": {"symptom": "s", "cause": "svc is offline", "fix": "start it"},
        });
        let said: Vec<String> =
            lines(&told).iter().map(|(name, text)| format!("{name}: {text}")).collect();
        let wanted = [
            "target: grafana.corp.example:8080",
            "policy: would_deny (no allowed suffix or glob), mode log",
            "dns: split route of corp.example, asked 100.64.0.1:53, 4 ms",
            ": tls://1.1.1.1: a form that is not asked",
            "address: 100.64.0.1  allow  tailnet by svc (100.64.0.1/32), offline",
            "tailnet: running",
            "used by: psql (pid 7, since 2025-01-02T03:04:05.60Z), 2 connections",
            "used by: clients not known, 1 connection",
            "symptom: s",
            "cause: svc is offline",
            "fix: start it",
        ];
        assert_eq!(said, wanted);
    }
}
