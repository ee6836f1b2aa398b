//! The JSON of LocalAPI: `ipn.Prefs`, `ipnstate.Status`, `ipn.Notify`, as 1.98.9 writes them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::backend::Inner;
use crate::script::{Peer, State};

/// Bits of `watch-ipn-bus?mask=` (ipn/backend.go). `HEALTH` alone sends nothing at first.
const STATE: u64 = 2;
const PREFS: u64 = 4;
const NETMAP: u64 = 8;
const HEALTH: u64 = 128;

/// A time that never was.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The preferences of a new profile.
pub fn prefs() -> Value {
    let mut prefs = prefs_zero();
    let set = json!({"CorpDNS": true, "LoggedOut": true, "NoStatefulFiltering": true,
        "NetfilterMode": 2, "AutoUpdate": {"Check": true, "Apply": null}});
    merge(&mut prefs, set.as_object().unwrap());
    prefs
}

/// What `start` begins with: what is not given is Go's zero value.
pub fn prefs_zero() -> Value {
    json!({
        "ControlURL": "", "RouteAll": false, "ExitNodeID": "", "ExitNodeIP": "",
        "InternalExitNodePrior": "", "ExitNodeAllowLANAccess": false, "CorpDNS": false,
        "RunSSH": false, "RunWebClient": false, "WantRunning": false, "LoggedOut": false,
        "ShieldsUp": false, "AdvertiseTags": null, "Hostname": "", "NotepadURLs": false,
        "AdvertiseRoutes": null, "AdvertiseServices": null, "Sync": null, "NoSNAT": false,
        "NetfilterMode": 0, "AutoUpdate": {"Check": false, "Apply": null},
        "AppConnector": {"Advertise": false}, "PostureChecking": false, "NetfilterKind": "",
        "DriveShares": null, "AllowSingleHosts": true, "Config": null
    })
}

/// Takes over the fields given.
pub fn merge(into: &mut Value, fields: &Map<String, Value>) {
    let into = into.as_object_mut().unwrap();
    into.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
}

/// `status`.
pub fn status(inner: &Inner, peers: bool) -> Value {
    let up = inner.has_netmap();
    let script = &inner.script;
    let tailnet = json!({"Name": "lab.example", "MagicDNSSuffix": script.suffix,
        "MagicDNSEnabled": true});
    let list = || -> Map<String, Value> {
        script.peers.iter().map(|p| (key(&p.name), peer_status(p, &script.suffix))).collect()
    };
    let users = json!({"1": {"ID": 1, "LoginName": "tagged-devices",
        "DisplayName": "Tagged Devices"}});
    json!({
        "Version": script.version, "TUN": false, "BackendState": inner.state.label(),
        "HaveNodeKey": up, "AuthURL": inner.auth_url,
        "TailscaleIPs": up.then_some(&script.node.addresses),
        "Self": self_status(inner),
        "Health": inner.health.values().collect::<Vec<_>>(),
        "MagicDNSSuffix": if up { script.suffix.as_str() } else { "" },
        "CurrentTailnet": up.then_some(tailnet), "CertDomains": null,
        "Peer": (up && peers).then(list), "User": (up && peers).then_some(users),
        "ClientVersion": null
    })
}

fn self_status(inner: &Inner) -> Value {
    let up = inner.has_netmap();
    let node = &inner.script.node;
    let host = inner.name().split('.').next().unwrap_or_default().to_owned();
    let zero = format!("nodekey:{}", "0".repeat(64));
    let mut status = json!({
        "ID": if up { "nSELF" } else { "" }, "PublicKey": if up { key("self") } else { zero },
        "HostName": host, "DNSName": if up { format!("{}.", inner.name()) } else { String::new() },
        "OS": "linux", "UserID": u8::from(up), "TailscaleIPs": up.then_some(&node.addresses),
        "AllowedIPs": up.then(|| nets(&node.addresses)), "Addrs": [], "CurAddr": "", "Relay": "",
        "Created": ZERO_TIME, "LastSeen": ZERO_TIME, "LastHandshake": ZERO_TIME,
        "Online": inner.state == State::Running, "ExitNode": false, "ExitNodeOption": false,
        "Active": false, "PeerAPIURL": null, "InNetworkMap": up, "InMagicSock": false,
        "InEngine": false
    });
    let mut more = Map::new();
    if up && !node.tags.is_empty() {
        more.insert("Tags".to_owned(), json!(node.tags));
    }
    if let Some(expiry) = node.key_expiry.as_ref().filter(|_| up) {
        more.insert("KeyExpiry".to_owned(), json!(expiry));
    }
    if up && inner.state == State::NeedsLogin {
        more.insert("Expired".to_owned(), json!(true));
    }
    merge(&mut status, &more);
    status
}

