//! What is done where no supervisor is to be had: a shim that dynamic programs load (ld.so(8), `LD_PRELOAD`).
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PrivateFolder;
use super::routing::GatewayAccess;

/// `preload.c`, built; none where there was no C compiler.
#[cfg(preload)]
const SHIM: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/preload.so")));
#[cfg(not(preload))]
const SHIM: Option<&[u8]> = None;

/// Has `command` load the library, which lies in `folder`.
///
/// # Errors
/// Why that cannot be, in a sentence.
pub(super) fn set_preload(
    command: &mut Command,
    gateway: &GatewayAccess,
    folder: &PrivateFolder<'_>,
) -> Result<(), String> {
    let shim = SHIM.ok_or("this build has no shim: it was made without a C compiler")?;
    let proxy = gateway.proxy.iter().find(|address| address.is_ipv4());
    let proxy = proxy.ok_or("the shim needs an IPv4 address in listen.proxy")?;
    let file = folder().and_then(|folder| place_library(shim, &folder));
    let file = file.map_err(|error| format!("the shim finds no place: {error}"))?;
    let mut preload = OsString::from(file);
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    command.env("LD_PRELOAD", preload).env("TAILRACE_RUN_PROXY", proxy.to_string());
    command.env_remove("TAILRACE_RUN_DNS");
    if let Some(dns) = gateway.dns.filter(|dns| dns.is_ipv4()) {
        command.env("TAILRACE_RUN_DNS", dns.to_string());
    }
    Ok(())
}

/// The shim's file in a folder that is ours alone, named by what is in it.
fn place_library(shim: &[u8], folder: &Path) -> io::Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    shim.hash(&mut hash);
    let file = folder.join(format!("preload-{:016x}.so", hash.finish()));
    if file.exists() {
        return Ok(file);
    }
    let fresh = folder.join(format!(".preload.{}", std::process::id()));
    let _stale = fs::remove_file(&fresh);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o500).open(&fresh)?.write_all(shim)?;
    fs::rename(&fresh, &file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_in_place_is_used_again_unless_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path();
        let file = place_library(b"shim", ours).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"shim");
        assert_eq!(place_library(b"shim", ours).unwrap(), file);
        assert_ne!(place_library(b"another", ours).unwrap(), file);
    }
}
