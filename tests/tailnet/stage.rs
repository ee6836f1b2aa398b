//! Where the proof plays: this program again, as the first process of a PID namespace, root there; once
//! for each version of tailscaled.
//!
//! When that process ends, or this program is killed, the kernel ends everything inside.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::version::Version;

/// Set in the run that becomes `unshare`, which dies with its parent; its value is the version.
const DOOR: &str = "TAILRACE_TAILNET_DOOR";
/// Set in the inner run; its value is the version.
const INSIDE: &str = "TAILRACE_TAILNET_INSIDE";
/// Set beside both: the folder of the programs.
const PROGRAMS: &str = "TAILRACE_TAILNET_PROGRAMS";

/// The pinned programs that tests/tailnet/install builds, of one version.
pub struct Programs {
    pub version: Version,
    /// Of tailscaled and its command line.
    pub folder: PathBuf,
    pub headscale: PathBuf,
}

/// In the inner run: what it is to run on. The run before it becomes that one, and does not return.
pub fn inside() -> Option<Programs> {
    if let Some(version) = std::env::var_os(DOOR) {
        panic!("cannot run unshare: {}", go_in(&version.to_string_lossy()));
    }
    let version = std::env::var(INSIDE).ok()?;
    let version = Version::of(&version).expect("a version this proof knows");
    let folder = PathBuf::from(std::env::var_os(PROGRAMS).expect("set beside it"));
    end_on_signal();
    Some(Programs {
        version,
        folder: folder.join(version.label()),
        headscale: folder.join("headscale/headscale"),
    })
}

/// The folder of the built programs, if the proof can be run here; otherwise why not.
pub fn ready() -> Result<PathBuf, String> {
    for command in ["unshare", "ip", "curl", "openssl"] {
        if !have(command) {
            return Err(format!("needs the command {command}"));
        }
    }
    let folder = programs()?;
    possible()?;
    Ok(folder.into())
}

/// This program with the same arguments, to be run inside for this version.
pub fn inner(version: Version, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(std::env::args_os().skip(1)).env(DOOR, version.label()).env(PROGRAMS, folder);
    command
}

/// Becomes `unshare`, which runs this program inside.
fn go_in(version: &str) -> std::io::Error {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let me = std::env::current_exe().expect("own path");
    let arguments = std::env::args_os().skip(1);
    unshare().arg(me).args(arguments).env_remove(DOOR).env(INSIDE, version).exec()
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
        _ => Err(
            "tailscaled of every version and headscale are not built: run tests/tailnet/install \
                  (some minutes, into ~/.cache/tailrace; it brings its own Go if need be)"
                .to_owned(),
        ),
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
