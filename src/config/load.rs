//! Finds and reads the settings file, within bounds, then runs both stages.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{CheckedConfig, check_config};
use super::config_problem::{Origin, Problems};
use super::environment::ProcessEnvironment;
use super::from_texts::SettingFlag;
use super::raw_config::{RawConfig, parse};

/// The file read when none is named; it need not exist.
pub const SYSTEM_FILE: &str = "/etc/tailrace/config.toml";

/// Biggest settings file taken, in bytes: far above a policy of 10,000 suffixes.
const MOST: u64 = 1 << 20;

/// Settings that passed every check, and how they were written.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As written, for `config show`.
    pub written: RawConfig,
    /// What the settings mean, with every default filled in.
    pub checked: CheckedConfig,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Reads file, environment and flags and checks them.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(
    named: Option<&Path>,
    env: &ProcessEnvironment,
    flags: &[SettingFlag],
) -> Result<Loaded, Problems> {
    let (written, file) = read(named, env, flags);
    let checked = check_config(&written, env)?;
    Ok(Loaded { written, checked, file })
}

/// Stage one alone, from the file `named`, else `$TAILRACE_CONFIG`, else [`SYSTEM_FILE`].
pub fn read(
    named: Option<&Path>,
    env: &ProcessEnvironment,
    flags: &[SettingFlag],
) -> (RawConfig, Option<PathBuf>) {
    let asked = named.map(Path::to_owned).or_else(|| env.get("TAILRACE_CONFIG").map(Into::into));
    let path = asked.clone().unwrap_or_else(|| SYSTEM_FILE.into());
    match slurp(&path) {
        Ok(Slurped { text, open }) => {
            let mut written = parse(Some((&path, &text)), env, flags);
            if open {
                let what = "is writable by everybody on this host: chmod o-w it";
                written.fail(start_of(&path), what);
            }
            (written, Some(path))
        }
        Err(Unread::Missing) if asked.is_none() => (parse(None, env, flags), None),
        Err(why) => {
            let mut written = parse(None, env, flags);
            written.doubt();
            written.fail(start_of(&path), why.to_string());
            (written, Some(path))
        }
    }
}

struct Slurped {
    text: String,
    /// Its mode lets everybody on this host write it (`o+w`).
    open: bool,
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("no such file: check the path")]
    Missing,
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is a directory: name the file in it")]
    Directory,
    #[error("is not a regular file (pipe, socket or device): write the settings to a file")]
    Special,
    #[error("is larger than 1 MiB: that is no settings file")]
    TooLarge,
    #[error("is not UTF-8 from byte {0} on")]
    Utf8(usize),
}

fn start_of(path: &Path) -> Origin {
    Origin::File { path: Arc::from(path), line: 1, column: 1 }
}

/// Never waits: a pipe without a writer opens at once with `O_NONBLOCK` and is then turned away.
fn slurp(path: &Path) -> Result<Slurped, Unread> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Missing,
        _ => Unread::Io(error),
    })?;
    let open = fit(&file)?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    // It may have grown since it was looked at.
    if bytes.len() as u64 > MOST {
        return Err(Unread::TooLarge);
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|error| Unread::Utf8(error.utf8_error().valid_up_to()))?;
    Ok(Slurped { text, open })
}

/// Refuses what is no settings file; says whether everybody may write it.
fn fit(file: &File) -> Result<bool, Unread> {
    let found = file.metadata()?;
    match found {
        ref dir if dir.is_dir() => Err(Unread::Directory),
        ref odd if !odd.is_file() => Err(Unread::Special),
        ref big if big.len() > MOST => Err(Unread::TooLarge),
        fine => Ok(fine.mode() & 0o002 != 0),
    }
}
