//! One conversation with a tailscaled that is up: log it in if it is ours, then hear what it says.
//!
//! `status` is the floor: tailscale keeps that call stable, and it is read every few seconds, or every second
//! where there is no bus. The bus tells what happens as it happens; it loses what its queue has no room
//! for up to 1.101 (ipn/ipnlocal/local.go), and closes on a watcher that lags from 1.102 on.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::backend_state::{self, BackendState};
use super::bus_watcher::{BusEvent, BusWatcher};
use super::explain::TailnetFault;
use super::login::NodeLogin;
use super::session_progress::{BusCoverage, SessionProgress};
use super::state::{StatusFeed, TailnetPhase};
use super::state_store::StateStore;
use super::version::TailscaledVersion;
use super::{TailnetSettings, netmap, refusal, status_reader};
use crate::localapi::{LocalApi, LocalApiError, messages};

/// Between two readings of `status` beside an open bus, and without one.
const STATUS_BESIDE_BUS: Duration = Duration::from_secs(5);
pub(super) const STATUS_ALONE: Duration = Duration::from_secs(1);
/// After a reading that failed.
const STATUS_RETRY: Duration = Duration::from_millis(200);
/// Between two readings of all the peers while the bus tells of their changes.
pub(super) const PEERS_BESIDE_BUS: Duration = Duration::from_secs(60);
/// Without that: at most this share of the time goes into reading peers, for a tailnet of ten
/// thousand nodes answers with megabytes.
const PEERS_ALONE_SHARE: u32 = 20;
/// How long further changes are waited for before the peers are read.
const PEERS_SETTLE: Duration = Duration::from_millis(30);
/// Between two tries to reach the socket: a new process has it within 100 ms.
const CONNECT_RETRY: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];
/// A tailscaled that answers nothing for this long is unreachable.
const SILENCE: Duration = Duration::from_secs(2);
/// A login that has neither succeeded nor been refused by then is looked into.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);
/// What 1.102 says on the bus before it closes on a watcher that lags: no word about a login.
const LAGGED: &str = "IPN bus consumer fell behind";

/// What a session needs.
pub(super) struct LocalApiSession {
    pub(super) api: LocalApi,
    pub(super) store: StateStore,
    pub(super) settings: Arc<TailnetSettings>,
    /// How to log in; none: somebody else does.
    pub(super) login: Option<NodeLogin>,
    /// Counts the times this machine was seen to have been paused.
    pub(super) pauses: watch::Receiver<u64>,
}

impl LocalApiSession {
    /// Never ends: a bus that closes is opened again. Dropped when its process is gone.
    pub(super) async fn run_session(mut self) {
        loop {
            self.wait_until_reachable().await;
            let error = self.follow_node().await;
            if !matches!(
                self.store.get(|state| state.fault.clone()),
                Some(TailnetFault::NotPermitted { .. })
            ) {
                let (socket, why) = (self.socket_path(), error.to_string());
                self.store
                    .set_phase(TailnetPhase::Unreachable, TailnetFault::LocalApi { socket, why });
            }
            sleep(CONNECT_RETRY[1]).await;
        }
    }

    /// Waits until somebody accepts at the socket.
    async fn wait_until_reachable(&self) {
        let mut pause = CONNECT_RETRY[0];
        while let Err(error) = self.api.accepts().await {
            // A process of ours is given its time; of somebody else's we know only the silence.
            if self.login.is_none() {
                let (socket, why) = (self.socket_path(), error.to_string());
                self.store
                    .set_phase(TailnetPhase::Unreachable, TailnetFault::LocalApi { socket, why });
            }
            sleep(pause).await;
            pause = (pause * 2).min(CONNECT_RETRY[1]);
        }
    }

    /// Follows what tailscaled says until it has said nothing for [`SILENCE`]; the last error then.
    async fn follow_node(&mut self) -> LocalApiError {
        let mut bus = BusWatcher::new(self.api.clone());
        let mut progress = SessionProgress::new();
        self.pauses.mark_unchanged();
        loop {
            let begun = progress.begun;
            let followed = tokio::select! {
                event = bus.next() => self.take_event(&mut progress, event).await,
                () = sleep_until(progress.status_due) => self.read_status(&mut progress).await,
                () = sleep_until(progress.peers_due) => self.read_peers(&mut progress).await,
                () = asked_to_log_in(self.login.as_ref()), if begun => self.log_in(&mut progress).await,
                Ok(()) = self.pauses.changed() => {
                    // What was open before a pause may be silent for ever.
                    bus.reopen();
                    progress.status_due = Instant::now();
                    Ok(())
                }
            };
            match followed {
                Ok(()) => {}
                Err(error) if progress.answered.elapsed() >= SILENCE => return error,
                Err(error) => {
                    tracing::debug!(%error, "tailscaled did not answer; it is asked again");
                    progress.status_due = Instant::now() + STATUS_RETRY;
                    progress.peers_due = progress.peers_due.max(Instant::now() + STATUS_RETRY);
                }
            }
        }
    }

