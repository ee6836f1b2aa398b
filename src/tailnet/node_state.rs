//! Where a managed tailscaled keeps its node's identity (its machine key and node key): `tailnet.state`.
//!
//! `memory`: in a folder in memory without a path, which this process holds by its descriptor. Every
//! tailscaled it starts is then the same node; when gateway and tailscaled are gone, whatever ended them,
//! nothing is left anywhere that could join a tailnet.
//!
//! A folder of the user's outlives the gateway. It may be copied, as a snapshot of a sandbox is; two nodes
//! with one identity would take the tailnet from each other, so a start that finds another machine or
//! another `TAILRACE_ID` than the last one joins as a new node.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::config::NodeState;
use crate::labels::NodeIdentity;

/// tailscaled's own file, as it is called in its state directory (paths/paths.go).
const STATE_FILE: &str = "tailscaled.state";
/// Which machine and sandbox wrote it last.
const MARKER: &str = "tailrace-machine.json";
/// Held by the gateway that uses the folder.
const LOCK: &str = "tailrace.lock";
/// More than a marker takes.
const MAX_MARKER: u64 = 4096;
/// More than the state of any node takes, in bytes: some kilobytes for each profile.
const MAX_STATE: u64 = 16 << 20;

/// What may tell a copy from its original. Each part is absent where the system does not tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MachineIdentity {
    /// Drawn by the kernel at each boot (random(4)).
    boot_id: Option<String>,
    /// Changed by a hypervisor that starts a machine from a snapshot (VM generation ID), where its
    /// firmware interface tells it.
    generation_id: Option<String>,
    /// `TAILRACE_ID`.
    tailrace_id: Option<String>,
}

/// The place of one gateway's node identity.
#[derive(Debug)]
pub(super) enum IdentityStore {
    /// In tailscaled's own memory: each one is a new node, and logs out at its end by itself.
    Ephemeral,
    /// In a folder that only this descriptor leads to.
    Memory(OwnedFd),
    /// In a folder of the user's.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Locked until the gateway ends.
        _lock: File,
    },
}

/// Why a folder cannot hold the identity.
#[derive(Debug, thiserror::Error)]
pub enum StateFolderError {
    /// It cannot be made, read or written.
    #[error("tailnet.state {path}: {source}; name a folder this user can create")]
    Unusable {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others can read or write there, or it is somebody else's.
    #[error(
        "tailnet.state {path} holds a node's keys and is {fault}: make it a folder of your own, \
         mode 0700"
    )]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Another gateway uses it now.
    #[error(
        "tailnet.state {path} is in use by another gateway: give each its own folder, for two \
         nodes with one identity take the tailnet from each other"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

