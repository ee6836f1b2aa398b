//! From what LocalAPI says to what is known: this node, its peers, routes and names.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::netmap::{Netmap, TailnetDns, TailnetNameserver, TailnetPeer};
use super::state::OwnNode;
use crate::localapi::messages;
use crate::target::Name;

/// DNS over TCP (RFC 1035 section 4.2).
const DOMAIN: u16 = 53;

/// This node, once it has an address.
pub(super) fn own_node(status: &messages::NodeStatus) -> Option<OwnNode> {
    let this = status.this.as_ref()?;
    let addresses = parse_addresses(this.addresses.as_deref());
    if addresses.is_empty() {
        return None;
    }
    Some(OwnNode {
        name: this.dns_name.trim_end_matches('.').to_owned(),
        addresses,
        tags: this.tags.clone().unwrap_or_default(),
        // Go's zero time stands for "never".
        key_expiry: this.key_expiry.clone().filter(|at| !at.starts_with("0001-")),
    })
}

/// Peers and names. `status` must hold the peers.
pub(super) fn read_netmap(
    status: &messages::NodeStatus,
    dns: TailnetDns,
    accepts_routes: bool,
) -> Netmap {
    let suffix = status.current_tailnet.as_ref().and_then(|tailnet| parse_name(&tailnet.suffix));
    let mut peers: Vec<TailnetPeer> =
        status.peer.iter().flat_map(|peers| peers.values()).map(read_peer).collect();
    // The map comes in no order: the same netmap should be the same value.
    peers.sort_by(|a, b| (&a.name, &a.host, &a.addresses).cmp(&(&b.name, &b.host, &b.addresses)));
    Netmap::new(suffix, accepts_routes, peers, dns)
}

fn read_peer(peer: &messages::TailnetPeer) -> TailnetPeer {
    let addresses = parse_addresses(peer.addresses.as_deref());
    let mut routes: Vec<IpNet> = peer
        .allowed
        .iter()
        .flatten()
        .filter_map(|net| net.parse().ok())
        .filter(|net: &IpNet| net.prefix_len() != 0)
        .filter(|net| !addresses.iter().any(|own| *net == IpNet::from(*own)))
        .collect();
    routes.sort();
    TailnetPeer {
        name: parse_name(&peer.dns_name),
        host: peer.host_name.clone(),
        addresses,
        routes,
        online: peer.online,
    }
}

/// Split DNS routes, resolvers and extra records.
pub(super) fn dns_settings(config: &messages::DnsConfig) -> TailnetDns {
    let servers = |list: &Option<Vec<messages::DnsNameserver>>| -> Vec<TailnetNameserver> {
        list.iter().flatten().map(read_nameserver).collect()
    };
    let mut routes: Vec<(Name, Vec<TailnetNameserver>)> = config
        .routes
        .iter()
        .flatten()
        .filter_map(|(domain, list)| Some((parse_name(domain)?, servers(list))))
        .collect();
    routes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let records = config.extra_records.iter().flatten();
    TailnetDns {
        routes,
        resolvers: servers(&config.resolvers),
        // Type "A", "AAAA" or none: the value is the address all the same (tailcfg.DNSRecord).
        records: records
            .filter_map(|record| Some((parse_name(&record.name)?, record.value.parse().ok()?)))
            .collect(),
    }
}

/// An address, an address and port, or a URL (types/dnstype/dnstype.go).
fn read_nameserver(resolver: &messages::DnsNameserver) -> TailnetNameserver {
    let text = resolver.addr.as_str();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return TailnetNameserver::Address(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return TailnetNameserver::Address(SocketAddr::new(ip, DOMAIN));
    }
    if text.starts_with("https://") {
        let bootstrap = parse_addresses(resolver.bootstrap_resolution.as_deref());
        return TailnetNameserver::Https { url: text.to_owned(), bootstrap };
    }
    TailnetNameserver::Other(text.to_owned())
}

/// IPv4 first; what is no address is left out.
fn parse_addresses(list: Option<&[String]>) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> =
        list.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all
}

fn parse_name(text: &str) -> Option<Name> {
    Name::parse(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_real_one_says_is_read() {
        let status: messages::NodeStatus = serde_json::from_str(
            r#"{"BackendState":"Running","Self":{"DNSName":"autoheal-42.lab.ts.net.",
            "TailscaleIPs":["fd7a::2","100.64.0.2"],"Tags":["tag:x"],"KeyExpiry":"0001-01-01T00:00:00Z"},
            "CurrentTailnet":{"Name":"lab","MagicDNSSuffix":"lab.ts.net","MagicDNSEnabled":true},
            "Peer":{"nodekey:1":{"HostName":"svc","DNSName":"svc.lab.ts.net.","Online":true,
            "TailscaleIPs":["100.64.0.1"],"AllowedIPs":["100.64.0.1/32","10.50.0.0/24","0.0.0.0/0"]}}}"#,
        )
        .unwrap();
        let dns: messages::DnsConfig = serde_json::from_str(
            r#"{"Routes":{"corp.example.":[{"Addr":"100.64.0.1"}],"x.ts.net":null},
            "Resolvers":[{"Addr":"https://dns.example/x","BootstrapResolution":["192.0.2.1"]},
            {"Addr":"10.0.0.2:5353"},{"Addr":"tls://1.1.1.1"}],
            "ExtraRecords":[{"Name":"grafana.lab.ts.net","Type":"A","Value":"100.64.0.1"}]}"#,
        )
        .unwrap();
        let node = own_node(&status).unwrap();
        assert_eq!((node.name.as_str(), node.key_expiry), ("autoheal-42.lab.ts.net", None));
        assert!(node.addresses[0].is_ipv4());
        let netmap = read_netmap(&status, dns_settings(&dns), true);
        assert_eq!(netmap.suffix.as_ref().unwrap().as_str(), "lab.ts.net");
        assert_eq!(netmap.peers[0].routes, ["10.50.0.0/24".parse().unwrap()]);
        let routes: Vec<_> = netmap.dns.routes.iter().map(|(n, s)| (n.as_str(), s.len())).collect();
        assert_eq!(routes, [("corp.example", 1), ("x.ts.net", 0)]);
        assert_eq!(netmap.dns.resolvers.len(), 3);
        assert_eq!(
            netmap.dns.resolvers[1],
            TailnetNameserver::Address("10.0.0.2:5353".parse().unwrap())
        );
        assert_eq!(netmap.dns.resolvers[2], TailnetNameserver::Other("tls://1.1.1.1".to_owned()));
        assert_eq!(netmap.dns.records.len(), 1);
    }

    #[test]
    fn a_status_without_a_netmap_is_no_node() {
        let status: messages::NodeStatus =
            serde_json::from_str(r#"{"Self":{"DNSName":"","TailscaleIPs":null}}"#).unwrap();
        assert_eq!(own_node(&status), None);
        assert_eq!(
            read_netmap(&status, TailnetDns::default(), true),
            Netmap::new(None, true, Vec::new(), TailnetDns::default())
        );
    }
}