    async fn take_event(
        &mut self,
        progress: &mut SessionProgress,
        event: BusEvent,
    ) -> Result<(), LocalApiError> {
        match event {
            BusEvent::Opened { peers } => {
                progress.bus = Some(BusCoverage { peers });
                self.store.update(|state| state.feed = StatusFeed::Bus);
            }
            BusEvent::Notified(notify) => {
                progress.answered = Instant::now();
                return self.take_notification(progress, *notify).await;
            }
            BusEvent::Closed { why } => {
                progress.bus = None;
                tracing::debug!(why, "no IPN bus at the moment: it is opened again");
                // One that was never open may never be: then this is how it stands.
                if self.store.get(|state| state.feed == StatusFeed::Pending) && progress.begun {
                    self.without_bus(why);
                }
            }
            BusEvent::Declined { why } => {
                progress.bus = None;
                self.without_bus(why);
            }
        }
        // Whatever was missed meanwhile, `status` and the peers tell.
        progress.status_due = Instant::now();
        progress.peers_due = progress.peers_due.min(Instant::now() + PEERS_SETTLE);
        Ok(())
    }

    /// Said once for each answer: everything works without a bus, some of it a second later.
    fn without_bus(&self, why: String) {
        let feed = StatusFeed::Polling { why };
        if self.store.get(|state| state.feed == feed) {
            return;
        }
        if let StatusFeed::Polling { why } = &feed {
            tracing::info!(why, "tailscaled offers no IPN bus: its status is read every second");
        }
        self.store.update(|state| state.feed = feed);
    }

    /// The floor: everything that must be known is in `status`.
    async fn read_status(&mut self, progress: &mut SessionProgress) -> Result<(), LocalApiError> {
        let alone = progress.bus.is_none();
        progress.status_due = Instant::now() + if alone { STATUS_ALONE } else { STATUS_BESIDE_BUS };
        let status = self.api.status(false).await?;
        progress.answered = Instant::now();
        self.take_process(&status).await;
        if !progress.begun {
            progress.begun = true;
            self.answers_again();
            self.begin_login(progress, &status).await?;
        }
        if alone {
            self.take_health_of_status(progress, &status).await;
        }
        if let Some(backend) = backend_state::of_name(&status.backend_state) {
            self.came_to(progress, backend).await?;
        }
        self.store.update(|state| state.node = status_reader::own_node(&status));
        if progress.logging_in.is_some_and(|since| since.elapsed() > LOGIN_PATIENCE) {
            self.explain_silence(progress, &status);
        }
        if let Some(login) = &mut self.login {
            login.consider_retry(&self.store);
        }
        Ok(())
    }

    /// Version and process. Somebody else's tailscaled may be another one than before.
    async fn take_process(&self, status: &messages::NodeStatus) {
        let process = match self.login {
            Some(_) => self.store.get(|state| state.process),
            None => self.api.peer_process().await,
        };
        let open_files = process.and_then(crate::sys::limits::open_files_of);
        self.store.update(|state| {
            if state.version.as_ref().is_none_or(|version| !version.was_read_from(&status.version))
            {
                state.version = Some(TailscaledVersion::parse(&status.version));
            }
            state.process = process;
            state.open_files = open_files;
        });
    }

    fn answers_again(&self) {
        self.store.update(|state| {
            if state.phase == TailnetPhase::Unreachable {
                (state.phase, state.fault) = (TailnetPhase::Starting, None);
            }
        });
    }

    /// The first login of a process of ours; one that still is its node needs none.
    async fn begin_login(
        &mut self,
        progress: &mut SessionProgress,
        status: &messages::NodeStatus,
    ) -> Result<(), LocalApiError> {
        let Some(login) = &mut self.login else { return Ok(()) };
        progress.logging_in = Some(Instant::now());
        if status.have_node_key {
            progress.resumed = true;
            tracing::info!("tailscaled has its node's identity: no login is needed");
            return login.resume_with_identity(&self.api).await;
        }
        login.log_in_first(&self.api, &self.store).await
    }

