//! `tailrace up` from settings to exit code: start, signals, reload, drain.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::Signal;

use super::child_command::{ChildCommand, Stage};
use super::{Gateway, StartError, StartupResources};
use crate::config::Config;
use crate::labels::ReloadResult;
use crate::lifecycle::children::Children;
use crate::lifecycle::run_dir::{Listening, RunDir};
use crate::lifecycle::signals::{Asked, Signals};
use crate::record::Telemetry;
use crate::secret::Secret;
use crate::target::Forward;

/// How `up` reads its settings again: the present ones in, the new ones or every error out.
pub type Again<'a> = &'a dyn Fn(&Config) -> Result<Config, Vec<String>>;

/// Runs a gateway until a signal ends it, or until the program it runs for has ended.
///
/// # Errors
/// [`StartError`] when it could not start, or its program could not; nothing is left bound then.
pub fn run(
    config: Config,
    telemetry: Arc<Telemetry>,
    key: Option<Secret>,
    again: Again<'_>,
    commanded: Option<&ChildCommand>,
) -> Result<ExitCode, StartError> {
    // One thread carries everything: with more, each event wakes a second one that finds nothing to do, and
    // connections wander between them (docs/performance.md). It outruns any tailscaled many times over.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "the runtime", source })?;
    let code = runtime.block_on(live(config, telemetry, key, again, commanded));
    runtime.shutdown_background();
    code
}

async fn live(
    config: Config,
    telemetry: Arc<Telemetry>,
    key: Option<Secret>,
    again: Again<'_>,
    commanded: Option<&ChildCommand>,
) -> Result<ExitCode, StartError> {
    let failed = |source| StartError::System { what: "signal handlers", source };
    let mut signals = Signals::take_over().map_err(failed)?;
    let children = Children::start().map_err(failed)?;
    let run_dir = RunDir::open(&config.run_dir)?;
    let means = StartupResources { key, children: Some(Arc::clone(&children)) };
    let mut gateway = Gateway::start(config, Arc::clone(&telemetry), means).await?;
    let published = run_dir.publish(gateway.listening().clone())?;
    announce(&gateway);
    let mut reload = |gateway: &mut Gateway| take_over(gateway, &telemetry, again);
    let ended = match commanded {
        None => {
            until_stopped(&mut gateway, &mut signals, &mut reload).await;
            Ok(0)
        }
        Some(commanded) => {
            signals.take_over_for_a_program().map_err(failed)?;
            let stage = Stage { signals: &mut signals, children: &children, reload: &mut reload };
            stage.run(&mut gateway, commanded).await
        }
    };
    tracing::info!("draining: no new connections");
    let hurried = end(&mut gateway, &mut signals).await;
    drop(published);
    let code = ended?;
    Ok(ExitCode::from(if commanded.is_some() { code } else { hurried.map_or(0, code_of) }))
}

async fn until_stopped(
    gateway: &mut Gateway,
    signals: &mut Signals,
    reload: &mut dyn FnMut(&mut Gateway),
) {
    loop {
        match signals.next().await {
            Asked::Reload => reload(gateway),
            Asked::Stop(_) => return,
            Asked::Pass(_) => {}
        }
    }
}

fn announce(gateway: &Gateway) {
    let Listening { proxy, tproxy, admin, forward, dns, dns_clients } = gateway.listening();
    for (addresses, listener) in [(proxy, "proxy"), (tproxy, "tproxy")] {
        for address in addresses {
            tracing::info!(%address, listener, "listening");
        }
    }
    tracing::info!(address = %admin, listener = "admin", "listening");
    for (address, listener) in [(dns, "dns"), (dns_clients, "dns_clients")] {
        if let Some(address) = address {
            tracing::info!(%address, listener, "listening");
        }
    }
    for Forward { listen, target } in forward {
        tracing::info!(address = %listen, listener = "forward", %target, "listening");
    }
}

/// A bad file keeps the old settings; every error is a line of its own.
fn take_over(gateway: &mut Gateway, telemetry: &Telemetry, again: Again<'_>) {
    let taken = again(&gateway.config)
        .and_then(|config| gateway.reload(config).map_err(|error| vec![error.to_string()]));
    match taken {
        Ok(()) => {
            telemetry.count_reload(ReloadResult::Ok);
            tracing::info!("settings read again");
        }
        Err(errors) => {
            telemetry.count_reload(ReloadResult::Error);
            for error in errors {
                tracing::error!("{error}; the old settings stay");
            }
        }
    }
}

/// Drains; a stop signal meanwhile ends the drain at once, and is told.
async fn end(gateway: &mut Gateway, signals: &mut Signals) -> Option<Signal> {
    let mut second = None;
    let hurry = async {
        loop {
            if let Asked::Stop(signal) = signals.next().await {
                second = Some(signal);
                return;
            }
        }
    };
    gateway.stop(hurry).await;
    second
}

/// The exit code of an end by a signal: 128 and its number.
pub(super) fn code_of(signal: Signal) -> u8 {
    128 | signal.as_raw() as u8
}
