//! Redirected connections, shown in a user and network namespace of their own.
//!
//! The program calls itself there by `unshare(1)`: rules and routes of this host stay untouched.
#![forbid(unsafe_code)]

use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::Command;

use super::table::StepEnd;
use super::world::DemoWorld;
use super::{StepFailure, client};

/// An address of the documentation networks, by family: without the redirect it leads nowhere.
const TARGETS: [(&str, &str); 2] = [("ip", "203.0.113.9"), ("ip6", "2001:db8::9")];

/// Runs [`inside`] in fresh namespaces.
pub(super) async fn show() -> Result<StepEnd, StepFailure> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new("unshare");
    child.args(["--user", "--map-root-user", "--net", "--"]).arg(program);
    child.args(["demo", "--redirected"]).stdin(Stdio::null());
    let done = match child.output().await {
        Ok(done) => done,
        Err(error) => return Ok(StepEnd::NotHere(format!("unshare: {error}"))),
    };
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said.lines().last().unwrap_or_default().trim_start_matches("tailrace demo: ");
    match last.strip_prefix("cannot: ") {
        _ if done.status.success() => Ok(StepEnd::Carried((4096, 4096))),
        Some(why) => Ok(StepEnd::NotHere(why.to_owned())),
        None if said.contains("unshare") => Ok(StepEnd::NotHere(last.to_owned())),
        None => Err(last.to_owned()),
    }
}

/// The redirected part itself: rules, a gateway, and a client that knows nothing of it.
pub(super) async fn inside() -> Result<bool, StepFailure> {
    system("ip", &["link", "set", "lo", "up"]).await?;
    let world = DemoWorld::start().await.map_err(|error| error.to_string())?;
    let gateway = super::start(&world).await?;
    let mut led = 0;
    for (family, target) in TARGETS {
        let v6 = family == "ip6";
        // Where the kernel knows no IPv6 there is no such listener.
        let Some(proxy) = gateway.proxy().iter().find(|proxy| proxy.is_ipv6() == v6) else {
            continue;
        };
        lead(family, target, proxy.port()).await?;
        let stream = TcpStream::connect((target, 5432)).await.map_err(|error| error.to_string())?;
        client::echo(stream, 4096).await?;
        led += 1;
    }
    Ok(led > 0 && world.asked() == led)
}

/// A route towards the target, an address to send from, without which that would be 0.0.0.0, and the rule.
async fn lead(family: &str, target: &str, port: u16) -> Result<(), StepFailure> {
    let (version, own, late) = match family {
        "ip6" => ("-6", "2001:db8:1::1/128", &["nodad"][..]),
        _ => ("-4", "192.0.2.1/32", &[][..]),
    };
    system("ip", &[&[version, "address", "add", own, "dev", "lo"], late].concat()).await?;
    system("ip", &[version, "route", "add", "default", "dev", "lo"]).await?;
    let rules = format!(
        "add table {family} demo\n\
         add chain {family} demo out {{ type nat hook output priority -100; }}\n\
         add rule {family} demo out {family} daddr {target} tcp dport 5432 redirect to :{port}"
    );
    system("nft", &[&rules]).await
}

async fn system(program: &str, arguments: &[&str]) -> Result<(), StepFailure> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => {
            let why = String::from_utf8_lossy(&done.stderr);
            Err(format!("cannot: {program}: {}", why.lines().next().unwrap_or_default()))
        }
        Err(error) => Err(format!("cannot: {program}: {error}")),
    }
}
