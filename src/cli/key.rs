//! The key of `TS_AUTHKEY`, out of the environment at once.
//!
//! Unsetting a variable does not take it out of `/proc/<pid>/environ`: `up` executes itself once more
//! without it, with the key in an inherited pipe (docs/requirements.md, K2, K8).
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use zeroize::Zeroizing;

use crate::config::KEY_FD;
use crate::secret::{BadSecret, Secret};
use crate::sys;

/// The variable tailscale's own tools read.
const VARIABLE: &str = "TS_AUTHKEY";

/// Why the key could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoKey {
    /// What was handed over is no usable key.
    #[error("config: environment {VARIABLE}: {0}")]
    Bad(#[from] BadSecret),
    /// The pipe it comes in is not there.
    #[error("config: environment {KEY_FD}: {0}; it is set by `up` for itself: unset it")]
    Pipe(io::Error),
    /// This program cannot be executed once more.
    #[error("tailrace: the key could not be taken out of the environment: {0}")]
    Exec(io::Error),
}

/// The key, if there is one in the environment. Where it stands in a variable this call does not
/// return, but begins `up` anew without it.
pub(super) fn take() -> Result<Option<Secret>, NoKey> {
    if let Some(number) = std::env::var_os(KEY_FD) {
        let number = number.to_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
        let pipe = sys::inherited(number).map_err(NoKey::Pipe)?;
        return Ok(Some(Secret::read(std::fs::File::from(pipe))?));
    }
    match std::env::var_os(VARIABLE) {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => {
            let text = Zeroizing::new(text.into_string().map_err(|_| BadSecret::NotPrintable)?);
            Err(NoKey::Exec(begin_anew(&Secret::new(&text)?)))
        }
    }
}

/// Returns only when it fails.
fn begin_anew(key: &Secret) -> io::Error {
    let handed_over = || -> io::Result<io::PipeReader> {
        let (reader, mut writer) = io::pipe()?;
        // A key is far smaller than a pipe: this does not wait for the reader.
        writer.write_all(key.expose().as_bytes())?;
        fcntl_setfd(&reader, FdFlags::empty())?;
        Ok(reader)
    };
    let (program, reader) = match std::env::current_exe().and_then(|me| Ok((me, handed_over()?))) {
        Ok(ready) => ready,
        Err(error) => return error,
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    command.arg0(arguments.next().unwrap_or_else(|| "tailrace".into())).args(arguments);
    command.env_remove(VARIABLE).env(KEY_FD, reader.as_raw_fd().to_string());
    command.exec()
}
