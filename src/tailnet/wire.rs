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
pub(super) struct Status {
    pub(super) version: String,
    pub(super) backend_state: String,
    pub(super) have_node_key: bool,
    /// The page a person is to log in at; empty while nobody is asked to.
    #[serde(rename = "AuthURL")]
    pub(super) auth_url: String,
    #[serde(rename = "Self")]
    pub(super) this: Option<TailnetPeer>,
    pub(super) health: Option<Vec<String>>,
    pub(super) current_tailnet: Option<Tailnet>,
    pub(super) peer: Option<HashMap<String, TailnetPeer>>,
}

/// `ipnstate.TailnetStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tailnet {
    #[serde(rename = "MagicDNSSuffix")]
    pub(super) suffix: String,
}

/// `ipnstate.PeerStatus`, also of the node itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TailnetPeer {
    pub(super) host_name: String,
    #[serde(rename = "DNSName")]
    pub(super) dns_name: String,
    #[serde(rename = "TailscaleIPs")]
    pub(super) addresses: Option<Vec<String>>,
    #[serde(rename = "AllowedIPs")]
    pub(super) allowed: Option<Vec<String>>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) online: bool,
    pub(super) expired: bool,
    pub(super) key_expiry: Option<String>,
}

/// `ipnstate.PingResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pong {
    #[serde(rename = "Err")]
    pub(super) error: String,
    /// The relay it came by; 0: directly.
    #[serde(rename = "DERPRegionID")]
    pub(super) relay: u32,
}

/// `tailcfg.DNSConfig`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct DnsConfig {
    pub(super) resolvers: Option<Vec<Resolver>>,
    pub(super) routes: Option<HashMap<String, Option<Vec<Resolver>>>>,
    pub(super) extra_records: Option<Vec<Record>>,
}

/// `dnstype.Resolver`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Resolver {
    pub(super) addr: String,
    pub(super) bootstrap_resolution: Option<Vec<String>>,
}

/// `tailcfg.DNSRecord`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) value: String,
}

/// `ipn.Notify`, one line of the bus. What it says of the netmap is not read here: such a line may
/// hold megabytes, and `status` and `dns-config` say the same. Up to 1.101 a change of the peers
/// comes as `NetMap` or `PeerChanges`, from 1.102 on as one of the three fields of peers.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Notify {
    pub(super) state: Option<i64>,
    pub(super) err_message: Option<String>,
    pub(super) health: Option<Health>,
    pub(super) net_map: Option<IgnoredAny>,
    pub(super) self_change: Option<IgnoredAny>,
    pub(super) peer_changes: Option<IgnoredAny>,
    pub(super) peers_changed: Option<IgnoredAny>,
    pub(super) peers_removed: Option<IgnoredAny>,
    pub(super) peer_changed_patch: Option<IgnoredAny>,
    #[serde(rename = "BrowseToURL")]
    pub(super) browse: Option<String>,
}

impl Notify {
    /// Whether peers, names or this node's own addresses are no longer what they were.
    pub(super) fn changes_netmap(&self) -> bool {
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
pub(super) struct Health {
    pub(super) warnings: Option<HashMap<String, Warning>>,
}

/// `health.UnhealthyState`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Warning {
    pub(super) title: String,
    pub(super) text: String,
}

/// The answer of `prefs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Prefs {
    pub(super) route_all: bool,
}

/// The answer of `check-prefs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Checked {
    pub(super) error: String,
}

/// The preferences of a managed node. `start` replaces all of them, so what is left out is Go's zero.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewPrefs {
    #[serde(rename = "ControlURL", skip_serializing_if = "Option::is_none")]
    pub(super) control: Option<String>,
    pub(super) want_running: bool,
    pub(super) route_all: bool,
    /// Without it no DNS route reaches us (ipn/ipnlocal/node_backend.go:848).
    #[serde(rename = "CorpDNS")]
    pub(super) corp_dns: bool,
    /// Peers would reach this host's loopback otherwise (wgengine/netstack: inbound is forwarded).
    pub(super) shields_up: bool,
    pub(super) hostname: String,
    /// None at all is not the same as an empty list to a key that carries tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advertise_tags: Vec<String>,
    pub(super) no_stateful_filtering: bool,
    pub(super) netfilter_mode: u8,
    pub(super) auto_update: AutoUpdate,
}

/// `ipn.MaskedPrefs`: what may change of a node that stays logged in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MaskedPrefs<'a> {
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
    pub(super) fn of(prefs: &'a NewPrefs) -> Self {
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
pub(super) struct AutoUpdate {
    pub(super) check: bool,
    pub(super) apply: Option<bool>,
}

/// `ipn.Options`. It borrows the key: nobody keeps a copy.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Options<'a> {
    pub(super) auth_key: &'a str,
    pub(super) update_prefs: &'a NewPrefs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_before_the_netmap_is_read() {
        let text = r#"{"Version":"1.98.9-t1","TUN":false,"BackendState":"NeedsLogin","AuthURL":"",
            "TailscaleIPs":null,"Self":{"ID":"","HostName":"box","DNSName":"","TailscaleIPs":null},
            "Health":null,"MagicDNSSuffix":"","CurrentTailnet":null,"CertDomains":null,"Peer":null}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!((status.backend_state.as_str(), status.have_node_key), ("NeedsLogin", false));
    }

    #[test]
    fn a_line_of_the_bus_is_read_without_its_netmap() {
        let text = r#"{"Version":"1","ErrMessage":null,"LoginFinished":{},"State":6,"Prefs":null,
            "NetMap":{"Peers":[{"ID":1}]},"Engine":null,"BrowseToURL":null,
            "Health":{"Warnings":{"login-state":{"Severity":"high","Title":"t","Text":"x"}}}}"#;
        let notify: Notify = serde_json::from_str(text).unwrap();
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
            let notify: Notify = serde_json::from_str(&text).unwrap();
            assert!(notify.changes_netmap(), "{field}");
        }
        let other: Notify =
            serde_json::from_str(r#"{"State":6,"Prefs":{},"NetMap":null}"#).unwrap();
        assert!(!other.changes_netmap());
    }
}
