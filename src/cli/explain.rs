//! `tailrace explain`: the decision about one target, in slow motion.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use super::args::Settings;
use super::find;
use super::words::{or_dash, plain};
use crate::api::{AddressAnswer, ClientAnswer, DecisionAnswer, DnsAnswer, ExplainAnswer};
use crate::labels::{PolicyMode, Verdict};

pub(super) fn run(settings: &Settings, target: &str, json: bool) -> ExitCode {
    let found = match find::gateway(settings) {
        Ok(found) => found,
        Err(problems) => return find::misconfigured(&problems),
    };
    let path = explain_path(target);
    let told = match json {
        true => find::object(&found, &path).map(|told: serde_json::Value| vec![told.to_string()]),
        false => find::object(&found, &path).map(|told| explain_lines(&told)),
    };
    match told {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(why) => return find::unanswered(&found, &why),
    }
    ExitCode::SUCCESS
}

/// The question for one target.
pub(super) fn explain_path(target: &str) -> String {
    format!("/api/v1/explain?target={}", find::in_a_query(target))
}

fn explain_lines(told: &ExplainAnswer) -> Vec<String> {
    let line = |(name, text): &(&str, String)| format!("{name:<10} {text}");
    labelled_lines(told).iter().map(line).collect()
}

/// What is to be read, top to bottom, in the order of the decision.
fn labelled_lines(told: &ExplainAnswer) -> Vec<(&'static str, String)> {
    let mut lines = vec![("target", plain(&told.target)), ("policy", policy_words(told))];
    if let Some(dns) = &told.dns {
        lines.push(("dns", dns_words(dns)));
        let skipped = |one: &String| ("", format!("{}: a form that is not asked", plain(one)));
        lines.extend(dns.skipped.iter().map(skipped));
    }
    lines.extend(told.addresses.iter().map(|address| ("address", address_words(address))));
    lines.extend(told.tailnet.map(|tailnet| ("tailnet", tailnet.state.to_string())));
    lines.extend(told.clients.iter().map(|client| ("used by", client_words(client))));
    if let Some(fault) = &told.fault {
        lines.push(("symptom", fault.symptom.to_string()));
        lines.extend([("cause", plain(&fault.cause)), ("fix", plain(&fault.fix))]);
    }
    lines
}

fn policy_words(told: &ExplainAnswer) -> String {
    let DecisionAnswer { mode, verdict, rule } = &told.policy;
    let rule = rule.as_ref().map(|rule| format!(" ({})", plain(rule))).unwrap_or_default();
    let refused = if told.refused { "; refused" } else { "" };
    let (verdict, mode) =
        (or_dash(verdict.map(Verdict::label)), or_dash(mode.map(PolicyMode::label)));
    format!("{verdict}{rule}, mode {mode}{refused}")
}

/// By which route a name was asked, of whom, and what came back.
pub(super) fn dns_words(dns: &DnsAnswer) -> String {
    let mut text = dns.route.to_string();
    if let Some(suffix) = &dns.suffix {
        text += &format!(" route of {}", plain(suffix));
    }
    if !dns.nameservers.is_empty() {
        text += &format!(", asked {}", plain(&dns.nameservers.join(" ")));
    }
    text += &format!(", {} ms", dns.took_ms);
    match &dns.error {
        Some(error) => text + ": " + &plain(error),
        None => text,
    }
}

/// Where an address leads, and what policy says of it.
pub(super) fn address_words(row: &AddressAnswer) -> String {
    let mut text = format!("{}  {}", row.address, row.verdict);
    if let Some(rule) = &row.rule {
        text += &format!(" ({})", plain(rule));
    }
    if let Some(route) = row.route {
        text += &format!("  {route}");
    }
    if let Some(peer) = &row.peer {
        let net = row.net.map(|net| format!(" ({net})")).unwrap_or_default();
        text += &format!(" by {}{net}", plain(peer));
    }
    match row.online {
        Some(true) => text + ", online",
        Some(false) => text + ", offline",
        None => text,
    }
}

/// A program that has connections to the target open now.
fn client_words(client: &ClientAnswer) -> String {
    let who = match &client.process {
        Some(process) => {
            let (name, started) = (plain(&process.name), plain(&process.started));
            format!("{name} (pid {}, since {started})", process.pid)
        }
        None => "clients not known".to_owned(),
    };
    match client.connections {
        1 => format!("{who}, 1 connection"),
        more => format!("{who}, {more} connections"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn a_split_name_told_line_by_line() {
        let told = samples::explanation();
        let said: Vec<String> =
            labelled_lines(&told).iter().map(|(name, text)| format!("{name}: {text}")).collect();
        let wanted = [
            "target: grafana.corp.example:8080",
            "policy: would_deny (no allowed suffix or glob), mode log",
            "dns: split route of corp.example, asked 100.64.0.1:53, 4 ms",
            ": tls://1.1.1.1: a form that is not asked",
            "address: 100.64.0.1  allow  tailnet by svc (100.64.0.1/32), offline",
            "tailnet: running",
            "used by: psql (pid 7, since 2025-01-02T03:04:05.60Z), 2 connections",
            "used by: clients not known, 1 connection",
            "symptom: joined, but the host is not reachable",
            "cause: svc is offline",
            "fix: start it",
        ];
        assert_eq!(said, wanted);
    }
}
