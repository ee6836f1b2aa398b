//! `tailrace doctor`: walks every link of the chain and says of the first broken one why, and what
//! to do.
//!
//! It asks the running gateway, then goes through it as any client would. The words of faults are the
//! gateway's own.
#![forbid(unsafe_code)]

mod advice;
mod binary;
mod membership;
mod reach;
mod redirected;
mod tls;

use std::num::NonZeroU16;
use std::process::ExitCode;

use serde::Serialize;

use super::args::Settings;
use super::find::{self, Found, Given, Unanswered};
use super::words::{self, plain};
use super::{exit, explain};
use crate::api::{FaultAnswer, NotReadyAnswer, StatusAnswer, UpstreamAnswer};
use crate::config::Problems;
use crate::labels::{ChainLink, Symptom};
use crate::tailnet::explain::TailnetFault;
use crate::target::Target;

/// The port of a target given without one.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// One link of the chain: how it holds, or why it is broken.
#[derive(Debug)]
struct Link {
    name: ChainLink,
    state: Result<String, FaultAnswer>,
}

pub(super) fn run(settings: &Settings, target: Option<&str>, json: bool) -> ExitCode {
    let typed = |text| Target::parse_typed(text, DEFAULT_PORT);
    let target = match target.map(typed).transpose() {
        Ok(target) => target,
        Err(error) => {
            eprintln!("tailrace: {error}");
            return ExitCode::from(exit::USAGE);
        }
    };
    let examined = find::gateway(settings).and_then(|found| {
        let given = Given::new(settings);
        match find::object::<StatusAnswer>(&found, "/api/v1/status?peers=true") {
            Ok(status) => Ok((examine(&found, &given, &status, target.as_ref()), exit::FAILED)),
            Err(Unanswered::Nobody(why) | Unanswered::Refused(why)) => {
                Ok((without_gateway(&found, &given, why)?, exit::NO_GATEWAY))
            }
        }
    });
    let (links, code) = match examined {
        Ok(examined) => examined,
        Err(problems) => return find::misconfigured(&problems),
    };
    print(&links, json);
    let broken = links.iter().any(|link| link.state.is_err());
    if broken { ExitCode::from(code) } else { ExitCode::SUCCESS }
}

/// The links in their order, up to the first broken one.
fn examine(
    found: &Found,
    given: &Given,
    status: &StatusAnswer,
    target: Option<&Target>,
) -> Vec<Link> {
    let StatusAnswer { version, pid, .. } = status;
    let version = plain(version);
    let version = format!("version {version}, process {pid}; TCP only, UDP is not carried");
    let mut links = vec![Link { name: ChainLink::Gateway, state: Ok(version) }];
    links.extend(match &status.tailnet {
        Some(tailnet) => membership::links(tailnet, || binary::of(given)),
        None => vec![upstream(found, &status.upstream)],
    });
    let whole = links.iter().all(|link| link.state.is_ok());
    links.extend(whole.then(|| redirected::link(found)).flatten());
    if let (true, Some(target)) = (whole, target) {
        let asked = find::object(found, &explain::explain_path(&target.to_string()));
        links.extend(reach::links(found, target, asked));
    }
    links
}

/// The links up to the first broken one: `broken` names it, the others hold as `held` says.
fn up_to(
    held: impl IntoIterator<Item = (ChainLink, String)>,
    mut broken: Option<(ChainLink, FaultAnswer)>,
) -> Vec<Link> {
    let mut links = Vec::new();
    for (name, detail) in held {
        match broken.take_if(|(at, _)| *at == name) {
            Some((name, advice)) => {
                links.push(Link { name, state: Err(advice) });
                break;
            }
            None => links.push(Link { name, state: Ok(detail) }),
        }
    }
    links
}

/// Where there is no tailnet of ours, the upstream stands in for it.
fn upstream(found: &Found, upstream: &UpstreamAnswer) -> Link {
    let address = upstream.address.as_ref().map(|address| format!(" {}", plain(address)));
    let state = match upstream.up {
        true => Ok(format!("{}{}", upstream.kind, address.unwrap_or_default())),
        false => Err(advice::of_sentence(Symptom::UpstreamUnreachable, &readiness(found))),
    };
    Link { name: ChainLink::Upstream, state }
}

/// What `/readyz` says is missing.
fn readiness(found: &Found) -> String {
    let answer = find::get(found.admin, "/readyz").map(|answer| answer.body).unwrap_or_default();
    match serde_json::from_str(&answer) {
        Ok(NotReadyAnswer { message, .. }) => message,
        Err(_) => "the upstream cannot be reached".to_owned(),
    }
}

/// Nothing answers: then whether it could be started.
fn without_gateway(found: &Found, given: &Given, why: String) -> Result<Vec<Link>, Problems> {
    let loaded = given.load()?;
    let fault = TailnetFault::NoGateway { admin: found.admin, why };
    let mut advice = fault.advice();
    let Some(binary) = binary::wanted(&loaded) else {
        advice.symptom = Symptom::NoGateway; // nor will one join a tailnet
        return Ok(vec![Link { name: ChainLink::Gateway, state: Err(advice) }]);
    };
    let gateway = Link { name: ChainLink::Gateway, state: Err(advice) };
    Ok(vec![gateway, Link { name: ChainLink::Binary, state: binary::check(&binary) }])
}

fn print(links: &[Link], json: bool) {
    if json {
        println!("{}", as_json(links));
        return;
    }
    for Link { name, state } in links {
        match state {
            Ok(detail) => println!("ok      {name:<9} {}", plain(detail)),
            Err(advice) => {
                println!("broken  {name:<9} {}", advice.symptom);
                println!("{:>17} {}", "cause:", plain(&advice.cause));
                println!("{:>17} {}", "fix:", plain(&advice.fix));
            }
        }
    }
}

/// One link as `--json` prints it.
#[derive(Serialize)]
struct LinkRow<'a> {
    name: ChainLink,
    ok: bool,
    /// How it holds, or the cause that it does not.
    detail: &'a str,
    advice: Option<&'a FaultAnswer>,
}

impl<'a> From<&'a Link> for LinkRow<'a> {
    fn from(Link { name, state }: &'a Link) -> Self {
        let detail = state.as_ref().unwrap_or_else(|advice| &advice.cause);
        Self { name: *name, ok: state.is_ok(), detail, advice: state.as_ref().err() }
    }
}

/// A list with the keys in alphabetical order.
fn as_json(links: &[Link]) -> serde_json::Value {
    links.iter().map(|link| serde_json::json!(LinkRow::from(link))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_walk_ends_at_the_first_broken_link() {
        let held = [ChainLink::Dns, ChainLink::Policy, ChainLink::Route];
        let held = held.map(|link| (link, "1".to_owned()));
        assert_eq!(up_to(held.clone(), None).len(), 3);
        let broken = advice::of_sentence(Symptom::HostUnreachable, "why: do it");
        let told = as_json(&up_to(held, Some((ChainLink::Policy, broken))));
        assert_eq!(told[0], json!({"name": "dns", "ok": true, "detail": "1", "advice": null}));
        let advice = json!({"symptom": "joined, but the host is not reachable", "cause": "why", "fix": "do it"});
        assert_eq!(
            told[1],
            json!({"name": "policy", "ok": false, "detail": "why", "advice": advice})
        );
        assert_eq!(told.as_array().unwrap().len(), 2);
    }
}
