//! What the bus is told, by version and by each watcher's mask (ipnlocal/local.go, `sendToLocked`).

use serde_json::{Value, json};

use super::backend::Inner;
use super::describe;
use super::dialect::{PEER_CHANGES, PEER_PATCHES};
use super::peers;

impl Inner {
    /// Sends every watcher these fields; the others are null or left out.
    pub(super) fn notify(&mut self, fields: &[(&'static str, Value)]) {
        self.notify_each(|_| fields.to_vec());
    }

    /// Sends every watcher what `fields` has for its mask.
    fn notify_each(&mut self, fields: impl Fn(u64) -> Vec<(&'static str, Value)>) {
        if self.script.mute_bus {
            return;
        }
        let script = &self.script;
        let lagging = json!("IPN bus consumer fell behind; closing watch");
        let last = describe::notify(script, &[("ErrMessage", lagging)]);
        let last = self.dialect().has_deltas().then_some(last);
        self.watchers.retain(|(_, watcher)| {
            watcher.tell(describe::notify(script, &fields(watcher.mask)), last.clone())
        });
    }

    /// A whole netmap from the control server.
    pub(super) fn tell_netmap(&mut self) {
        let node = describe::self_node(self);
        if !self.dialect().has_deltas() {
            let map = describe::netmap(self);
            return self.notify(&[("NetMap", map), ("SelfChange", node)]);
        }
        let peer = |peer| describe::peer_node(&self.script, peer);
        let all: Vec<Value> = self.script.peers.iter().map(peer).collect();
        self.notify_each(|mask| {
            let mut fields = vec![("SelfChange", node.clone())];
            if mask & (PEER_CHANGES | PEER_PATCHES) != 0 {
                fields.push(("PeersChanged", json!(all)));
            }
            fields
        });
    }

    /// What is new of the peers.
    pub(super) fn tell_peers(&mut self, change: &peers::Change) {
        let patches = change.only_patches();
        if self.dialect().has_deltas() && (patches.is_some() || !self.script.whole_netmaps) {
            let fields = change.deltas(&self.script);
            return self.notify_each(|mask| fields.seen_with(mask));
        }
        let Some(patches) = patches else { return self.tell_netmap() };
        let map = describe::netmap(self);
        self.notify_each(|mask| match mask & PEER_CHANGES {
            0 => vec![("NetMap", map.clone())],
            _ => vec![("PeerChanges", patches.clone())],
        });
    }

    pub(super) fn tell_health(&mut self) {
        let health = describe::health(&self.health);
        self.notify(&[("Health", health)]);
    }
}
