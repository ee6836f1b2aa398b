//! Whether tailscaled is there and can be run.
#![forbid(unsafe_code)]

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::gateway_discovery::Given;
use crate::api::FaultAnswer;
use crate::config::Loaded;
use crate::lifecycle::program;
use crate::tailnet::explain::TailnetFault;

/// For its version to be told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// More than a version takes.
const MAX_VERSION: u64 = 4096;

/// The binary of the settings as they stand, checked; nothing where none is wanted.
pub(super) fn of(given: &Given) -> Option<Result<String, FaultAnswer>> {
    let loaded = given.load().ok()?;
    wanted(&loaded).map(|binary| check(&binary))
}

/// `tailnet.tailscaled`; none with an upstream kind that needs no tailscaled.
pub(super) fn wanted(loaded: &Loaded) -> Option<String> {
    let tailnet = loaded.checked.config.tailnet.as_ref()?;
    Some(tailnet.tailscaled.to_string_lossy().into_owned())
}

/// Runs it for its version: a binary of another machine is there and executable all the same.
pub(super) fn check(binary: &str) -> Result<String, FaultAnswer> {
    match program::find(Path::new(binary)).and_then(|binary| version(&binary)) {
        Ok(version) => Ok(format!("{binary} {version}")),
        Err(error) => {
            let fault =
                TailnetFault::Binary { binary: PathBuf::from(binary), why: error.to_string() };
            Err(fault.advice())
        }
    }
}

fn version(binary: &Path) -> io::Result<String> {
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not tell its version"));
        }
        std::thread::park_timeout(PAUSE);
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_VERSION).read_to_end(&mut said)?;
    }
    Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t8_missing_not_executable_and_wrong_machine_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        // Written by a shell: a file that this process has open for writing could not be run.
        let script = "printf '#!/bin/sh\necho 1.98.9\necho more\n' >fine; cp fine closed; \
                      printf '\\177ELF of no machine at all' >foreign; chmod 755 fine foreign";
        let mut shell = Command::new("sh");
        assert!(shell.args(["-c", script]).current_dir(&folder).status().unwrap().success());
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let fine = path("fine");
        assert_eq!(check(&fine), Ok(format!("{fine} 1.98.9")));
        for (binary, why) in [
            (path("none"), "No such file"),
            ("tailscaled-that-is-nowhere".to_owned(), "none of that name in PATH"),
            (path("closed"), "it is not executable"),
            (path("foreign"), "no program for this machine"),
        ] {
            let advice = check(&binary).unwrap_err();
            assert!(advice.cause.contains(&binary) && advice.cause.contains(why), "{advice:?}");
        }
    }
}
