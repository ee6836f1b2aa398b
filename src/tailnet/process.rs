//! The tailscaled we start: which binary, with which command line, environment and descriptors.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use super::child_log::ChildLog;
use super::explain::Fault;
use crate::lifecycle::children::{Child, Children};
use crate::lifecycle::program;
use crate::sys;

/// How long it may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(2);

/// What every start has in common.
pub(super) struct Launcher {
    settings: Arc<Settings>,
    children: Arc<Children>,
    /// Reads as ended when this process is gone, whatever ended it: tailscaled then ends too
    /// (`TS_PARENT_DEATH_FD`, cmd/tailscaled/tailscaled.go:248).
    parent: (io::PipeReader, io::PipeWriter),
}

impl Launcher {
    pub(super) fn new(settings: Arc<Settings>, children: Arc<Children>) -> io::Result<Self> {
        Ok(Self { settings, children, parent: io::pipe()? })
    }

    /// Starts one; what it writes goes to `log`.
    pub(super) fn start(&self, log: &Arc<ChildLog>) -> Result<Child, Fault> {
        let settings = &self.settings;
        let failed = |why: io::Error| Fault::Binary {
            binary: settings.tailscaled.clone(),
            why: why.to_string(),
        };
        let binary = program::find(&settings.tailscaled).map_err(failed)?;
        // A socket of a process that was killed: tailscaled replaces it, but until then it refuses.
        let _none_there = std::fs::remove_file(&settings.socket);
        let mut command = Command::new(binary);
        command.args(arguments(settings)).env_clear().envs(environment(settings));
        command.env("TS_PARENT_DEATH_FD", self.parent.0.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.current_dir(&settings.run_dir);
        let keep = [self.parent.0.as_fd()];
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
                Ok(stderr) => drop(tokio::spawn(Arc::clone(log).follow(stderr))),
                Err(error) => tracing::warn!(%error, "tailscaled's log cannot be read"),
            }
        }
        tracing::info!(pid = child.id(), "tailscaled started");
        Ok(child)
    }

    /// What it calls itself, for the sentence about a flag it does not know.
    pub(super) async fn version(&self) -> String {
        let unknown = || "of unknown version".to_owned();
        let Ok(binary) = program::find(&self.settings.tailscaled) else { return unknown() };
        let mut command = Command::new(binary);
        command.arg("--version").env_clear().envs(environment(&self.settings));
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

fn arguments(settings: &Settings) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["--tun=userspace-networking", "--state=mem:", "--no-logs-no-support"]
            .map(OsString::from)
            .into();
    let mut socket = OsString::from("--socket=");
    socket.push(&settings.socket);
    arguments.push(socket);
    if let Some(port) = settings.socks {
        arguments.push(format!("--socks5-server={port}").into());
    }
    arguments
}

/// An environment of its own: nothing of ours but its way to control and DERP.
fn environment(settings: &Settings) -> Vec<(&'static str, OsString)> {
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