impl IdentityStore {
    /// Opens the place that the settings name. Where memory without a path cannot be had, each
    /// tailscaled is a new node, and the log says so.
    ///
    /// # Errors
    /// [`StateFolderError`] for a folder.
    pub(super) fn open_store(
        wanted: &NodeState,
        id: Option<&str>,
        memory: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<Self, StateFolderError> {
        match wanted {
            NodeState::Ephemeral => Ok(Self::Ephemeral),
            NodeState::Memory => Ok(memory().map_or_else(
                |error| {
                    tracing::info!(
                        %error,
                        "tailnet.state = \"memory\" cannot be had here (it needs user namespaces or \
                         CAP_SYS_ADMIN): ephemeral, each tailscaled is a new node and logs in by the key"
                    );
                    Self::Ephemeral
                },
                Self::Memory,
            )),
            NodeState::Folder(path) => Self::open_folder(path, &MachineIdentity::of_this(id)),
        }
    }

    fn open_folder(path: &Path, machine: &MachineIdentity) -> Result<Self, StateFolderError> {
        let unusable =
            |path: &Path, source| StateFolderError::Unusable { path: path.to_owned(), source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| unusable(path, error))?;
        let seen = fs::symlink_metadata(path).map_err(|error| unusable(path, error))?;
        let us = rustix::process::geteuid().as_raw();
        let fault = match (seen.is_dir(), seen.uid() == us, seen.mode() & 0o077) {
            (false, _, _) => Some("no folder but a link or a file".to_owned()),
            (_, false, _) => Some(format!("uid {}'s, not uid {us}'s", seen.uid())),
            (_, _, 0) => None,
            _ => Some(format!("open to others (mode {:04o})", seen.mode() & 0o7777)),
        };
        if let Some(fault) = fault {
            return Err(StateFolderError::Exposed { path: path.to_owned(), fault });
        }
        let lock = path.join(LOCK);
        let held = own_file(&lock, OFlags::CREATE | OFlags::RDWR)
            .map_err(|error| unusable(&lock, error))?;
        if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateFolderError::InUse { path: path.to_owned() });
        }
        let marker = path.join(MARKER);
        let before = read_marker(&marker).map_err(|error| unusable(&marker, error))?;
        if let Some(change) = before.as_ref().and_then(|before| machine.change_since(before)) {
            tracing::warn!(
                folder = %path.display(),
                change,
                "the node's identity was copied from another machine or sandbox: this one joins as a new node"
            );
            let state = path.join(STATE_FILE);
            match fs::remove_file(&state) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unusable(&state, error));
                }
                _ => {}
            }
        }
        let state = path.join(STATE_FILE);
        set_aside_unreadable(&state).map_err(|error| unusable(&state, error))?;
        write_marker(&marker, machine).map_err(|error| unusable(&marker, error))?;
        Ok(Self::Folder { path: path.to_owned(), _lock: held })
    }

    /// The argument of tailscaled's `--state`.
    pub(super) fn state_argument(&self) -> OsString {
        match self {
            Self::Ephemeral => "mem:".into(),
            Self::Memory(folder) => {
                format!("/proc/self/fd/{}/{STATE_FILE}", folder.as_raw_fd()).into()
            }
            Self::Folder { path, .. } => path.join(STATE_FILE).into(),
        }
    }

    /// A descriptor that tailscaled needs under the number it has here.
    pub(super) fn inherited_descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Memory(folder) => Some(folder.as_fd()),
            Self::Ephemeral | Self::Folder { .. } => None,
        }
    }

    /// Whether the node is to be logged out by us at the end: tailscaled does it by itself only with
    /// `mem:` (ipn/ipnlocal/local.go, Shutdown), and an identity in a folder is to live on.
    pub(super) fn wants_logout(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Whether the next tailscaled is the same node.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self, Self::Ephemeral)
    }

    /// As `status` names it.
    pub(super) fn identity(&self) -> NodeIdentity {
        match self {
            Self::Ephemeral => NodeIdentity::Ephemeral,
            Self::Memory(_) => NodeIdentity::Memory,
            Self::Folder { .. } => NodeIdentity::Folder,
        }
    }
}

impl MachineIdentity {
    fn of_this(id: Option<&str>) -> Self {
        let read = |path: &str| {
            let text = String::from_utf8_lossy(&fs::read(path).ok()?).trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let generation = fs::read("/sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_guid/raw");
        Self {
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            generation_id: generation
                .ok()
                .map(|bytes| bytes.iter().map(|b| format!("{b:02x}")).collect()),
            tailrace_id: id.map(str::to_owned),
        }
    }

    /// What differs from `before`, in the words of the log.
    fn change_since(&self, before: &Self) -> Option<&'static str> {
        if self.boot_id != before.boot_id {
            Some("the boot id changed")
        } else if self.generation_id != before.generation_id {
            Some("the machine's generation id changed")
        } else if self.tailrace_id != before.tailrace_id {
            Some("TAILRACE_ID changed")
        } else {
            None
        }
    }
}

/// Opens a file of the folder's own: a link, a pipe or a device in its place is an error and never waited for.
fn own_file(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// A state that is torn, or no state at all, is of no use to tailscaled, which would refuse to start with it
/// again and again: it is kept under another name, and the node joins as a new one.
fn set_aside_unreadable(state: &Path) -> io::Result<()> {
    use io::Read as _;
    let file = match own_file(state, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut text = zeroize::Zeroizing::new(Vec::new());
    file.take(MAX_STATE).read_to_end(&mut text)?;
    // An empty one is a missing one to tailscaled (ipn/store/stores.go, NewFileStore).
    let kept: Result<HashMap<String, IgnoredAny>, _> = serde_json::from_slice(&text);
    if text.is_empty() || kept.is_ok() {
        return Ok(());
    }
    let aside = state.with_extension("state.unreadable");
    fs::rename(state, &aside)?;
    tracing::warn!(
        kept = %aside.display(),
        "the node's identity in tailnet.state cannot be read: this gateway joins as a new node"
    );
    Ok(())
}

/// A marker that cannot be understood counts as another machine's: its identity is not used.
fn read_marker(path: &Path) -> io::Result<Option<MachineIdentity>> {
    use io::Read as _;
    let file = match own_file(path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_MARKER).read_to_end(&mut text)?;
    let unknown =
        || MachineIdentity { boot_id: Some("unreadable".to_owned()), ..Default::default() };
    Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|_| unknown())))
}

