//! Logging a managed tailscaled in, as `tailscale up` does (cmd/tailscale/cli/up.go): check-prefs,
//! start with the key, login-interactive.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::explain::TailnetFault;
use super::key_provider::{KeyProvider, KeyUnavailable};
use super::state::TailnetPhase;
use super::state_store::StateStore;
use super::{TailnetSettings, random};
use crate::localapi::{LocalApi, LocalApiError, messages};

/// A node that fell out, or a key that could not be had for a passing reason, is tried again then.
const RETRY: Duration = Duration::from_secs(30);

/// A call of the login that tailscaled did not take is made again then.
const RETRY_CALL: Duration = Duration::from_secs(1);

/// The way in, for one life of a tailscaled.
pub(super) struct NodeLogin {
    pub(super) settings: Arc<TailnetSettings>,
    pub(super) keys: Arc<KeyProvider>,
    /// Notified when the key should be read again.
    pub(super) read_key_again: Arc<Notify>,
    /// Not before the first login of all.
    pub(super) jitter: Duration,
    pub(super) retry_at: Option<Instant>,
}

impl NodeLogin {
    pub(super) fn new(
        settings: Arc<TailnetSettings>,
        keys: Arc<KeyProvider>,
        read_key_again: Arc<Notify>,
    ) -> Self {
        Self { settings, keys, read_key_again, jitter: Duration::ZERO, retry_at: None }
    }

    /// Waits until somebody asks for a login, or a retry is due.
    pub(super) async fn wait_until_asked(&self) {
        let due = async {
            match self.retry_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.read_key_again.notified() => {}
            () = due => {}
        }
    }

    /// The login of a fresh process.
    pub(super) async fn log_in_first(
        &mut self,
        api: &LocalApi,
        store: &StateStore,
    ) -> Result<(), LocalApiError> {
        sleep(std::mem::take(&mut self.jitter)).await;
        self.log_in_again(api, store).await
    }

    /// A node that kept its identity: the settings may have changed since it logged in.
    pub(super) async fn resume_with_identity(&self, api: &LocalApi) -> Result<(), LocalApiError> {
        api.edit_prefs(&messages::MaskedPrefs::of(&self.login_prefs())).await
    }

    /// One login; what comes of it is heard on the bus or read from `status`. A tailscaled that does not
    /// take it is asked again.
    pub(super) async fn log_in_again(
        &mut self,
        api: &LocalApi,
        store: &StateStore,
    ) -> Result<(), LocalApiError> {
        self.retry_at = None;
        let done = self.attempt_login(api, store).await;
        if let Err(error) = &done {
            self.retry_at = Some(Instant::now() + RETRY_CALL);
            if !error.is_forbidden() {
                let (socket, why) = (self.settings.socket.clone(), error.to_string());
                store.set_phase(TailnetPhase::Unreachable, TailnetFault::LocalApi { socket, why });
            }
        }
        done
    }

    async fn attempt_login(
        &mut self,
        api: &LocalApi,
        store: &StateStore,
    ) -> Result<(), LocalApiError> {
        store.set_phase(TailnetPhase::Starting, None);
        let proxy = self.settings.environment.iter().find(|(name, _)| *name == "HTTPS_PROXY");
        let proxy = proxy.map(|(_, url)| url.as_str());
        let key = match self.keys.for_login(&self.settings.tags, proxy).await {
            Ok(key) => key,
            Err(unavailable) => {
                self.no_key(store, unavailable);
                return Ok(());
            }
        };
        let prefs = self.login_prefs();
        if let Some(why) = unless_forbidden(api.check_prefs(&prefs).await, store, &self.settings)? {
            store.settle_phase(TailnetPhase::AuthFailed, TailnetFault::Preferences { why });
            return Ok(());
        }
        api.start(&key, &prefs).await?;
        drop(key);
        api.login_interactive().await
    }

    fn no_key(&mut self, store: &StateStore, KeyUnavailable { fault, passing }: KeyUnavailable) {
        if passing {
            self.retry_at = Some(Instant::now() + RETRY);
            store.set_phase(TailnetPhase::Unreachable, fault);
        } else {
            store.settle_phase(TailnetPhase::AuthFailed, fault);
        }
    }

    /// A node that fell out of the tailnet comes back by its key, if that can be used again.
    pub(super) fn consider_retry(&mut self, store: &StateStore) {
        if store.phase() == TailnetPhase::NeedsLogin && self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    fn login_prefs(&self) -> messages::NewPrefs {
        let settings = &self.settings;
        messages::NewPrefs {
            control: settings.login_server.clone(),
            want_running: true,
            route_all: settings.accept_routes,
            corp_dns: true,
            shields_up: true,
            hostname: settings.hostname.clone(),
            advertise_tags: settings.tags.clone(),
            no_stateful_filtering: true,
            netfilter_mode: 0,
            auto_update: messages::AutoUpdate { check: false, apply: None },
        }
    }
}

/// A socket that lets us read and not write is a fault of its own.
fn unless_forbidden(
    checked: Result<Option<String>, LocalApiError>,
    store: &StateStore,
    settings: &TailnetSettings,
) -> Result<Option<String>, LocalApiError> {
    if checked.as_ref().is_err_and(LocalApiError::is_forbidden) {
        let socket = settings.socket.clone();
        store.settle_phase(TailnetPhase::Unreachable, TailnetFault::NotPermitted { socket });
    }
    checked
}

/// A delay drawn between nothing and `longest`.
pub(super) fn random_delay(longest: Duration) -> Duration {
    let share = u32::try_from(random::random_number() % 1000).unwrap_or(0);
    longest * share / 1000
}