    async fn log_in(&mut self, progress: &mut SessionProgress) -> Result<(), LocalApiError> {
        let Some(login) = &mut self.login else { return Ok(()) };
        // A reload reads the key again; a node that is in the tailnet needs none.
        if self.store.phase() == TailnetPhase::Running {
            return Ok(());
        }
        (progress.logging_in, progress.resumed) = (Some(Instant::now()), false);
        login.log_in_again(&self.api, &self.store).await
    }

    async fn take_notification(
        &mut self,
        progress: &mut SessionProgress,
        notify: messages::BusNotification,
    ) -> Result<(), LocalApiError> {
        if let Some(said) = notify.err_message.as_deref().filter(|said| !said.starts_with(LAGGED)) {
            self.take_refusal(refusal::of_message(said)).await;
        }
        if notify.changes_netmap() {
            progress.peers_due = progress.peers_due.min(Instant::now() + PEERS_SETTLE);
        }
        if let Some(health) = notify.health {
            let mut warnings = health.warnings.unwrap_or_default();
            let login = warnings.remove("login-state").map(|warning| warning.text);
            let others = warnings.into_values().map(warning_text).collect();
            self.take_health(progress, login, others).await;
        }
        if let Some(url) = notify.browse {
            self.asked_for_a_browser(progress, &url).await;
        }
        match notify.state.and_then(backend_state::of_number) {
            Some(backend) => {
                let backend = self.confirm_state(backend).await?;
                self.came_to(progress, backend).await
            }
            None => Ok(()),
        }
    }

    /// What the bus says may be older than what `status` said: a step back is no news until `status`
    /// says so too.
    async fn confirm_state(&self, heard: BackendState) -> Result<BackendState, LocalApiError> {
        if heard == BackendState::Running || self.store.phase() != TailnetPhase::Running {
            return Ok(heard);
        }
        let status = self.api.status(false).await?;
        Ok(backend_state::of_name(&status.backend_state).unwrap_or(heard))
    }

    /// What `status` says in the place of the bus: the texts of the warnings, without their codes.
    async fn take_health_of_status(
        &mut self,
        progress: &mut SessionProgress,
        status: &messages::NodeStatus,
    ) {
        let texts = status.health.iter().flatten().cloned();
        let (login, others): (Vec<_>, Vec<_>) =
            texts.partition(|text| text.starts_with(refusal::LOGGED_OUT));
        self.take_health(progress, login.into_iter().next(), others).await;
        self.asked_for_a_browser(progress, &status.auth_url).await;
    }

    async fn take_health(
        &self,
        progress: &mut SessionProgress,
        login: Option<String>,
        mut others: Vec<String>,
    ) {
        progress.login_warning = login;
        others.sort();
        self.store.update(|state| state.health = others);
        let said = progress.login_warning.as_deref();
        if let Some(fault) =
            said.and_then(|text| refusal::of_warning(text, &self.login_server_label()))
        {
            self.take_refusal(fault).await;
        }
    }

    /// A control server that ignores the key and wants a person.
    async fn asked_for_a_browser(&self, progress: &SessionProgress, url: &str) {
        if !url.is_empty() && progress.logging_in.is_some() && !progress.resumed {
            let said = "it asks for a login in a browser".to_owned();
            let refusal = super::explain::KeyRefusal::Other;
            self.take_refusal((
                TailnetPhase::AuthFailed,
                TailnetFault::KeyRefused { refusal, said },
            ))
            .await;
        }
    }

    /// A login that will not succeed by itself. In the tailnet it is no news.
    async fn take_refusal(&self, (phase, fault): (TailnetPhase, TailnetFault)) {
        let known =
            self.store.get(|state| state.is_running() || state.fault.as_ref() == Some(&fault));
        let refused_before = self.store.phase() == TailnetPhase::AuthFailed;
        if known || (refused_before && phase == TailnetPhase::Unreachable) {
            return;
        }
        match phase {
            TailnetPhase::AuthFailed | TailnetPhase::Stopped => {
                self.store.settle_phase(phase, fault);
                if self.login.is_some()
                    && let Err(error) = self.api.disconnect_control().await
                {
                    tracing::debug!(%error, "tailscaled goes on asking the control server");
                }
            }
            phase => self.store.set_phase(phase, fault),
        }
    }

