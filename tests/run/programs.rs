//! The programs the tests of `run` wrap: built once, kept by what they are made of.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tailrace_rig::skip;

const PROBE: &str = include_str!("probe.c");
const DENY: &str = include_str!("deny.c");
const DIALER: &str = include_str!("dialer.go");
const ADDRESSES: &str = include_str!("addresses.c");

/// A program the tests need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// `probe.c` with glibc, dynamic.
    Probe,
    /// `probe.c` with musl, static.
    Musl,
    /// `deny.c`.
    Deny,
    /// `dialer.go`, static.
    Go,
    /// `addresses.c` with glibc, dynamic.
    Addresses,
    /// `addresses.c` with musl, static.
    AddressesMusl,
}

impl Program {
    /// Its path; skips the test by name, and gives none, where its compiler is missing.
    #[track_caller]
    pub(crate) fn path(self) -> Option<&'static Path> {
        static BUILT: [OnceLock<Result<PathBuf, String>>; 6] = [const { OnceLock::new() }; 6];
        match BUILT[self as usize].get_or_init(|| self.build()) {
            Ok(path) => Some(path),
            Err(why) => {
                skip(why);
                None
            }
        }
    }

    fn build(self) -> Result<PathBuf, String> {
        let (text, suffix) = match self {
            Self::Probe | Self::Musl => (PROBE, "c"),
            Self::Deny => (DENY, "c"),
            Self::Go => (DIALER, "go"),
            Self::Addresses | Self::AddressesMusl => (ADDRESSES, "c"),
        };
        let mut hash = DefaultHasher::new();
        text.hash(&mut hash);
        let folder = folder();
        let built = folder.join(format!("{self:?}-{:016x}", hash.finish()));
        if built.exists() {
            return Ok(built);
        }
        let mine = folder.join(format!("{self:?}-{}", std::process::id()));
        let source = mine.with_extension(suffix);
        std::fs::write(&source, text).unwrap();
        let mut command = self.compiler();
        command.arg("-o").arg(&mine).arg(&source);
        let done = command.stdin(Stdio::null()).output();
        let done = done.map_err(|error| format!("needs {:?}: {error}", command.get_program()))?;
        assert!(done.status.success(), "{self:?}: {}", String::from_utf8_lossy(&done.stderr));
        std::fs::remove_file(source).unwrap();
        std::fs::rename(mine, &built).unwrap();
        Ok(built)
    }

    fn compiler(self) -> Command {
        let (program, arguments): (&str, &[&str]) = match self {
            Self::Probe | Self::Addresses => ("gcc", &["-O1", "-pthread"]),
            Self::Musl | Self::AddressesMusl => ("musl-gcc", &["-O1", "-pthread", "-static"]),
            Self::Deny => ("gcc", &["-O1"]),
            Self::Go => ("go", &["build"]),
        };
        let mut command = Command::new(program);
        command.args(arguments).env("CGO_ENABLED", "0").env("GOFLAGS", "-trimpath");
        command
    }
}

/// Where they are kept: cargo's folder for tests, or the temporary one where that is not ours.
fn folder() -> PathBuf {
    let cargo = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ours = tempfile::tempfile_in(cargo).is_ok();
    if ours { cargo.to_owned() } else { std::env::temp_dir() }
}
