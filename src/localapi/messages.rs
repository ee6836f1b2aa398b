//! What LocalAPI says and is told, as JSON: the parts that matter here.
//!
//! Go leaves out what is empty and writes null for what is unset, so every field may be missing
//! (ipn/ipnstate, ipn.Notify, tailcfg.DNSConfig, ipn.Prefs).
#![forbid(unsafe_code)]

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// `ipnstate.Status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodeStatus {
    pub(crate) version: String,
    pub(crate) backend_state: String,
    pub(crate) have_node_key: bool,
    /// The page a person is to log in at; empty while nobody is asked to.
    #[serde(rename = "AuthURL")]
    pub(crate) auth_url: String,
    #[serde(rename = "Self")]
    pub(crate) this: Option<TailnetPeer>,
    pub(crate) health: Option<Vec<String>>,
    pub(crate) current_tailnet: Option<TailnetStatus>,
    pub(crate) peer: Option<HashMap<String, TailnetPeer>>,
}

/// `ipnstate.TailnetStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TailnetStatus {
    #[serde(rename = "MagicDNSSuffix")]
    pub(crate) suffix: String,
}

/// `ipnstate.PeerStatus`, also of the node itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TailnetPeer {
    pub(crate) host_name: String,
    #[serde(rename = "DNSName")]
    pub(crate) dns_name: String,
    #[serde(rename = "TailscaleIPs")]
    pub(crate) addresses: Option<Vec<String>>,
    #[serde(rename = "AllowedIPs")]
    pub(crate) allowed: Option<Vec<String>>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) online: bool,
    pub(crate) expired: bool,
    pub(crate) key_expiry: Option<String>,
}

/// `ipnstate.PingResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PingResult {
    #[serde(rename = "Err")]
    pub(crate) error: String,
    /// The relay it came by; 0: directly.
    #[serde(rename = "DERPRegionID")]
    pub(crate) relay: u32,
}

/// `tailcfg.DNSConfig`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DnsConfig {
    pub(crate) resolvers: Option<Vec<DnsNameserver>>,
    pub(crate) routes: Option<HashMap<String, Option<Vec<DnsNameserver>>>>,
    pub(crate) extra_records: Option<Vec<DnsExtraRecord>>,
}

/// `dnstype.Resolver`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DnsNameserver {
    pub(crate) addr: String,
    pub(crate) bootstrap_resolution: Option<Vec<String>>,
}

/// `tailcfg.DNSRecord`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DnsExtraRecord {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// `ipn.Notify`, one line of the bus. What it says of the netmap is not read here: such a line may
/// hold megabytes, and `status` and `dns-config` say the same. Up to 1.101 a change of the peers
/// comes as `NetMap` or `PeerChanges`, from 1.102 on as one of the three fields of peers.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct BusNotification {
    pub(crate) state: Option<i64>,
    pub(crate) err_message: Option<String>,
    pub(crate) health: Option<HealthState>,
    pub(crate) net_map: Option<IgnoredAny>,
    pub(crate) self_change: Option<IgnoredAny>,
    pub(crate) peer_changes: Option<IgnoredAny>,
    pub(crate) peers_changed: Option<IgnoredAny>,
    pub(crate) peers_removed: Option<IgnoredAny>,
    pub(crate) peer_changed_patch: Option<IgnoredAny>,
    #[serde(rename = "BrowseToURL")]
    pub(crate) browse: Option<String>,
}

impl BusNotification {
    /// Whether peers, names or this node's own addresses are no longer what they were.
    pub(crate) fn changes_netmap(&self) -> bool {
        let fields = [
            &self.net_map,
            &self.self_change,
            &self.peer_changes,
            &self.peers_changed,
            &self.peers_removed,
            &self.peer_changed_patch,
        ];
        fields.into_iter().any(Option::is_some)
    }
}

/// `health.State`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HealthState {
    pub(crate) warnings: Option<HashMap<String, HealthWarning>>,
}

/// `health.UnhealthyState`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HealthWarning {
    pub(crate) title: String,
    pub(crate) text: String,
}

/// The answer of `prefs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodePrefs {
    pub(crate) route_all: bool,
}

/// The answer of `check-prefs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CheckedPrefs {
    pub(crate) error: String,
}

