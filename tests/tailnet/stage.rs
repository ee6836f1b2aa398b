//! Where the proof plays: this program again, as the first process of a PID namespace, root there.
//!
//! When that process ends, or this program is killed, the kernel ends everything inside.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Set in the inner run; its value is the folder of the programs.
const INSIDE: &str = "TAILRACE_TAILNET_PROGRAMS";

/// The pinned programs that tests/tailnet/install builds.
pub struct Programs {
    pub folder: PathBuf,
}

/// Goes inside (this call then does not return: the inner run's call does), or says why it cannot.
pub fn enter() -> Result<Programs, String> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        end_on_signal();
        return Ok(Programs { folder: folder.into() });
    }
    for command in ["unshare", "ip", "curl", "openssl"] {
        if !have(command) {
            return Err(format!("needs the command {command}"));
        }
    }
    let folder = programs()?;
    possible()?;
    let me = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let error = unshare().arg(me).args(std::env::args_os().skip(1)).env(INSIDE, folder).exec();
    Err(format!("cannot run unshare: {error}"))
}

/// Whether a command of that name is in PATH.
pub fn have(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// The folder of the built programs. Building them is not for a test to do by surprise.
fn programs() -> Result<String, String> {
    let install = crate::source::source("tests/tailnet/install");
    let found = Command::new(install).arg("--where").output();
    match found {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => Err("tailscaled and headscale are not built: run tests/tailnet/install \
                  (some minutes, into ~/.cache/tailrace; it brings its own Go if need be)"
            .to_owned()),
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command
}

fn possible() -> Result<(), String> {
    let tried = unshare().arg("true").output().map_err(|e| format!("cannot run unshare: {e}"))?;
    if tried.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ");
    Err(format!("needs root or unprivileged user namespaces: {why}"))
}

/// The first process of a PID namespace ignores signals nobody handles; Ctrl-C has to end it.
fn end_on_signal() {
    std::thread::spawn(|| {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM");
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        std::process::exit(130);
    });
}
