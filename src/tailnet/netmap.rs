//! Who is in the tailnet, which networks lead there, and whose nameservers know which names.
//!
//! Read from LocalAPI `status` and `dns-config` (ipn/ipnstate, tailcfg.DNSConfig).
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::target::Name;

/// The tailnet as this node sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Netmap {
    /// MagicDNS suffix, as `tail1234.ts.net`.
    pub suffix: Option<Name>,
    /// Whether subnet routes are accepted (`RouteAll`).
    pub accepts_routes: bool,
    /// Everybody else.
    pub peers: Vec<TailnetPeer>,
    /// Names.
    pub dns: TailnetDns,
    /// Where in `peers` an address of theirs is: asked for each connection.
    by_address: HashMap<IpAddr, usize>,
    /// Accepted routes and who carries them, the longest first, of equal ones those online.
    by_route: Vec<(IpNet, usize)>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq)]
pub struct TailnetPeer {
    /// Its MagicDNS name; none for a name that is none.
    pub name: Option<Name>,
    /// What it calls itself.
    pub host: String,
    /// Its own addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Networks it routes; default routes of exit nodes are left out.
    pub routes: Vec<IpNet>,
    /// Whether the control server sees it.
    pub online: bool,
}

/// The tailnet's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TailnetDns {
    /// Domains with nameservers of their own (split DNS); none named: answered from the netmap alone.
    pub routes: Vec<(Name, Vec<TailnetNameserver>)>,
    /// Nameservers for everything else.
    pub resolvers: Vec<TailnetNameserver>,
    /// Further names with an address (`ExtraRecords`), whatever their type field says.
    pub records: Vec<(Name, IpAddr)>,
}

/// A nameserver as the tailnet's admin wrote it (types/dnstype.Resolver).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TailnetNameserver {
    /// By address, port 53 unless said otherwise.
    Address(std::net::SocketAddr),
    /// DNS over HTTPS; `bootstrap` are addresses of its host, where the tailnet gives some.
    Https {
        /// The whole URL.
        url: String,
        /// Where its host is.
        bootstrap: Vec<IpAddr>,
    },
    /// A form that is not asked; doctor names it.
    Other(String),
}

/// What leads to an address inside the tailnet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouteCover<'a> {
    /// The peer.
    pub peer: &'a TailnetPeer,
    /// Its own address, or the subnet route it carries.
    pub net: IpNet,
}

impl Netmap {
    /// The tailnet of these peers.
    pub fn new(
        suffix: Option<Name>,
        accepts_routes: bool,
        peers: Vec<TailnetPeer>,
        dns: TailnetDns,
    ) -> Self {
        let mut by_address = HashMap::new();
        let mut by_route = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            by_address.extend(peer.addresses.iter().map(|address| (*address, at)));
            if accepts_routes {
                by_route.extend(peer.routes.iter().map(|net| (*net, at)));
            }
        }
        by_route.sort_by_key(|(net, at)| (Reverse(net.prefix_len()), !peers[*at].online));
        Self { suffix, accepts_routes, peers, dns, by_address, by_route }
    }

    /// The peer or the subnet route that `address` belongs to, the longest prefix first; none: it is
    /// outside, and tailscaled would dial it from the host's own network.
    pub fn covering_route(&self, address: IpAddr) -> Option<RouteCover<'_>> {
        let own = self.by_address.get(&address).map(|at| (IpNet::from(address), *at));
        let routed = || self.by_route.iter().find(|(net, _)| net.contains(&address)).copied();
        let (net, at) = own.or_else(routed)?;
        Some(RouteCover { peer: self.peers.get(at)?, net })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: &str, address: &str, routes: &[&str], online: bool) -> TailnetPeer {
        TailnetPeer {
            name: Name::parse(format!("{host}.lab.ts.net").as_bytes()).ok(),
            host: host.to_owned(),
            addresses: vec![address.parse().unwrap()],
            routes: routes.iter().map(|net| net.parse().unwrap()).collect(),
            online,
        }
    }

    #[test]
    fn peers_cover_their_addresses_and_accepted_routes_the_rest() {
        let peers = vec![
            peer("a", "100.64.0.1", &["10.50.0.0/16"], true),
            peer("b", "100.64.0.2", &["10.50.0.0/24"], false),
            peer("c", "100.64.0.3", &["10.50.0.0/24"], true),
        ];
        let netmap = Netmap::new(None, true, peers.clone(), TailnetDns::default());
        let host = |netmap: &Netmap, ip: &str| {
            netmap.covering_route(ip.parse().unwrap()).map(|cover| cover.peer.host.clone())
        };
        assert_eq!(host(&netmap, "100.64.0.2").as_deref(), Some("b"));
        assert_eq!(host(&netmap, "10.50.0.7").as_deref(), Some("c"), "longest, then online");
        assert_eq!(host(&netmap, "10.50.1.7").as_deref(), Some("a"));
        assert_eq!(host(&netmap, "10.99.0.1"), None);
        let netmap = Netmap::new(None, false, peers, TailnetDns::default());
        assert_eq!(host(&netmap, "10.50.0.7"), None);
    }
}
