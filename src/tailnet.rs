//! The tailnet: a tailscaled started, watched and ended by us, or one that is there; and what is
//! known of it.
//!
//! Everybody else reads one `watch` of [`TailnetState`]; only supervisor and session write it. This module
//! knows LocalAPI and processes, and nothing of clients, targets or policy.
#![forbid(unsafe_code)]

mod backend_state;
mod backoff;
mod bus_watcher;
mod child_log;
pub mod explain;
mod key_provider;
mod localapi_session;
mod login;
pub mod memory_folder;
mod netmap;
mod node_state;
pub mod oauth;
mod oom_kills;
mod peer_warmup;
mod process;
mod random;
mod refusal;
mod session_progress;
mod state;
mod state_store;
mod status_reader;
mod supervisor;
mod version;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::explain::TailnetFault;
pub use self::key_provider::KeyProvider;
use self::localapi_session::LocalApiSession;
use self::login::NodeLogin;
pub use self::netmap::{Netmap, RouteCover, TailnetDns, TailnetNameserver, TailnetPeer};
use self::node_state::IdentityStore;
pub use self::node_state::StateFolderError;
pub use self::peer_warmup::PeerWarmup;
pub use self::state::{OwnNode, StatusFeed, TailnetPhase, TailnetState};
use self::state_store::StateStore;
use self::supervisor::{RunningTailscaled, TailscaledSupervisor};
pub use self::version::TailscaledVersion;
use crate::config;
use crate::labels::{NodeIdentity, RestartCause};
use crate::lifecycle::children::Children;
use crate::localapi::LocalApi;

/// What this module is told at the start.
#[derive(Debug, Clone)]
pub struct TailnetSettings {
    /// The program to start (`tailnet.tailscaled`): a path, or a name that is looked for in `PATH`.
    pub tailscaled: PathBuf,
    /// The path of its LocalAPI socket; a managed tailscaled creates it (`--socket`).
    pub socket: PathBuf,
    /// Ours alone; tailscaled's home.
    pub run_dir: PathBuf,
    /// The SOCKS5 port it is to open, port 0 for any; none with kind `localapi`.
    pub socks: Option<SocketAddr>,
    /// The node's name, `{id}` filled in.
    pub hostname: String,
    /// Tags to ask for.
    pub tags: Vec<String>,
    /// The control server, where it is not Tailscale's own.
    pub login_server: Option<String>,
    /// Variables of its way to control and DERP.
    pub environment: Vec<(&'static str, String)>,
    /// Take subnet routes of other nodes.
    pub accept_routes: bool,
    /// Longest random delay before the first login.
    pub start_jitter: Duration,
    /// Soft limit on open files it starts with.
    pub open_files: u64,
    /// A binary that cannot be run ends the start.
    pub insisted: bool,
    /// Where the node's identity is kept.
    pub state: config::NodeState,
    /// `TAILRACE_ID`, where it is set.
    pub id: Option<String>,
}

/// Whether tailscaled answers, asked the way connections go.
pub type UpstreamProbe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// What this module needs of others, and tells them.
pub struct SupervisorHooks {
    /// Asked every few seconds.
    pub probe: UpstreamProbe,
    /// A managed tailscaled has ended and is started again.
    pub restarted: Box<dyn Fn(RestartCause) + Send + Sync>,
    /// Lines of its log that were not passed on.
    pub dropped_lines: Arc<AtomicU64>,
}

/// Why no tailscaled can be managed.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// The binary cannot be run, and nothing else would do.
    #[error("{}", .0.sentence())]
    Binary(TailnetFault),
    /// The node's identity cannot be kept where it is to be.
    #[error(transparent)]
    State(#[from] StateFolderError),
    /// The system gives no pipe.
    #[error("no pipe for tailscaled: {0}")]
    System(#[from] io::Error),
}

/// How a managed tailscaled is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StopRequest {
    No,
    /// By SIGTERM, a node in memory after a logout; SIGKILL when it has not ended 15 s later.
    Gently,
    Now,
}

/// Our part of the tailnet, from start to end.
pub struct TailnetHandle {
    store: StateStore,
    read_key_again: Arc<Notify>,
    stop: watch::Sender<StopRequest>,
    task: JoinHandle<()>,
    pauses: watch::Sender<u64>,
    /// Where a managed node's identity is kept.
    identity: Option<NodeIdentity>,
}

impl TailnetSettings {
    /// The settings' meaning for one start: the id is drawn here.
    pub fn new(
        settings: &config::Tailnet,
        kind: config::UpstreamKind,
        run_dir: PathBuf,
        open_files: u64,
    ) -> Self {
        let id = settings.id.clone().unwrap_or_else(random::random_id);
        let socks = match kind {
            config::UpstreamKind::Tailscaled(port) => Some(port.unwrap_or(process::any_port())),
            _ => None,
        };
        Self {
            tailscaled: settings.tailscaled.clone(),
            socket: settings.socket.clone(),
            run_dir,
            socks,
            hostname: settings.hostname.replace("{id}", &id),
            tags: settings.tags.clone(),
            login_server: settings.login_server.clone(),
            environment: settings.environment.clone(),
            accept_routes: settings.accept_routes,
            start_jitter: settings.start_jitter,
            open_files,
            insisted: settings.insisted,
            state: settings.state.clone(),
            id: settings.id.clone(),
        }
    }
}

impl TailnetHandle {
    /// Uses the tailscaled that is there, or will be, at `settings.socket`.
    pub fn use_external(settings: TailnetSettings) -> Self {
        let (store, pauses) = (StateStore::new(), watch::Sender::new(0));
        let port = settings.socks.filter(|port| port.port() != 0);
        store.update(|state| state.port = port);
        let session = LocalApiSession {
            api: LocalApi::new(&settings.socket),
            store: store.clone(),
            settings: Arc::new(settings),
            login: None,
            pauses: pauses.subscribe(),
        };
        let task = tokio::spawn(session.run_session());
        let (read_key_again, stop) = (Arc::default(), watch::Sender::new(StopRequest::No));
        Self { store, read_key_again, stop, task, pauses, identity: None }
    }

