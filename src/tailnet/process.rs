//! The tailscaled we start: which binary, with which command line, environment and descriptors.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::TailnetSettings;
use super::child_log::ChildLog;
use super::explain::TailnetFault;
use super::node_state::IdentityStore;
use crate::lifecycle::children::{Child, Children};
use crate::lifecycle::program;
use crate::sys;

/// How long it may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(2);

/// What every start has in common.
pub(super) struct TailscaledLauncher {
    settings: Arc<TailnetSettings>,
    children: Arc<Children>,
    /// Where its node's identity is kept.
    state: IdentityStore,
    /// Its UDP port, the same for every one of them that is the same node: for some seconds peers go on
    /// sending to the address they know (`trustUDPAddrDuration`, wgengine/magicsock), the answers to the
    /// new one's first handshakes among them.
    udp_port: Option<u16>,
    /// The binary as it is run.
    executable: Mutex<Option<TailscaledBinary>>,
    /// Reads as ended when this process is gone, whatever ended it: tailscaled then ends too
    /// (`TS_PARENT_DEATH_FD`, cmd/tailscaled/tailscaled.go:248).
    parent: (io::PipeReader, io::PipeWriter),
}

/// A binary, and the copy of it that its user cannot read, where one can be made.
struct TailscaledBinary {
    path: PathBuf,
    /// Device, inode, size and time of change: another file under the same path is another binary.
    seen: (u64, u64, u64, i64),
    unreadable: Option<OwnedFd>,
}

impl TailscaledLauncher {
    pub(super) fn new(
        settings: Arc<TailnetSettings>,
        children: Arc<Children>,
        state: IdentityStore,
    ) -> io::Result<Self> {
        let udp_port = if state.is_kept() { free_udp_port() } else { None };
        let (executable, parent) = (Mutex::default(), io::pipe()?);
        Ok(Self { settings, children, state, udp_port, executable, parent })
    }

    /// Where the node's identity is kept.
    pub(super) fn identity_store(&self) -> &IdentityStore {
        &self.state
    }

    /// Starts one; what it writes goes to `log`.
    pub(super) fn start_child(&self, log: &Arc<ChildLog>) -> Result<Child, TailnetFault> {
        let settings = &self.settings;
        let failed = |why: io::Error| TailnetFault::Binary {
            binary: settings.tailscaled.clone(),
            why: why.to_string(),
        };
        let binary = program::find(&settings.tailscaled).map_err(failed)?;
        // A socket of a process that was killed: tailscaled replaces it, but until then it refuses.
        let _none_there = std::fs::remove_file(&settings.socket);
        // Held until the program has begun: the command names its descriptor.
        let mut executable = self.executable.lock().unwrap_or_else(PoisonError::into_inner);
        let executable =
            TailscaledBinary::refresh_binary(&mut executable, binary, &settings.run_dir);
        let state = self.state_for(executable);
        let mut command = executable.child_command();
        command
            .args(child_arguments(settings, state, self.udp_port))
            .env_clear()
            .envs(child_environment(settings));
        command.env("TS_PARENT_DEATH_FD", self.parent.0.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.current_dir(&settings.run_dir);
        let keep: Vec<_> =
            state.inherited_descriptor().into_iter().chain([self.parent.0.as_fd()]).collect();
        let preparation = sys::Preparation {
            keep: &keep,
            open_files: Some(settings.open_files),
            no_core: true,
            own_group: true,
        };
        sys::prepare(&mut command, preparation).map_err(failed)?;
        let mut child = self.children.spawn(command).map_err(failed)?;
        if let Some(stderr) = child.take_stderr() {
            match tokio::net::unix::pipe::Receiver::from_owned_fd(stderr.into()) {
                Ok(stderr) => drop(tokio::spawn(Arc::clone(log).read_to_end(stderr))),
                Err(error) => tracing::warn!(%error, "tailscaled's log cannot be read"),
            }
        }
        tracing::info!(
            pid = child.id(),
            node_identity = state.identity().label(),
            "tailscaled started"
        );
        Ok(child)
    }

    /// A folder that only a descriptor leads to is no secret while that descriptor is open in a process
    /// that its user may look into: then every tailscaled is a new node.
    fn state_for(&self, executable: &TailscaledBinary) -> &IdentityStore {
        let looked_into = executable.unreadable.is_none() && !rustix::process::geteuid().is_root();
        if looked_into && matches!(self.state, IdentityStore::Memory(_)) {
            tracing::info!(
                binary = %executable.path.display(),
                "programs of this user can look into this tailscaled (a script, or no copy could be \
                 made): its node's identity is not kept, each tailscaled is a new node"
            );
            return &IdentityStore::Ephemeral;
        }
        &self.state
    }

    /// What it calls itself, for the sentence about a flag it does not know.
    pub(super) async fn version_said(&self) -> String {
        let unknown = || "of unknown version".to_owned();
        let Ok(binary) = program::find(&self.settings.tailscaled) else { return unknown() };
        let mut command = Command::new(binary);
        command.arg("--version").env_clear().envs(child_environment(&self.settings));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let said = tokio::time::timeout(VERSION_PATIENCE, self.first_line(command)).await;
        said.ok().flatten().map_or_else(unknown, |said| format!("version {said}"))
    }

    async fn first_line(&self, command: Command) -> Option<String> {
        use tokio::io::AsyncReadExt as _;
        let mut child = self.children.spawn(command).ok()?;
        let stdout = child.take_stdout()?;
        let stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout.into()).ok()?;
        let mut text = String::new();
        stdout.take(1024).read_to_string(&mut text).await.ok()?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.chars().take(64).collect())
    }
}