/// The preferences of a managed node. `start` replaces all of them, so what is left out is Go's zero.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewPrefs {
    #[serde(rename = "ControlURL", skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<String>,
    pub(crate) want_running: bool,
    pub(crate) route_all: bool,
    /// Without it no DNS route reaches us (ipn/ipnlocal/node_backend.go:848).
    #[serde(rename = "CorpDNS")]
    pub(crate) corp_dns: bool,
    /// Peers would reach this host's loopback otherwise (wgengine/netstack: inbound is forwarded).
    pub(crate) shields_up: bool,
    pub(crate) hostname: String,
    /// None at all is not the same as an empty list to a key that carries tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) advertise_tags: Vec<String>,
    pub(crate) no_stateful_filtering: bool,
    pub(crate) netfilter_mode: u8,
    pub(crate) auto_update: AutoUpdate,
}

/// `ipn.MaskedPrefs`: what may change of a node that stays logged in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MaskedPrefs<'a> {
    want_running: bool,
    want_running_set: bool,
    route_all: bool,
    route_all_set: bool,
    #[serde(rename = "CorpDNS")]
    corp_dns: bool,
    #[serde(rename = "CorpDNSSet")]
    corp_dns_set: bool,
    shields_up: bool,
    shields_up_set: bool,
    hostname: &'a str,
    hostname_set: bool,
}

impl<'a> MaskedPrefs<'a> {
    /// These preferences, less those that need a login.
    pub(crate) fn of(prefs: &'a NewPrefs) -> Self {
        Self {
            want_running: prefs.want_running,
            want_running_set: true,
            route_all: prefs.route_all,
            route_all_set: true,
            corp_dns: prefs.corp_dns,
            corp_dns_set: true,
            shields_up: prefs.shields_up,
            shields_up_set: true,
            hostname: &prefs.hostname,
            hostname_set: true,
        }
    }
}

/// `ipn.AutoUpdatePrefs`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AutoUpdate {
    pub(crate) check: bool,
    pub(crate) apply: Option<bool>,
}

/// `ipn.Options`. It borrows the key: nobody keeps a copy.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StartOptions<'a> {
    pub(crate) auth_key: &'a str,
    pub(crate) update_prefs: &'a NewPrefs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_before_the_netmap_is_read() {
        let text = r#"{"Version":"1.98.9-t1","TUN":false,"BackendState":"NeedsLogin","AuthURL":"",
            "TailscaleIPs":null,"Self":{"ID":"","HostName":"box","DNSName":"","TailscaleIPs":null},
            "Health":null,"MagicDNSSuffix":"","CurrentTailnet":null,"CertDomains":null,"Peer":null}"#;
        let status: NodeStatus = serde_json::from_str(text).unwrap();
        assert_eq!((status.backend_state.as_str(), status.have_node_key), ("NeedsLogin", false));
    }

    #[test]
    fn a_line_of_the_bus_is_read_without_its_netmap() {
        let text = r#"{"Version":"1","ErrMessage":null,"LoginFinished":{},"State":6,"Prefs":null,
            "NetMap":{"Peers":[{"ID":1}]},"Engine":null,"BrowseToURL":null,
            "Health":{"Warnings":{"login-state":{"Severity":"high","Title":"t","Text":"x"}}}}"#;
        let notify: BusNotification = serde_json::from_str(text).unwrap();
        assert_eq!(notify.state, Some(6));
        assert!(notify.net_map.is_some() && notify.self_change.is_none());
        assert!(notify.changes_netmap());
        assert_eq!(notify.health.unwrap().warnings.unwrap()["login-state"].text, "x");
    }

    #[test]
    fn v3_a_change_of_peers_is_seen_in_the_fields_of_both_versions() {
        for (field, value) in [
            ("NetMap", "{}"),
            ("SelfChange", "{}"),
            ("PeerChanges", "[{}]"),
            ("PeersChanged", "[{}]"),
            ("PeersRemoved", "[7]"),
            ("PeerChangedPatch", "[{}]"),
        ] {
            let text = format!(r#"{{"{field}":{value},"Unheard":{{"of":1}}}}"#);
            let notify: BusNotification = serde_json::from_str(&text).unwrap();
            assert!(notify.changes_netmap(), "{field}");
        }
        let other: BusNotification =
            serde_json::from_str(r#"{"State":6,"Prefs":{},"NetMap":null}"#).unwrap();
        assert!(!other.changes_netmap());
    }
}
