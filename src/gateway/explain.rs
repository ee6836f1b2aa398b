//! The decision in slow motion: what would become of a target, told without dialling it.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Instant;

use serde_json::{Value, json};

use crate::connection::House;
use crate::names::{NameError, Resolved};
use crate::policy::{Admitted, Decision};
use crate::tailnet::Fault;
use crate::target::Target;

/// The port of a target given without one.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(443).unwrap();

/// Reads a target as a person types it.
///
/// # Errors
/// A sentence why it is none.
pub(super) fn target(text: &str) -> Result<Target, String> {
    Target::typed(text, DEFAULT_PORT).map_err(|error| error.to_string())
}

/// The object of `/api/v1/explain`.
pub(super) async fn explain(house: &House, asked: &str, target: &Target) -> Value {
    let (decision, judged) = house.policy.load().judge_host(&house.own.load(), target);
    let mut told = json!({
        "target": target.to_string(),
        "asked": asked,
        "policy": of_policy(&decision),
        "refused": judged.is_err(),
        "dns": null,
        "addresses": [],
        "tailnet": null,
        "fault": null,
    });
    if let Ok(admitted) = judged {
        locate(house, &admitted, &mut told).await;
    }
    told
}

fn of_policy(decision: &Decision) -> Value {
    let (mode, verdict) = (decision.mode.label(), decision.verdict.label());
    json!({"mode": mode, "verdict": verdict, "rule": decision.rule})
}

/// Step 4, told: where the host is, and what policy says of each address.
async fn locate(house: &House, admitted: &Admitted<Target>, told: &mut Value) {
    let started = Instant::now();
    let resolved = house.names.load_full().resolve(admitted).await;
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let dns = |route: &str, addresses: &[IpAddr], error: Option<String>| {
        json!({
            "route": route, "suffix": null, "nameservers": [], "skipped": [],
            "addresses": addresses, "took_ms": took, "error": error,
        })
    };
    match resolved {
        Ok(Resolved::Passed(_)) => told["dns"] = dns("upstream", &[], None),
        Ok(Resolved::Addresses { addresses, by }) => {
            if by != "literal" {
                told["dns"] = dns(by, &addresses, None);
            }
            judge_answers(house, admitted, &addresses, told);
        }
        Err(error) => {
            told["dns"] = dns("system", &[], Some(error.to_string()));
            told["fault"] = of_fault(&fault(&error));
        }
    }
}

fn judge_answers(
    house: &House,
    admitted: &Admitted<Target>,
    addresses: &[IpAddr],
    told: &mut Value,
) {
    let (policy, own) = (house.policy.load(), house.own.load());
    let mut refused = !addresses.is_empty();
    let rows = addresses.iter().map(|ip| {
        let (decision, judged) = policy.judge_address(&own, admitted, *ip);
        refused &= judged.is_err();
        json!({
            "address": ip, "verdict": decision.verdict.label(), "rule": decision.rule,
            "route": house.route, "peer": null, "net": null, "online": null,
        })
    });
    told["addresses"] = rows.collect();
    told["refused"] = refused.into();
}

/// Why this host's own resolver has no address for a name.
fn fault(error: &NameError) -> Fault {
    let asked = "this host's resolver".to_owned();
    match error.clone() {
        NameError::NotFound { name } => Fault::NameUnknown { name: name.to_string(), asked },
        NameError::Failed { name, why } => {
            Fault::NameserverFailed { name: name.to_string(), asked, why }
        }
        NameError::Timeout { name, after } => {
            Fault::NameserverSilent { name: name.to_string(), asked, after }
        }
    }
}

/// Symptom, cause and fix, as the API gives them.
pub(super) fn of_fault(fault: &Fault) -> Value {
    let advice = fault.advice();
    json!({"symptom": advice.symptom, "cause": advice.cause, "fix": advice.fix})
}
