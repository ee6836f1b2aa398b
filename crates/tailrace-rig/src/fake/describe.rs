//! The JSON of LocalAPI: `ipn.Prefs`, `ipnstate.Status`, `ipn.Notify`, as 1.98.9 and 1.102.3 write them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::backend::Inner;
use super::dialect::{Dialect, HEALTH, NETMAP, POLICY, PREFS, STATE, STATUS};
use super::script::{Peer, Script, State};

/// A time that never was.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The preferences of a new profile.
pub(super) fn prefs() -> Value {
    let mut prefs = prefs_zero();
    let set = json!({"CorpDNS": true, "LoggedOut": true, "NoStatefulFiltering": true,
        "NetfilterMode": 2, "AutoUpdate": {"Check": true, "Apply": null}});
    merge(&mut prefs, set.as_object().unwrap());
    prefs
}

/// What `start` begins with: what is not given is Go's zero value.
pub(super) fn prefs_zero() -> Value {
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
pub(super) fn merge(into: &mut Value, fields: &Map<String, Value>) {
    let into = into.as_object_mut().unwrap();
    into.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
}

/// `status`.
pub(super) fn status(inner: &Inner, peers: bool) -> Value {
    let up = inner.has_netmap();
    let script = &inner.script;
    let tailnet = json!({"Name": "lab.example", "MagicDNSSuffix": script.suffix,
        "MagicDNSEnabled": true});
    let list = || -> Map<String, Value> {
        script.peers.iter().map(|p| (key(&p.name), peer_status(p, script))).collect()
    };
    let new = inner.dialect().has_deltas();
    let users = json!({"1": {"ID": 1, "LoginName": "tagged-devices",
        "DisplayName": "Tagged Devices"}});
    let mut status = json!({
        "Version": script.version, "TUN": false, "BackendState": inner.state.label(),
        "AuthURL": inner.auth_url,
        "TailscaleIPs": up.then(|| inner.addresses()),
        "Self": self_status(inner),
        "Health": inner.health.values().collect::<Vec<_>>(),
        "MagicDNSSuffix": if up { script.suffix.as_str() } else { "" },
        "CurrentTailnet": up.then_some(tailnet), "CertDomains": null,
        "Peer": (up && peers).then(list), "User": (up && (peers || new)).then_some(users),
        "ClientVersion": null
    });
    if up {
        status["HaveNodeKey"] = json!(true);
    }
    if new {
        let records = up.then(|| script.dns["ExtraRecords"].clone());
        status["ExtraRecords"] = records.unwrap_or_default();
    }
    status
}

fn self_status(inner: &Inner) -> Value {
    let up = inner.has_netmap();
    let (node, addresses) = (&inner.script.node, inner.addresses());
    let host = inner.name().split('.').next().unwrap_or_default().to_owned();
    let zero = format!("nodekey:{}", "0".repeat(64));
    let mut status = json!({
        "ID": if up { "nSELF" } else { "" }, "PublicKey": if up { key("self") } else { zero },
        "HostName": host, "DNSName": if up { format!("{}.", inner.name()) } else { String::new() },
        "OS": "linux", "UserID": u8::from(up), "TailscaleIPs": up.then_some(&addresses), "Addrs": [], "CurAddr": "", "Relay": "",
        "Created": ZERO_TIME, "LastSeen": ZERO_TIME, "LastHandshake": ZERO_TIME,
        "Online": inner.state == State::Running, "ExitNode": false, "ExitNodeOption": false,
        "Active": false, "PeerAPIURL": null, "InNetworkMap": up, "InMagicSock": false,
        "InEngine": false
    });
    let mut more = Map::new();
    if up {
        more.insert("AllowedIPs".to_owned(), json!(nets(&addresses)));
    }
    if inner.dialect().has_deltas() {
        more.insert("NodeID".to_owned(), json!(u8::from(up)));
    }
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

fn peer_status(peer: &Peer, script: &Script) -> Value {
    let mut allowed = nets(&peer.addresses);
    allowed.extend(peer.routes.clone());
    let mut status = json!({
        "ID": format!("n{}", peer.name), "PublicKey": key(&peer.name), "HostName": peer.name,
        "DNSName": format!("{}.{}.", peer.name, script.suffix), "OS": "linux", "UserID": 1,
        "TailscaleIPs": peer.addresses, "AllowedIPs": allowed, "PrimaryRoutes": peer.routes,
        "Addrs": null, "CurAddr": "", "Relay": "lab", "RxBytes": 0, "TxBytes": 0,
        "Created": ZERO_TIME, "LastSeen": ZERO_TIME, "LastHandshake": ZERO_TIME,
        "Online": peer.online, "ExitNode": false, "ExitNodeOption": false, "Active": false,
        "PeerAPIURL": [], "InNetworkMap": true, "InMagicSock": true, "InEngine": false
    });
    if Dialect::of(&script.version).has_deltas() {
        status["NodeID"] = json!(id(peer));
    }
    status
}

/// A `tailcfg.Node`, as `SelfChange` and the netmap's `SelfNode` carry it.
pub(super) fn self_node(inner: &Inner) -> Value {
    let (node, addresses) = (&inner.script.node, inner.addresses());
    json!({
        "ID": 1, "StableID": "nSELF", "Name": format!("{}.", inner.name()), "User": 1,
        "Key": key("self"), "KeyExpiry": node.key_expiry.as_deref().unwrap_or(ZERO_TIME),
        "Addresses": nets(&addresses), "AllowedIPs": nets(&addresses),
        "Tags": node.tags, "Online": true,
        "MachineAuthorized": inner.state != State::NeedsMachineAuth
    })
}

/// A `netmap.NetworkMap`.
pub(super) fn netmap(inner: &Inner) -> Value {
    let script = &inner.script;
    json!({
        "SelfNode": self_node(inner), "NodeKey": key("self"),
        "Peers": script.peers.iter().map(|peer| peer_node(script, peer)).collect::<Vec<_>>(),
        "DNS": script.dns, "Domain": "lab.example", "CollectServices": false
    })
}

/// A `tailcfg.Node` of somebody else, as the netmap's `Peers` and `PeersChanged` carry it.
pub(super) fn peer_node(script: &Script, peer: &Peer) -> Value {
    let mut allowed = nets(&peer.addresses);
    allowed.extend(peer.routes.clone());
    json!({"ID": id(peer), "StableID": format!("n{}", peer.name), "User": 1,
        "Name": format!("{}.{}.", peer.name, script.suffix), "Key": key(&peer.name),
        "Addresses": nets(&peer.addresses), "AllowedIPs": allowed,
        "PrimaryRoutes": peer.routes, "Online": peer.online, "MachineAuthorized": true})
}

/// A `tailcfg.PeerChange` that says whether it is online.
pub(super) fn peer_change(peer: &Peer) -> Value {
    json!({"NodeID": id(peer), "Online": peer.online})
}

/// A `tailcfg.NodeID` made of a name.
pub(super) fn id(peer: &Peer) -> u32 {
    peer.name.bytes().fold(2, |id: u32, byte| id.wrapping_mul(31).wrapping_add(byte.into()) >> 1)
}

/// `Health` of a notification.
pub(super) fn health(warnings: &BTreeMap<String, String>) -> Value {
    let warning = |(code, text): (&String, &String)| {
        let value = json!({"WarnableCode": code, "Severity": "medium", "Title": code, "Text": text,
            "BrokenSince": "2026-01-01T00:00:00Z", "ETag": format!("{:x}", text.len())});
        (code.clone(), value)
    };
    let all: Map<String, Value> = warnings.iter().map(warning).collect();
    json!({"Warnings": if all.is_empty() { Value::Null } else { all.into() }})
}

/// One line of the bus.
pub(super) fn notify(script: &Script, fields: &[(&str, Value)]) -> Bytes {
    let mut line = json!({"Version": script.version, "ErrMessage": null, "LoginFinished": null,
        "State": null, "Prefs": null, "NetMap": null, "Engine": null, "BrowseToURL": null,
        "DriveShares": null});
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    merge(&mut line, &fields.collect());
    if script.strange {
        estrange(&mut line);
    }
    format!("{line}\n").into()
}

/// Things nobody knows in every object; what one can do without is left out.
pub(super) fn estrange(value: &mut Value) {
    const SPARED: [&str; 12] = [
        "TUN",
        "AuthURL",
        "CertDomains",
        "User",
        "ClientVersion",
        "Health",
        "HaveNodeKey",
        "LoginFinished",
        "Engine",
        "HostName",
        "OS",
        "Created",
    ];
    match value {
        Value::Object(map) => {
            map.retain(|name, value| !SPARED.contains(&name.as_str()) && !value.is_null());
            map.values_mut().for_each(estrange);
            // A map of peers or routes has keys that are no fields.
            if !map.keys().any(|name| name.contains([':', '.'])) {
                map.insert("Unheard".to_owned(), json!({"Of": [1, null, {"Deep": true}]}));
                map.insert("state".to_owned(), json!("lower case is another field"));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(estrange),
        _ => {}
    }
}

/// What a watcher with this mask is told first.
pub(super) fn first_notify(inner: &Inner, mask: u64) -> Option<Bytes> {
    let dialect = inner.dialect();
    if !dialect.greets(mask) {
        return None;
    }
    let mut fields = Vec::new();
    if mask & STATE != 0 {
        fields.push(("SessionID", json!("5106e8d7484b573a")));
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
        if dialect.has_deltas() {
            fields.push(("SelfChange", self_node(inner)));
        }
    }
    if mask & STATUS != 0 && dialect.has_deltas() {
        fields.push(("InitialStatus", status(inner, true)));
    }
    if mask & POLICY != 0 && dialect.has_deltas() {
        fields.push(("Policy", json!({})));
    }
    if mask & HEALTH != 0 {
        fields.push(("Health", health(&inner.health)));
    }
    Some(notify(&inner.script, &fields))
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