impl TailscaledBinary {
    /// The binary at `path` as it is now.
    fn refresh_binary<'a>(known: &'a mut Option<Self>, path: PathBuf, run_dir: &Path) -> &'a Self {
        let identity = |seen: Metadata| (seen.dev(), seen.ino(), seen.size(), seen.ctime());
        let seen = std::fs::metadata(&path).map(identity).unwrap_or_default();
        let same = known.take().filter(|known| known.path == path && known.seen == seen);
        known.insert(same.unwrap_or_else(|| {
            let unreadable = sys::unreadable_copy(&path, run_dir).unwrap_or_else(|error| {
                tracing::warn!(binary = %path.display(), %error, "tailscaled is run as it is");
                None
            });
            Self { path, seen, unreadable }
        }))
    }

    fn child_command(&self) -> Command {
        match &self.unreadable {
            Some(copy) => {
                let mut command = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
                command.arg0(&self.path);
                command
            }
            None => Command::new(&self.path),
        }
    }
}

fn child_arguments(
    settings: &TailnetSettings,
    state: &IdentityStore,
    udp_port: Option<u16>,
) -> Vec<OsString> {
    let mut kept = OsString::from("--state=");
    kept.push(state.state_argument());
    let mut arguments: Vec<OsString> =
        vec!["--tun=userspace-networking".into(), kept, "--no-logs-no-support".into()];
    let mut socket = OsString::from("--socket=");
    socket.push(&settings.socket);
    arguments.push(socket);
    // A port that is taken meanwhile is no failure: it then picks another one (magicsock.go, bindSocket).
    if let Some(port) = udp_port {
        arguments.push(format!("--port={port}").into());
    }
    if let Some(port) = settings.socks {
        arguments.push(format!("--socks5-server={port}").into());
    }
    arguments
}

/// A UDP port that nobody has now.
fn free_udp_port() -> Option<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    Some(socket.local_addr().ok()?.port())
}

/// An environment of its own: nothing of ours but its way to control and DERP.
fn child_environment(settings: &TailnetSettings) -> Vec<(&'static str, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| program::PATH.into());
    let run_dir = settings.run_dir.clone().into_os_string();
    // TS_LOGS_DIR: where `tailscaled.log.conf` goes, which would end up in the user's home otherwise.
    // The port mapper asks the local network's routers for a way in, which nobody here wants.
    let own = [
        ("PATH", path),
        ("HOME", run_dir.clone()),
        ("TS_LOGS_DIR", run_dir),
        ("TS_DISABLE_PORTMAPPER", "1".into()),
    ];
    let way = settings.environment.iter().map(|(name, value)| (*name, value.into()));
    own.into_iter().chain(way).collect()
}

/// The port asked for on the command line: the kernel picks one where none is set.
pub(super) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
