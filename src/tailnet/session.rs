//! One conversation with a tailscaled that is up: log it in if it is ours, then hear what it says.
//!
//! The bus tells what happens as it happens; every few seconds `status` is read all the same, because
//! the bus drops what its queue has no room for (ipn/ipnlocal/local.go:3606).
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::board::Board;
use super::explain::Fault;
use super::localapi::{LocalApi, LocalApiError};
use super::login::Login;
use super::state::Phase;
use super::version::Version;
use super::{Settings, netmap, read, refusal, wire};

/// InitialState, InitialPrefs, InitialHealthState, RateLimit, PeerChanges (ipn/backend.go:71-94).
const MASK: u32 = 2 | 4 | 128 | 256 | 4096;
/// Between two looks at `status`.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at all the peers, without being told of a change.
const LOOK_AT_PEERS: Duration = Duration::from_secs(60);
/// How long further changes are waited for before the peers are read.
const SETTLE: Duration = Duration::from_millis(30);
/// Between two tries to reach the socket: a new process has it within 100 ms.
const KNOCK: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];
/// A login that has neither succeeded nor been refused by then is looked into.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);

/// What a session needs.
pub(super) struct Session {
    pub(super) api: LocalApi,
    pub(super) board: Board,
    pub(super) settings: Arc<Settings>,
    /// How to log in; none: somebody else does.
    pub(super) login: Option<Login>,
}

/// What one bus has told so far.
struct Ears {
    /// Peers or names have changed: read them then.
    peers_due: Instant,
    /// When the login under way began.
    logging_in: Option<Instant>,
    /// The text of the health warning `login-state`.
    login_warning: Option<String>,
}

