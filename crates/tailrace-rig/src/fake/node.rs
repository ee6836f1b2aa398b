//! Who this node is: what the control server knows it by, and the file tailscaled keeps it in.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::dialect::Dialect;

/// Of the profile in a state file; the real one counts them in hexadecimal.
const PROFILE: &str = "profile-0001";

/// A node of the tailnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its private key: whoever has it is this node.
    key: String,
    /// The host name it came with.
    host: String,
    /// Nodes of that name that were there when it came: 1 makes it `host-1`, with another address.
    number: u32,
}

impl Identity {
    /// The name the control server gave it.
    pub(super) fn name(&self, host: &str) -> String {
        match self.number {
            0 => host.to_owned(),
            number => format!("{host}-{number}"),
        }
    }

    /// The addresses it gave it; `first` are those of a node that is alone with its name.
    pub(super) fn addresses(&self, first: &[IpAddr]) -> Vec<IpAddr> {
        let moved = |address: &IpAddr| -> IpAddr {
            match address {
                IpAddr::V4(v4) => IpAddr::V4((u32::from(*v4) + 64 * self.number).into()),
                IpAddr::V6(v6) => {
                    IpAddr::V6((u128::from(*v6) + u128::from(64 * self.number)).into())
                }
            }
        };
        first.iter().map(moved).collect()
    }
}

/// The control server's list of nodes: a file that every tailscaled of this tailnet shares.
pub(super) struct Nodes(PathBuf);

impl Nodes {
    pub(super) fn beside(folder: &Path) -> Nodes {
        Nodes(folder.join("nodes.json"))
    }

    /// Takes in a node that has no identity.
    pub(super) fn register(&self, host: &str) -> Identity {
        self.change(|nodes| {
            let taken =
                |number: &u32| nodes.iter().any(|it| it.host == host && it.number == *number);
            let number = (0..).find(|number| !taken(number)).unwrap();
            let key = format!("privkey:{:032x}{:032x}", std::process::id(), nodes.len());
            let node = Identity { key, host: host.to_owned(), number };
            nodes.push(node.clone());
            node
        })
    }

    pub(super) fn knows(&self, node: &Identity) -> bool {
        self.change(|nodes| nodes.contains(node))
    }

    /// It was logged out.
    pub(super) fn remove(&self, node: &Identity) {
        self.change(|nodes| nodes.retain(|it| it != node));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Identity>) -> T) -> T {
        let lock = File::create(self.0.with_extension("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let text = std::fs::read(&self.0).unwrap_or_default();
        let mut nodes: Vec<Identity> = serde_json::from_slice(&text).unwrap_or_default();
        let before = nodes.clone();
        let result = change(&mut nodes);
        if nodes != before {
            std::fs::write(&self.0, serde_json::to_vec(&nodes).unwrap()).unwrap();
        }
        result
    }
}

/// `--state`: memory, or a file as ipn/store writes it.
pub(super) enum Store {
    Memory,
    File(PathBuf),
}

impl Store {
    /// Opens it. A file that is not there, or is empty, is begun; what cannot be read is an error.
    pub(super) fn open(state: &str) -> Result<(Store, Option<(Identity, Value)>), String> {
        if state.is_empty() || state.starts_with("mem:") {
            return Ok((Store::Memory, None));
        }
        let store = Store::File(state.into());
        let text = match std::fs::read(state) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        if text.is_empty() {
            store.write(&BTreeMap::new()).map_err(|error| error.to_string())?;
            return Ok((store, None));
        }
        let kept: BTreeMap<String, String> =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let profile = kept.get(PROFILE).and_then(|profile| STANDARD.decode(profile).ok());
        let prefs: Option<Value> = profile.and_then(|prefs| serde_json::from_slice(&prefs).ok());
        let known = prefs.and_then(|mut prefs| {
            let config = prefs["Config"].take();
            let key = config["PrivateNodeKey"].as_str()?.to_owned();
            let fake = &config["Fake"];
            let host = fake["host"].as_str()?.to_owned();
            let number = u32::try_from(fake["number"].as_u64()?).ok()?;
            Some((Identity { key, host, number }, prefs))
        });
        Ok((store, known))
    }

    pub(super) fn is_memory(&self) -> bool {
        matches!(self, Store::Memory)
    }

    /// Keeps the node and its preferences.
    pub(super) fn keep(&self, node: &Identity, prefs: &Value) {
        let mut prefs = prefs.clone();
        prefs["Config"] = json!({
            "PrivateNodeKey": node.key, "OldPrivateNodeKey": "", "UserProfile": {"LoginName": "tagged-devices"},
            "NetworkLockKey": "", "NodeID": "nSELF", "DisallowedTKAStateIDs": null,
            "Fake": {"host": node.host, "number": node.number},
        });
        let profiles = json!({"0001": {"ID": "0001", "Name": node.host, "Key": PROFILE,
            "NodeID": "nSELF", "LocalUserID": "", "ControlURL": prefs["ControlURL"]}});
        self.put(Some((prefs, profiles)));
    }

    /// What a log-out leaves: the machine is the same, the profile is gone. 1.98 then writes one of its own,
    /// which has no node key.
    pub(super) fn forget(&self, dialect: Dialect) {
        let empty = json!({"Config": {"PrivateNodeKey": format!("privkey:{:064x}", 0)}});
        self.put((!dialect.has_deltas()).then(|| (empty, json!({}))));
    }

    fn put(&self, profile: Option<(Value, Value)>) {
        let machine = format!("privkey:{:064x}", 0xfa6e);
        let mut all = BTreeMap::from([("_machinekey", machine.into_bytes())]);
        match profile {
            Some((prefs, profiles)) => {
                all.insert(PROFILE, serde_json::to_vec(&prefs).unwrap());
                all.insert("_profiles", serde_json::to_vec(&profiles).unwrap());
                all.insert("_current-profile", PROFILE.into());
            }
            None => {
                all.insert("_profiles", b"{}".to_vec());
                all.insert("_current-profile", Vec::new());
            }
        }
        let all = all.into_iter().map(|(key, value)| (key.to_owned(), STANDARD.encode(value)));
        self.write(&all.collect()).unwrap_or_else(|error| {
            super::stderr::log(&format!("Failed to save new controlclient state: {error}"));
        });
    }

    /// atomicfile.WriteFile: another file beside it, which then takes its name.
    fn write(&self, all: &BTreeMap<String, String>) -> std::io::Result<()> {
        let Store::File(path) = self else { return Ok(()) };
        let text =
            if all.is_empty() { "{}".into() } else { serde_json::to_vec_pretty(all).unwrap() };
        let name = format!("{}.tmp{}", path.file_name().unwrap().display(), std::process::id());
        let part = path.with_file_name(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(&text)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.sync_all()?;
        std::fs::rename(part, path)
    }
}