/// Written whole or not at all.
fn write_marker(path: &Path, machine: &MachineIdentity) -> io::Result<()> {
    use io::Write as _;
    let part = path.with_extension("part");
    let _none_left_behind = fs::remove_file(&part);
    let mut file = own_file(&part, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)?;
    file.write_all(&serde_json::to_vec(machine)?)?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn this_machine(boot: &str, id: Option<&str>) -> MachineIdentity {
        MachineIdentity {
            boot_id: Some(boot.to_owned()),
            generation_id: None,
            tailrace_id: id.map(str::to_owned),
        }
    }

    /// Opens the folder, looks whether a state is there, leaves one, and lets go.
    fn finds_state(folder: &Path, machine: &MachineIdentity) -> bool {
        let store = IdentityStore::open_folder(folder, machine).unwrap();
        let state = PathBuf::from(store.state_argument());
        let found = state.exists();
        fs::write(&state, "{}").unwrap();
        found
    }

    #[test]
    fn v10_a_copy_is_told_by_its_machine_and_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        assert!(!finds_state(&folder, &this_machine("a", Some("1"))), "nothing was there");
        assert!(finds_state(&folder, &this_machine("a", Some("1"))));
        assert!(!finds_state(&folder, &this_machine("b", Some("1"))), "another boot");
        assert!(!finds_state(&folder, &this_machine("b", Some("2"))), "another id");
        assert!(!finds_state(&folder, &this_machine("b", None)));
        assert!(finds_state(&folder, &this_machine("b", None)));
        let cloned =
            MachineIdentity { generation_id: Some("0f".into()), ..this_machine("b", None) };
        assert!(!finds_state(&folder, &cloned), "another generation");
        fs::write(folder.join(MARKER), "torn {").unwrap();
        assert!(!finds_state(&folder, &cloned), "nobody knows whose it is");
    }

    #[test]
    fn v10_one_folder_serves_one_gateway() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let first = IdentityStore::open_folder(folder.path(), &this_machine("a", None)).unwrap();
        let second = IdentityStore::open_folder(folder.path(), &this_machine("a", None));
        assert!(matches!(second, Err(StateFolderError::InUse { .. })), "{second:?}");
        drop(first);
        IdentityStore::open_folder(folder.path(), &this_machine("a", None)).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o750, 0o701, 0o722] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error =
                IdentityStore::open_folder(folder.path(), &this_machine("a", None)).unwrap_err();
            assert!(error.to_string().contains(&format!("mode 0{mode:o}")), "{error}");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let error = IdentityStore::open_folder(&link, &this_machine("a", None)).unwrap_err();
        assert!(error.to_string().contains("no folder"), "{error}");
    }

    #[test]
    fn v10_pipes_links_and_torn_files_in_the_folder_are_not_waited_for_nor_followed() {
        let victim = tempfile::NamedTempFile::new().unwrap();
        fs::write(&victim, "precious").unwrap();
        for name in [LOCK, MARKER, STATE_FILE, "tailrace-machine.part"] {
            for link in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
                let file = folder.path().join(name);
                match link {
                    true => std::os::unix::fs::symlink(victim.path(), &file).unwrap(),
                    false => rustix::fs::mknodat(
                        rustix::fs::CWD,
                        &file,
                        rustix::fs::FileType::Fifo,
                        Mode::RUSR | Mode::WUSR,
                        0,
                    )
                    .unwrap(),
                }
                let opened = IdentityStore::open_folder(folder.path(), &this_machine("a", None));
                // A part left behind is removed, whatever it is; the others are refused.
                assert_eq!(opened.is_ok(), name == "tailrace-machine.part", "{name}: {opened:?}");
                assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
            }
        }
    }

    #[test]
    fn v10_a_torn_identity_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let state = folder.path().join(STATE_FILE);
        for (text, kept) in
            [("{\"torn", false), ("[]", false), ("", true), ("{\"_m\":\"eA==\"}", true)]
        {
            fs::write(&state, text).unwrap();
            drop(IdentityStore::open_folder(folder.path(), &this_machine("a", None)).unwrap());
            assert_eq!(state.exists(), kept, "{text:?}");
        }
        let aside = folder.path().join("tailscaled.state.unreadable");
        assert_eq!(fs::read_to_string(aside).unwrap(), "[]", "nothing is lost");
    }

    #[test]
    fn without_memory_each_tailscaled_is_a_new_node() {
        let refused = || Err(io::ErrorKind::PermissionDenied.into());
        let store = IdentityStore::open_store(&NodeState::Memory, None, refused).unwrap();
        assert_eq!(
            (store.state_argument(), store.identity()),
            ("mem:".into(), NodeIdentity::Ephemeral)
        );
        assert!(!store.wants_logout());
    }
}