fn peer_status(peer: &Peer, suffix: &str) -> Value {
    let mut allowed = nets(&peer.addresses);
    allowed.extend(peer.routes.clone());
    json!({
        "ID": format!("n{}", peer.name), "PublicKey": key(&peer.name), "HostName": peer.name,
        "DNSName": format!("{}.{suffix}.", peer.name), "OS": "linux", "UserID": 1,
        "TailscaleIPs": peer.addresses, "AllowedIPs": allowed, "PrimaryRoutes": peer.routes,
        "Addrs": null, "CurAddr": "", "Relay": "lab", "RxBytes": 0, "TxBytes": 0,
        "Created": ZERO_TIME, "LastSeen": ZERO_TIME, "LastHandshake": ZERO_TIME,
        "Online": peer.online, "ExitNode": false, "ExitNodeOption": false, "Active": false,
        "PeerAPIURL": [], "InNetworkMap": true, "InMagicSock": true, "InEngine": false
    })
}

/// A `tailcfg.Node`, as `SelfChange` and the netmap's `SelfNode` carry it.
pub fn self_node(inner: &Inner) -> Value {
    let node = &inner.script.node;
    json!({
        "ID": 1, "StableID": "nSELF", "Name": format!("{}.", inner.name()), "User": 1,
        "Key": key("self"), "KeyExpiry": node.key_expiry.as_deref().unwrap_or(ZERO_TIME),
        "Addresses": nets(&node.addresses), "AllowedIPs": nets(&node.addresses),
        "Tags": node.tags, "Online": true,
        "MachineAuthorized": inner.state != State::NeedsMachineAuth
    })
}

/// A `netmap.NetworkMap`.
pub fn netmap(inner: &Inner) -> Value {
    let script = &inner.script;
    let peer = |(n, peer): (usize, &Peer)| {
        let mut allowed = nets(&peer.addresses);
        allowed.extend(peer.routes.clone());
        json!({"ID": n + 2, "StableID": format!("n{}", peer.name), "User": 1,
            "Name": format!("{}.{}.", peer.name, script.suffix), "Key": key(&peer.name),
            "Addresses": nets(&peer.addresses), "AllowedIPs": allowed,
            "PrimaryRoutes": peer.routes, "Online": peer.online, "MachineAuthorized": true})
    };
    json!({
        "SelfNode": self_node(inner), "NodeKey": key("self"), "Name": format!("{}.", inner.name()),
        "Peers": script.peers.iter().enumerate().map(peer).collect::<Vec<_>>(),
        "DNS": script.dns, "Domain": "lab.example", "CollectServices": false
    })
}

/// `Health` of a notification.
pub fn health(warnings: &BTreeMap<String, String>) -> Value {
    let warning = |(code, text): (&String, &String)| {
        let value = json!({"WarnableCode": code, "Severity": "medium", "Title": code, "Text": text,
            "BrokenSince": "2026-01-01T00:00:00Z", "ETag": format!("{:x}", text.len())});
        (code.clone(), value)
    };
    let all: Map<String, Value> = warnings.iter().map(warning).collect();
    json!({"Warnings": if all.is_empty() { Value::Null } else { all.into() }})
}

/// One line of the bus.
pub fn notify(version: &str, fields: &[(&str, Value)]) -> Bytes {
    let mut line = json!({"Version": version, "ErrMessage": null, "LoginFinished": null,
        "State": null, "Prefs": null, "NetMap": null, "Engine": null, "BrowseToURL": null,
        "DriveShares": null});
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    merge(&mut line, &fields.collect());
    format!("{line}\n").into()
}

/// What a watcher with this mask is told first.
pub fn first_notify(inner: &Inner, mask: u64) -> Option<Bytes> {
    if mask & (STATE | PREFS | NETMAP) == 0 {
        return None;
    }
    let mut fields = vec![("SessionID", json!("5106e8d7484b573a"))];
    if mask & STATE != 0 {
        fields.push(("State", json!(inner.state as u8)));
        if !inner.auth_url.is_empty() {
            fields.push(("BrowseToURL", json!(inner.auth_url)));
        }
    }
    if mask & PREFS != 0 {
        fields.push(("Prefs", inner.prefs.clone()));
    }
    if mask & NETMAP != 0 && inner.has_netmap() {
        fields.push(("NetMap", netmap(inner)));
        fields.push(("SelfChange", self_node(inner)));
    }
    if mask & HEALTH != 0 {
        fields.push(("Health", health(&inner.health)));
    }
    Some(notify(&inner.script.version, &fields))
}

fn nets(addresses: &[std::net::IpAddr]) -> Vec<String> {
    let net = |a: &std::net::IpAddr| format!("{a}/{}", if a.is_ipv4() { 32 } else { 128 });
    addresses.iter().map(net).collect()
}

/// A node key made of a name.
fn key(name: &str) -> String {
    let hex: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    format!("nodekey:{hex:0<64.64}")
}