impl Session {
    /// Never ends: a bus that closes is opened again. Dropped when its process is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.reach().await;
            let ended = self.attend().await;
            let why = ended.map_or_else(|error| error.to_string(), |()| "it closed the bus".into());
            let socket = self.settings.socket.clone();
            self.board.set(Phase::Unreachable, Fault::LocalApi { socket, why });
            sleep(KNOCK[1]).await;
        }
    }

    /// Waits until somebody accepts at the socket.
    async fn reach(&self) {
        let mut pause = KNOCK[0];
        while let Err(error) = self.api.accepts().await {
            // A process of ours is given its time; of somebody else's we know only the silence.
            if self.login.is_none() {
                let (socket, why) = (self.settings.socket.clone(), error.to_string());
                self.board.set(Phase::Unreachable, Fault::LocalApi { socket, why });
            }
            sleep(pause).await;
            pause = (pause * 2).min(KNOCK[1]);
        }
    }

    async fn attend(&mut self) -> Result<(), LocalApiError> {
        let mut bus = self.api.watch(MASK).await?;
        self.meet().await?;
        let mut ears = Ears {
            peers_due: Instant::now() + LOOK_AT_PEERS,
            logging_in: None,
            login_warning: None,
        };
        if let Some(login) = &mut self.login {
            ears.logging_in = Some(Instant::now());
            login.first(&self.api, &self.board).await?;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = bus.next() => match heard? {
                    Some(notify) => self.hear(&mut ears, notify).await?,
                    None => return Ok(()),
                },
                _ = looks.tick() => self.look(&mut ears).await?,
                () = sleep_until(ears.peers_due) => self.look_at_peers(&mut ears).await?,
                () = asked_to_log_in(self.login.as_ref()) => self.log_in(&mut ears).await?,
            }
        }
    }

    /// Version and process: what does not change while it runs.
    async fn meet(&self) -> Result<(), LocalApiError> {
        let status = self.api.status(false).await?;
        let process = match self.login {
            Some(_) => self.board.get(|state| state.process),
            None => self.api.process().await,
        };
        let open_files = process.and_then(crate::sys::limits::open_files_of);
        self.board.update(|state| {
            state.version = Some(Version::parse(&status.version));
            state.process = process;
            state.open_files = open_files;
            if state.phase == Phase::Unreachable {
                (state.phase, state.fault) = (Phase::Starting, None);
            }
        });
        Ok(())
    }

    async fn log_in(&mut self, ears: &mut Ears) -> Result<(), LocalApiError> {
        let Some(login) = &mut self.login else { return Ok(()) };
        // A reload reads the key again; a node that is in the tailnet needs none.
        if self.board.phase() == Phase::Running {
            return Ok(());
        }
        ears.logging_in = Some(Instant::now());
        login.again(&self.api, &self.board).await
    }

    async fn hear(&self, ears: &mut Ears, notify: wire::Notify) -> Result<(), LocalApiError> {
        if let Some(said) = &notify.err_message {
            self.refused(refusal::of_message(said)).await;
        }
        if let Some(health) = notify.health {
            self.hear_health(ears, health).await;
        }
        if notify.browse.is_some_and(|url| !url.is_empty()) && ears.logging_in.is_some() {
            let said = "it asks for a login in a browser".to_owned();
            let refusal = super::explain::Refusal::Other;
            self.refused((Phase::AuthFailed, Fault::KeyRefused { refusal, said })).await;
        }
        if notify.net_map.is_some() || notify.self_change.is_some() || notify.peer_changes.is_some()
        {
            ears.peers_due = ears.peers_due.min(Instant::now() + SETTLE);
        }
        match notify.state.and_then(backend) {
            Some(backend) => {
                let backend = self.confirmed(backend).await?;
                self.came_to(ears, backend).await
            }
            None => Ok(()),
        }
    }

    /// What the bus says may be older than what `status` said: a step back is no news until `status`
    /// says so too.
    async fn confirmed(&self, heard: Backend) -> Result<Backend, LocalApiError> {
        if heard == Backend::Running || self.board.phase() != Phase::Running {
            return Ok(heard);
        }
        let status = self.api.status(false).await?;
        Ok(backend_of(&status.backend_state).unwrap_or(heard))
    }

    async fn hear_health(&self, ears: &mut Ears, health: wire::Health) {
        let mut warnings = health.warnings.unwrap_or_default();
        ears.login_warning = warnings.remove("login-state").map(|warning| warning.text);
        let mut texts: Vec<String> = warnings.into_values().map(words).collect();
        texts.sort();
        self.board.update(|state| state.health = texts);
        if let Some(fault) =
            ears.login_warning.as_deref().and_then(|text| refusal::of_warning(text, &self.server()))
        {
            self.refused(fault).await;
        }
    }

    /// A login that will not succeed by itself. In the tailnet it is no news.
    async fn refused(&self, (phase, fault): (Phase, Fault)) {
        let known =
            self.board.get(|state| state.is_running() || state.fault.as_ref() == Some(&fault));
        let refused_before = self.board.phase() == Phase::AuthFailed;
        if known || (refused_before && phase == Phase::Unreachable) {
            return;
        }
        match phase {
            Phase::AuthFailed | Phase::Stopped => {
                self.board.settle(phase, fault);
                if self.login.is_some()
                    && let Err(error) = self.api.disconnect_control().await
                {
                    tracing::debug!(%error, "tailscaled goes on asking the control server");
                }
            }
            phase => self.board.set(phase, fault),
        }
    }

    /// A state of tailscaled's (ipn/backend.go:24), from the bus or from `status`.
    async fn came_to(&self, ears: &mut Ears, backend: Backend) -> Result<(), LocalApiError> {
        let now = self.board.phase();
        match backend {
            Backend::Running => {
                ears.logging_in = None;
                if now != Phase::Running {
                    self.look_at_peers(ears).await?;
                    self.board.settle(Phase::Running, None);
                }
            }
            Backend::NeedsApproval => {
                ears.logging_in = None;
                self.board.settle(Phase::NeedsApproval, Fault::NeedsApproval);
            }
            Backend::Stopped => self.board.settle(Phase::Stopped, Fault::Stopped),
            Backend::NeedsLogin if was_in(now) || self.login.is_none() => {
                let expired = self.api.status(false).await?.this.is_some_and(|this| this.expired);
                let fault = if expired { Fault::NodeExpired } else { Fault::LoggedOut };
                self.board.settle(Phase::NeedsLogin, fault);
            }
            Backend::Starting | Backend::Nothing if was_in(now) => {
                self.board.set(Phase::Starting, None);
            }
            // A login under way; what is wrong with it comes in words.
            Backend::NeedsLogin | Backend::Starting | Backend::Nothing => {}
        }
        Ok(())
    }

    /// The look at `status` that makes up for what the bus did not say.
    async fn look(&mut self, ears: &mut Ears) -> Result<(), LocalApiError> {
        let status = self.api.status(false).await?;
        if let Some(backend) = backend_of(&status.backend_state) {
            self.came_to(ears, backend).await?;
        }
        self.board.update(|state| state.node = read::node(&status));
        if ears.logging_in.is_some_and(|since| since.elapsed() > LOGIN_PATIENCE) {
            self.explain_silence(ears, &status);
        }
        if let Some(login) = &mut self.login {
            login.consider(&self.board);
        }
        Ok(())
    }

    /// No refusal and no success: the control server, or the way to the relays.
    fn explain_silence(&self, ears: &Ears, status: &wire::Status) {
        if self.board.phase() != Phase::Starting {
            return;
        }
        let fault = match status.have_node_key {
            true => Fault::NoRelay { why: self.board.get(|state| state.health.first().cloned()) },
            false => Fault::Control {
                server: self.server(),
                why: ears.login_warning.clone().unwrap_or_else(|| "it does not answer".to_owned()),
            },
        };
        self.board.set(Phase::Unreachable, fault);
    }

    /// Everybody else, and the names.
    async fn look_at_peers(&self, ears: &mut Ears) -> Result<(), LocalApiError> {
        ears.peers_due = Instant::now() + LOOK_AT_PEERS;
        let status = self.api.status(true).await?;
        let dns = self.api.dns_config().await?;
        // A node that has fallen out has an empty netmap: its names would seem to be nobody's.
        if backend_of(&status.backend_state) != Some(Backend::Running) {
            return Ok(());
        }
        let accepts_routes = match self.login {
            Some(_) => self.settings.accept_routes,
            None => self.api.prefs().await.is_ok_and(|prefs| prefs.route_all),
        };
        let found: netmap::Netmap = read::netmap(&status, dns.as_ref(), accepts_routes);
        self.board.update(|state| {
            state.node = read::node(&status);
            if *state.netmap != found {
                state.netmap = Arc::new(found);
            }
        });
        Ok(())
    }

    fn server(&self) -> String {
        self.settings.login_server.clone().unwrap_or_else(|| "of Tailscale".to_owned())
    }
}

async fn asked_to_log_in(login: Option<&Login>) {
    match login {
        Some(login) => login.asked().await,
        None => std::future::pending().await,
    }
}

/// Phases of a node that was let in.
fn was_in(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::NeedsApproval | Phase::Stopped)
}

/// tailscaled's own states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Nothing,
    NeedsLogin,
    NeedsApproval,
    Stopped,
    Starting,
    Running,
}

fn backend(number: i64) -> Option<Backend> {
    Some(match number {
        0 => Backend::Nothing,
        2 => Backend::NeedsLogin,
        3 => Backend::NeedsApproval,
        4 => Backend::Stopped,
        5 => Backend::Starting,
        6 => Backend::Running,
        _ => return None,
    })
}

fn backend_of(name: &str) -> Option<Backend> {
    Some(match name {
        "NoState" => Backend::Nothing,
        "NeedsLogin" => Backend::NeedsLogin,
        "NeedsMachineAuth" => Backend::NeedsApproval,
        "Stopped" => Backend::Stopped,
        "Starting" => Backend::Starting,
        "Running" => Backend::Running,
        _ => return None,
    })
}

fn words(warning: wire::Warning) -> String {
    match warning.text.is_empty() {
        true => warning.title,
        false => warning.text,
    }
}
