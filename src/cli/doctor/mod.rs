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

use serde_json::{Value, json};

use self::advice::Advice;
use super::args::Settings;
use super::find::{self, Found, Given, Unanswered};
use super::words::{self, plain};
use super::{exit, explain};
use crate::config::Problems;
use crate::tailnet::explain::TailnetFault;
use crate::target::Target;

/// The port of a target given without one.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// One link of the chain: how it holds, or why it is broken.
#[derive(Debug)]
struct Link {
    name: &'static str,
    state: Result<String, Advice>,
}

pub(super) fn run(settings: &Settings, target: Option<&str>, json: bool) -> ExitCode {
    let typed = |text| Target::typed(text, DEFAULT_PORT);
    let target = match target.map(typed).transpose() {
        Ok(target) => target,
        Err(error) => {
            eprintln!("tailrace: {error}");
            return ExitCode::from(exit::USAGE);
        }
    };
    let examined = find::gateway(settings).and_then(|found| {
        let given = Given::new(settings);
        match find::object(&found, "/api/v1/status?peers=true") {
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
fn examine(found: &Found, given: &Given, status: &Value, target: Option<&Target>) -> Vec<Link> {
    let version = words::of(&status["version"]);
    let version =
        format!("version {version}, process {}; TCP only, UDP is not carried", status["pid"]);
    let mut links = vec![Link { name: "gateway", state: Ok(version) }];
    links.extend(match status["tailnet"].is_object() {
        true => membership::links(&status["tailnet"], || binary::of(given)),
        false => vec![upstream(found, &status["upstream"])],
    });
    let whole = links.iter().all(|link| link.state.is_ok());
    links.extend(whole.then(|| redirected::link(found)).flatten());
    if let (true, Some(target)) = (whole, target) {
        let asked = find::object(found, &explain::path(&target.to_string()));
        links.extend(reach::links(found, target, asked));
    }
    links
}

/// The links up to the first broken one: `broken` names it, the others hold as `held` says.
fn up_to(
    held: impl IntoIterator<Item = (&'static str, String)>,
    mut broken: Option<(&'static str, Advice)>,
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
fn upstream(found: &Found, upstream: &Value) -> Link {
    let detail = format!("{} {}", words::of(&upstream["kind"]), words::of(&upstream["address"]));
    let state = match upstream["up"] == true {
        true => Ok(detail.replace(" -", "")),
        false => Err(Advice::of_sentence(advice::UPSTREAM, &readiness(found))),
    };
    Link { name: "upstream", state }
}

/// What `/readyz` says is missing.
fn readiness(found: &Found) -> String {
    let answer = find::get(found.admin, "/readyz").map(|answer| answer.body).unwrap_or_default();
    let body: Value = serde_json::from_str(&answer).unwrap_or_default();
    body["message"].as_str().unwrap_or("the upstream cannot be reached").to_owned()
}

/// Nothing answers: then whether it could be started.
fn without_gateway(found: &Found, given: &Given, why: String) -> Result<Vec<Link>, Problems> {
    let loaded = given.load()?;
    let fault = TailnetFault::NoGateway { admin: found.admin, why };
    let mut advice: Advice = fault.advice().into();
    let Some(binary) = binary::wanted(&loaded) else {
        advice.symptom = advice::NO_GATEWAY.to_owned(); // nor will one join a tailnet
        return Ok(vec![Link { name: "gateway", state: Err(advice) }]);
    };
    let gateway = Link { name: "gateway", state: Err(advice) };
    Ok(vec![gateway, Link { name: "binary", state: binary::check(&binary) }])
}

fn print(links: &[Link], json: bool) {
    if json {
        println!("{}", links.iter().map(as_json).collect::<Value>());
        return;
    }
    for Link { name, state } in links {
        match state {
            Ok(detail) => println!("ok      {name:<9} {}", plain(detail)),
            Err(advice) => {
                println!("broken  {name:<9} {}", plain(&advice.symptom));
                println!("{:>17} {}", "cause:", plain(&advice.cause));
                println!("{:>17} {}", "fix:", plain(&advice.fix));
            }
        }
    }
}

fn as_json(link: &Link) -> Value {
    match &link.state {
        Ok(detail) => json!({"name": link.name, "ok": true, "detail": detail, "advice": null}),
        Err(Advice { symptom, cause, fix }) => json!({
            "name": link.name, "ok": false, "detail": cause,
            "advice": {"symptom": symptom, "cause": cause, "fix": fix},
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_ends_at_the_first_broken_link() {
        let held = [("a", "1".to_owned()), ("b", "2".to_owned()), ("c", "3".to_owned())];
        assert_eq!(up_to(held.clone(), None).len(), 3);
        let broken = Advice::of_sentence("s", "why: do it");
        let links = up_to(held, Some(("b", broken)));
        let told: Vec<Value> = links.iter().map(as_json).collect();
        assert_eq!(told[0], json!({"name": "a", "ok": true, "detail": "1", "advice": null}));
        let advice = json!({"symptom": "s", "cause": "why", "fix": "do it"});
        assert_eq!(told[1], json!({"name": "b", "ok": false, "detail": "why", "advice": advice}));
        assert_eq!(told.len(), 2);
    }
}