    /// A state of tailscaled's, from the bus or from `status`.
    async fn came_to(
        &mut self,
        progress: &mut SessionProgress,
        backend: BackendState,
    ) -> Result<(), LocalApiError> {
        let now = self.store.phase();
        match backend {
            BackendState::Running => {
                progress.logging_in = None;
                if now != TailnetPhase::Running {
                    self.read_peers(progress).await?;
                    self.store.settle_phase(TailnetPhase::Running, None);
                }
            }
            BackendState::NeedsApproval => {
                progress.logging_in = None;
                self.store.settle_phase(TailnetPhase::NeedsApproval, TailnetFault::NeedsApproval);
            }
            BackendState::Stopped => {
                self.store.settle_phase(TailnetPhase::Stopped, TailnetFault::Stopped)
            }
            BackendState::NeedsLogin if was_in(now) || self.login.is_none() => {
                let expired = self.api.status(false).await?.this.is_some_and(|this| this.expired);
                let fault =
                    if expired { TailnetFault::NodeExpired } else { TailnetFault::LoggedOut };
                self.store.settle_phase(TailnetPhase::NeedsLogin, fault);
            }
            // The control server no longer knows the node: it joins by the key, as a new one.
            BackendState::NeedsLogin if progress.resumed => {
                tracing::info!("the control server does not take the node's identity any more");
                return self.log_in(progress).await;
            }
            BackendState::Starting | BackendState::Nothing if was_in(now) => {
                self.store.set_phase(TailnetPhase::Starting, None);
            }
            // A login under way; what is wrong with it comes in words.
            BackendState::NeedsLogin | BackendState::Starting | BackendState::Nothing => {}
        }
        Ok(())
    }

    /// No refusal and no success: the control server, or the way to the relays.
    fn explain_silence(&self, progress: &SessionProgress, status: &messages::NodeStatus) {
        if self.store.phase() != TailnetPhase::Starting {
            return;
        }
        let fault = match status.have_node_key {
            true => {
                TailnetFault::NoRelay { why: self.store.get(|state| state.health.first().cloned()) }
            }
            false => TailnetFault::Control {
                server: self.login_server_label(),
                why: progress
                    .login_warning
                    .clone()
                    .unwrap_or_else(|| "it does not answer".to_owned()),
            },
        };
        self.store.set_phase(TailnetPhase::Unreachable, fault);
    }

    /// Everybody else, and the names.
    async fn read_peers(&self, progress: &mut SessionProgress) -> Result<(), LocalApiError> {
        progress.peers_due = Instant::now() + PEERS_BESIDE_BUS;
        let begun = Instant::now();
        let status = self.api.status(true).await?;
        let dns = self.read_dns(progress).await?;
        if !progress.bus_tells_peers() {
            let pause = STATUS_ALONE.max(begun.elapsed() * PEERS_ALONE_SHARE);
            progress.peers_due = Instant::now() + pause;
        }
        // A node that has fallen out has an empty netmap: its names would seem to be nobody's.
        if backend_state::of_name(&status.backend_state) != Some(BackendState::Running) {
            return Ok(());
        }
        let accepts_routes = match self.login {
            Some(_) => self.settings.accept_routes,
            None => self.api.prefs().await.is_ok_and(|prefs| prefs.route_all),
        };
        let found: netmap::Netmap = status_reader::read_netmap(&status, dns, accepts_routes);
        self.store.update(|state| {
            state.node = status_reader::own_node(&status);
            if *state.netmap != found {
                state.netmap = Arc::new(found);
            }
        });
        Ok(())
    }

    /// The tailnet's names and nameservers. `dns-config` is not among the stable calls: from a version
    /// without it names of peers are all there is, and that is said.
    async fn read_dns(
        &self,
        progress: &mut SessionProgress,
    ) -> Result<netmap::TailnetDns, LocalApiError> {
        match self.api.dns_config().await {
            Ok(config) => Ok(config.as_ref().map(status_reader::dns_settings).unwrap_or_default()),
            Err(error) if error.is_declined() => {
                if !std::mem::replace(&mut progress.without_dns_config, true) {
                    tracing::warn!(
                        %error,
                        "tailscaled does not tell its DNS settings: split DNS and extra records are \
                         not resolved"
                    );
                }
                Ok(self.store.get(|state| state.netmap.dns.clone()))
            }
            Err(error) => Err(error),
        }
    }

    fn login_server_label(&self) -> String {
        self.settings.login_server.clone().unwrap_or_else(|| "of Tailscale".to_owned())
    }

    fn socket_path(&self) -> PathBuf {
        self.settings.socket.clone()
    }
}

async fn asked_to_log_in(login: Option<&NodeLogin>) {
    match login {
        Some(login) => login.wait_until_asked().await,
        None => std::future::pending().await,
    }
}

/// Phases of a node that was let in.
fn was_in(phase: TailnetPhase) -> bool {
    matches!(phase, TailnetPhase::Running | TailnetPhase::NeedsApproval | TailnetPhase::Stopped)
}

fn warning_text(warning: messages::HealthWarning) -> String {
    match warning.text.is_empty() {
        true => warning.title,
        false => warning.text,
    }
}
