//! How peers changed, and what the bus says of it.

use serde_json::{Value, json};

use super::describe;
use super::dialect::{PEER_CHANGES, PEER_PATCHES};
use super::script::{Peer, Script};

/// Between two lists of peers.
pub(super) struct Change {
    /// New, or not what they were.
    changed: Vec<Peer>,
    /// Only another `Online`.
    patched: Vec<Peer>,
    removed: Vec<Peer>,
}

/// The fields for watchers of 1.102 and later.
pub(super) struct Deltas {
    changed: Vec<Value>,
    removed: Vec<u32>,
    patches: Vec<Value>,
    /// The patched ones whole, for those who want no patches.
    promoted: Vec<Value>,
}

impl Change {
    /// None where nothing has changed.
    pub(super) fn between(old: &[Peer], new: &[Peer]) -> Option<Change> {
        if old == new {
            return None;
        }
        let find = |list: &[Peer], name: &str| list.iter().find(|it| it.name == name).cloned();
        let mut change = Change { changed: Vec::new(), patched: Vec::new(), removed: Vec::new() };
        for peer in new {
            match find(old, &peer.name) {
                Some(was) if was == *peer => {}
                Some(was) if (Peer { online: peer.online, ..was.clone() }) == *peer => {
                    change.patched.push(peer.clone());
                }
                _ => change.changed.push(peer.clone()),
            }
        }
        let gone = old.iter().filter(|peer| find(new, &peer.name).is_none());
        change.removed = gone.cloned().collect();
        Some(change)
    }

    /// `PeerChanges` of 1.98, where that says all.
    pub(super) fn only_patches(&self) -> Option<Value> {
        let only = self.changed.is_empty() && self.removed.is_empty();
        only.then(|| self.patched.iter().map(describe::peer_change).collect())
    }

    pub(super) fn deltas(&self, script: &Script) -> Deltas {
        let nodes =
            |peers: &[Peer]| peers.iter().map(|it| describe::peer_node(script, it)).collect();
        Deltas {
            changed: nodes(&self.changed),
            removed: self.removed.iter().map(describe::id).collect(),
            patches: self.patched.iter().map(describe::peer_change).collect(),
            promoted: nodes(&self.patched),
        }
    }
}

impl Deltas {
    /// What a watcher with this mask sees of them (ipnlocal/local.go, `notifyForSessionLocked`): a line comes
    /// in any case.
    pub(super) fn seen_with(&self, mask: u64) -> Vec<(&'static str, Value)> {
        if mask & (PEER_CHANGES | PEER_PATCHES) == 0 {
            return Vec::new();
        }
        let patches = mask & PEER_PATCHES != 0;
        let promoted = if patches { &[][..] } else { &self.promoted };
        let changed: Vec<&Value> = self.changed.iter().chain(promoted).collect();
        let mut fields = Vec::new();
        if !changed.is_empty() {
            fields.push(("PeersChanged", json!(changed)));
        }
        if !self.removed.is_empty() {
            fields.push(("PeersRemoved", json!(self.removed)));
        }
        if patches && !self.patches.is_empty() {
            fields.push(("PeerChangedPatch", json!(self.patches)));
        }
        fields
    }
}
