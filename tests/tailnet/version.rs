//! The versions of tailscaled that the proof runs on, as the pinned modules beside it name them.

use std::sync::OnceLock;

/// The modules, oldest first.
const PINS: [&str; 2] =
    [include_str!("go/tailscale/go.mod"), include_str!("go/tailscale-1.102/go.mod")];

/// `v1.98.9` and its like: the name of the folder its programs are in, and part of every case's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(&'static str);

impl Version {
    /// All of them, oldest first.
    pub fn all() -> &'static [Version] {
        static ALL: OnceLock<Vec<Version>> = OnceLock::new();
        ALL.get_or_init(|| PINS.iter().map(|module| Version(pinned(module))).collect())
    }

    /// The one of this label.
    pub fn of(label: &str) -> Option<Version> {
        Version::all().iter().copied().find(|version| version.0 == label)
    }

    pub fn label(self) -> &'static str {
        self.0
    }

    pub fn is_newest(self) -> bool {
        Version::all().last() == Some(&self)
    }
}

/// The version of `tailscale.com` that a go.mod requires.
fn pinned(module: &'static str) -> &'static str {
    let required = module.lines().find_map(|line| line.trim().strip_prefix("tailscale.com "));
    required
        .and_then(|version| version.split(' ').next())
        .expect("a go.mod that pins tailscale.com")
}
