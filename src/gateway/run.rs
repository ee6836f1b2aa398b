//! `tailrace up` from settings to exit code: start, signals, reload, drain.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use super::{Gateway, Means, StartError};
use crate::config::Config;
use crate::lifecycle::children::Children;
use crate::lifecycle::run_dir::RunDir;
use crate::lifecycle::signals::{Asked, Signals};
use crate::record::Book;
use crate::secret::Secret;

/// How `up` reads its settings again: the present ones in, the new ones or every error out.
pub type Again<'a> = &'a dyn Fn(&Config) -> Result<Config, Vec<String>>;

/// Runs a gateway until a signal ends it.
///
/// # Errors
/// [`StartError`] when it could not start; nothing is left bound then.
pub fn run(
    config: Config,
    book: Arc<Book>,
    key: Option<Secret>,
    again: Again<'_>,
) -> Result<ExitCode, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tailrace")
        .build()
        .map_err(|source| StartError::System { what: "the runtime", source })?;
    let code = runtime.block_on(live(config, book, key, again));
    runtime.shutdown_background();
    code
}

async fn live(
    config: Config,
    book: Arc<Book>,
    key: Option<Secret>,
    again: Again<'_>,
) -> Result<ExitCode, StartError> {
    let failed = |source| StartError::System { what: "signal handlers", source };
    let mut signals = Signals::take_over().map_err(failed)?;
    let run_dir = RunDir::open(&config.run_dir)?;
    let reaper = |source| StartError::System { what: "the reaper of child processes", source };
    let children = Some(Children::start().map_err(reaper)?);
    let means = Means { key, children };
    let mut gateway = Gateway::start(config, Arc::clone(&book), means).await?;
    let published = run_dir.publish(gateway.proxy(), gateway.admin())?;
    announce(&gateway);
    while signals.next().await == Asked::Reload {
        take_over(&mut gateway, &book, again);
    }
    tracing::info!("draining: no new connections");
    let code = end(&mut gateway, &mut signals).await;
    drop(published);
    Ok(code)
}

fn announce(gateway: &Gateway) {
    for address in gateway.proxy() {
        tracing::info!(%address, listener = "proxy", "listening");
    }
    tracing::info!(address = %gateway.admin(), listener = "admin", "listening");
}

/// A bad file keeps the old settings; every error is a line of its own.
fn take_over(gateway: &mut Gateway, book: &Book, again: Again<'_>) {
    let taken = again(&gateway.config)
        .and_then(|config| gateway.reload(config).map_err(|error| vec![error.to_string()]));
    match taken {
        Ok(()) => {
            book.reload("ok");
            tracing::info!("settings read again");
        }
        Err(errors) => {
            book.reload("error");
            for error in errors {
                tracing::error!("{error}; the old settings stay");
            }
        }
    }
}

/// Drains; a second stop signal ends at once with 128 and its number (signal(7)).
async fn end(gateway: &mut Gateway, signals: &mut Signals) -> ExitCode {
    let mut second = None;
    let hurry = async {
        loop {
            if let Asked::Stop(number) = signals.next().await {
                second = Some(number);
                return;
            }
        }
    };
    gateway.stop(hurry).await;
    match second {
        Some(number) => ExitCode::from(128 + number),
        None => ExitCode::SUCCESS,
    }
}
