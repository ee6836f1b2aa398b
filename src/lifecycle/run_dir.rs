//! The run directory: ours alone, and `gateway.json` in it, by which commands find the gateway.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::target::Forward;

/// The file `up` writes when it listens and removes at the end.
const FILE: &str = "gateway.json";
/// More than the file ever holds.
const MAX_FILE: u64 = 64 * 1024;

/// Where a running gateway is to be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The process id of the gateway that wrote the file.
    pub pid: u32,
    /// The version of the gateway that wrote the file.
    pub version: String,
    /// Where it listens; in the file these keys stand beside the others.
    #[serde(flatten)]
    pub listening: Listening,
}

/// Where a gateway listens, every address as bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The one proxy port.
    pub proxy: Vec<SocketAddr>,
    /// The listeners with `IP_TRANSPARENT`, for connections that TPROXY leads here.
    #[serde(default)]
    pub tproxy: Vec<SocketAddr>,
    /// The listener for metrics, health and the API.
    pub admin: SocketAddr,
    /// Each static forward with the address it listens at.
    #[serde(default)]
    pub forward: Vec<Forward>,
    /// DNS for `run`, UDP and TCP; always on loopback.
    pub dns: Option<SocketAddr>,
    /// DNS for clients, UDP and TCP.
    pub dns_clients: Option<SocketAddr>,
}

impl Listening {
    /// Every listener of ours: a target that leads to one is a loop.
    pub fn all(&self) -> Vec<SocketAddr> {
        let forward = self.forward.iter().map(|forward| forward.listen);
        let dns = self.dns.into_iter().chain(self.dns_clients);
        let proxy = self.proxy.iter().chain(&self.tproxy).copied();
        proxy.chain([self.admin]).chain(forward).chain(dns).collect()
    }
}

/// Why the run directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// It cannot be made or looked at.
    #[error("run_dir {path}: {source}; set run_dir to a folder this user can create")]
    Unusable {
        /// The folder, or the file in it that cannot be written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a link, or no folder.
    #[error("run_dir {path} is not a folder of its own: remove it, or set run_dir elsewhere")]
    NotAFolder {
        /// The run directory's path, as set or chosen by default.
        path: PathBuf,
    },
    /// It belongs to somebody else, who could put files there.
    #[error(
        "run_dir {path} belongs to uid {owner}, not to {us}: set run_dir to a folder of your own"
    )]
    Foreign {
        /// The run directory's path, as set or chosen by default.
        path: PathBuf,
        /// The uid the folder belongs to.
        owner: u32,
        /// The effective uid of this process.
        us: u32,
    },
}

/// A run directory that is ours: 0700, no link, our uid.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

/// The published file; dropping it removes the file.
#[derive(Debug)]
pub struct Publication {
    path: PathBuf,
    pid: u32,
}

impl RunDir {
    /// Makes the folder, or checks the one that is there; others' rights are taken away.
    ///
    /// # Errors
    /// [`RunDirError`], naming the folder.
    pub fn open(path: &Path) -> Result<Self, RunDirError> {
        let unusable = |source| RunDirError::Unusable { path: path.to_owned(), source };
        let mut builder = DirBuilder::new();
        match builder.recursive(true).mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unusable(error));
            }
            _ => {}
        }
        let seen = fs::symlink_metadata(path).map_err(unusable)?;
        if !seen.is_dir() {
            return Err(RunDirError::NotAFolder { path: path.to_owned() });
        }
        let us = rustix::process::geteuid().as_raw();
        if seen.uid() != us {
            return Err(RunDirError::Foreign { path: path.to_owned(), owner: seen.uid(), us });
        }
        if seen.mode() & 0o077 != 0 {
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(path, private).map_err(unusable)?;
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Writes `gateway.json`, whole or not at all, readable by us alone.
    ///
    /// # Errors
    /// [`RunDirError::Unusable`], for a full disk say.
    pub fn publish(&self, listening: Listening) -> Result<Publication, RunDirError> {
        let pid = std::process::id();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let published = Published { pid, version, listening };
        let path = self.path.join(FILE);
        let unusable = |source| RunDirError::Unusable { path: path.clone(), source };
        let text = serde_json::to_vec(&published).map_err(|error| unusable(error.into()))?;
        let fresh = self.path.join(format!(".{FILE}.{pid}"));
        let write = || -> io::Result<()> {
            let _stale = fs::remove_file(&fresh);
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(unusable)?;
        Ok(Publication { path, pid })
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        // A gateway started meanwhile has written its own: leave that one.
        let ours = self.path.parent().and_then(read).is_some_and(|seen| seen.pid == self.pid);
        if ours {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

/// What a gateway published in `run_dir`; none when there is no sound file of ours. A stranger's
/// file, a link or a pipe is none: it could send commands to the wrong gateway, or hold them up.
pub fn read(run_dir: &Path) -> Option<Published> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).ok()?;
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(run_dir.join(FILE)).ok()?;
    let seen = file.metadata().ok()?;
    if !seen.is_file() || seen.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn listening() -> Listening {
        let [proxy, admin, listen] =
            ["127.0.0.1:1055", "127.0.0.1:9155", "127.0.0.1:5432"].map(|at| at.parse().unwrap());
        let target = "db.corp.example:5432".to_owned().try_into().unwrap();
        let forward = vec![Forward { listen, target }];
        let (proxy, dns) = (vec![proxy], Some(proxy));
        Listening { proxy, tproxy: Vec::new(), admin, forward, dns, dns_clients: None }
    }

    #[test]
    fn the_folder_and_the_file_are_ours_alone() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/run");
        let run_dir = RunDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let publication = run_dir.publish(listening()).unwrap();
        let file = path.join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().listening, listening());
        drop(publication);
        assert!(!file.exists());
    }

    #[test]
    fn a_link_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let link = base.path().join("link");
        symlink(base.path(), &link).unwrap();
        assert!(matches!(RunDir::open(&link), Err(RunDirError::NotAFolder { .. })));
    }

    #[test]
    fn a_link_to_a_sound_file_is_not_read() {
        let base = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(&base.path().join("run")).unwrap();
        let _publication = run_dir.publish(listening()).unwrap();
        let other = base.path().join("other");
        fs::create_dir(&other).unwrap();
        symlink(base.path().join("run").join(FILE), other.join(FILE)).unwrap();
        assert_eq!(read(&other), None);
    }
}