    /// Starts a tailscaled of our own. A binary that cannot be run is a fault of the state, unless one is
    /// insisted on.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn start_managed(
        settings: TailnetSettings,
        keys: KeyProvider,
        children: Arc<Children>,
        hooks: SupervisorHooks,
    ) -> Result<Self, ManageError> {
        let (store, read_key_again) = (StateStore::new(), Arc::new(Notify::new()));
        let (settings, keys) = (Arc::new(settings), Arc::new(keys));
        let login = {
            let (settings, read_key_again) = (Arc::clone(&settings), Arc::clone(&read_key_again));
            move || {
                NodeLogin::new(
                    Arc::clone(&settings),
                    Arc::clone(&keys),
                    Arc::clone(&read_key_again),
                )
            }
        };
        let memory = || memory_folder::make_folder(&children);
        let state = IdentityStore::open_store(&settings.state, settings.id.as_deref(), memory)?;
        let (identity, pauses) = (state.identity(), watch::Sender::new(0));
        let supervisor = TailscaledSupervisor {
            launcher: process::TailscaledLauncher::new(Arc::clone(&settings), children, state)?,
            pauses: pauses.subscribe(),
            store: store.clone(),
            hooks: Arc::new(hooks),
            login: Box::new(login),
            jitter: login::random_delay(settings.start_jitter),
            settings,
        };
        let stop = watch::Sender::new(StopRequest::No);
        let first: Result<RunningTailscaled, TailnetFault> = supervisor.start_child();
        if let (Err(fault), true) = (&first, supervisor.settings.insisted) {
            return Err(ManageError::Binary(fault.clone()));
        }
        let task = tokio::spawn(supervisor.supervise(first, stop.subscribe()));
        Ok(Self { store, read_key_again, stop, task, pauses, identity: Some(identity) })
    }

    /// What is known, and every change of it.
    pub fn subscribe(&self) -> watch::Receiver<TailnetState> {
        self.store.subscribe()
    }

    /// Whether tailscaled is ours.
    pub fn is_managed(&self) -> bool {
        self.identity.is_some()
    }

    /// Where a managed node's identity is kept.
    pub fn identity_label(&self) -> Option<NodeIdentity> {
        self.identity
    }

    /// Where pauses of this machine are to be counted: after one, what is known may be old, and what was
    /// open may be silent.
    pub fn pause_sender(&self) -> watch::Sender<u64> {
        self.pauses.clone()
    }

    /// The key may be another one now: a node that is not in the tailnet logs in with it.
    pub fn key_changed(&self) {
        self.read_key_again.notify_one();
    }

    /// Ends a managed tailscaled, logged out first so that an ephemeral node leaves at once; at once
    /// when `hurry` ends. Somebody else's is left alone.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        if !self.is_managed() {
            return self.task.abort();
        }
        self.stop.send_replace(StopRequest::Gently);
        tokio::select! {
            biased;
            _ = &mut self.task => return,
            () = hurry => {}
        }
        self.stop.send_replace(StopRequest::Now);
        let _ended = self.task.await;
    }
}
