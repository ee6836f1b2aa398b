//! `tailrace demo`: the production gateway at work, with no account, no tailscaled and no root.
//!
//! Upstream, names and services run inside this process; every request goes over real sockets. It
//! shows what was carried, what was refused and why, and ends 0 only if all of it held.
#![forbid(unsafe_code)]

mod client;
mod curl;
mod redirected;
mod steps;
mod table;
mod world;

use std::io::IsTerminal as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use super::{exit, line_output};
use crate::config::{Config, HalfCloseChoice, PolicyMode, UpstreamKind};
use crate::gateway::{Gateway, StartupResources};
use crate::policy::Suffix;
use crate::record::{AccessLog, Telemetry};

use self::steps::DemoStep;
use self::table::TableRow;
use self::world::DemoWorld;

/// What a step may fail with: a sentence for its row.
type StepFailure = String;

/// Runs the demonstration; `redirected` is how it calls itself inside a network namespace.
pub(super) fn run(redirected: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) if redirected => runtime.block_on(redirected::inside()),
        Ok(runtime) => runtime.block_on(show()),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit::FAILED),
        Err(error) => {
            line_output::error(format_args!("tailrace demo: {error}"));
            ExitCode::from(exit::FAILED)
        }
    }
}

/// The settings of the gateway on show: production defaults, enforcing, ports from the kernel.
fn settings(upstream: SocketAddr) -> Config {
    let mut config = Config::with_upstream(UpstreamKind::Socks5(upstream), std::env::temp_dir());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listen.proxy = vec![any, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    config.listen.admin = any;
    // This upstream keeps half-closed connections; an old tailscaled would not.
    config.upstream.half_close = HalfCloseChoice::Propagate;
    config.policy.mode = PolicyMode::Enforce;
    config.policy.suffixes = Suffix::parse(".corp.demo").into_iter().collect();
    config.policy.nets = world::NETS.iter().filter_map(|net| net.parse().ok()).collect();
    config
}

async fn start(world: &DemoWorld) -> Result<Gateway, StepFailure> {
    let telemetry = Telemetry::new(AccessLog::without_output());
    Gateway::start(settings(world.upstream()), telemetry, StartupResources::default())
        .await
        .map_err(|error| error.to_string())
}

async fn show() -> Result<bool, StepFailure> {
    let world =
        DemoWorld::start().await.map_err(|error| format!("no loopback service: {error}"))?;
    let mut gateway = start(&world).await?;
    let proxy = *gateway.proxy().first().ok_or("the gateway has no proxy address")?;
    line_output::out(format_args!(
        "The gateway listens on {proxy}; its upstream, names and services are in this process.\n"
    ));
    let before = client::metrics(gateway.admin()).await?;
    let rows = take_steps(steps::all(proxy, Arc::new(world)).await).await;
    let after = client::metrics(gateway.admin()).await?;
    table::print(&rows);
    table::print_metrics(&before, &after);
    gateway.stop(std::future::pending()).await;
    let held = rows.iter().all(TableRow::held);
    let verdict =
        if held { "All of it held." } else { "NOT all of it held: see the rows marked ✗." };
    line_output::out(format_args!("\n{verdict}"));
    Ok(held)
}

async fn take_steps(steps: Vec<DemoStep>) -> Vec<TableRow> {
    let (mut rows, all) = (Vec::with_capacity(steps.len()), steps.len());
    let terminal = std::io::stderr().is_terminal();
    for (index, step) in steps.into_iter().enumerate() {
        if terminal {
            line_output::progress(format_args!(
                "[{}/{all}] {}: {}",
                index + 1,
                step.way,
                step.what
            ));
        }
        let begun = Instant::now();
        let ended = step.action.await;
        rows.push(TableRow::new(step.way, step.what, ended, begun.elapsed()));
    }
    if terminal {
        line_output::progress("");
    }
    rows
}
