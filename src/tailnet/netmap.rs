//! Who is in the tailnet, which networks lead there, and whose nameservers know which names.
//!
//! Read from LocalAPI `status` and `dns-config` (ipn/ipnstate, tailcfg.DNSConfig).
#![forbid(unsafe_code)]

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
    pub peers: Vec<Peer>,
    /// Names.
    pub dns: Dns,
}

/// Another node.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
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
pub struct Dns {
    /// Domains with nameservers of their own (split DNS); none named: answered from the netmap alone.
    pub routes: Vec<(Name, Vec<Nameserver>)>,
    /// Nameservers for everything else.
    pub resolvers: Vec<Nameserver>,
    /// Further names with an address (`ExtraRecords`), whatever their type field says.
    pub records: Vec<(Name, IpAddr)>,
}

/// A nameserver as the tailnet's admin wrote it (types/dnstype.Resolver).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Nameserver {
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
pub struct Cover<'a> {
    /// The peer.
    pub peer: &'a Peer,
    /// Its own address, or the subnet route it carries.
    pub net: IpNet,
}

impl Netmap {
    /// The peer or the subnet route that `address` belongs to, the longest prefix first; none: it is
    /// outside, and tailscaled would dial it from the host's own network.
    pub fn cover(&self, address: IpAddr) -> Option<Cover<'_>> {
        let own = self.peers.iter().find(|peer| peer.addresses.contains(&address));
        if let Some(peer) = own {
            return Some(Cover { peer, net: IpNet::from(address) });
        }
        if !self.accepts_routes {
            return None;
        }
        let routes = self
            .peers
            .iter()
            .flat_map(|peer| peer.routes.iter().map(move |net| Cover { peer, net: *net }));
        routes
            .filter(|cover| cover.net.contains(&address))
            .max_by_key(|cover| (cover.net.prefix_len(), cover.peer.online))
    }

    /// The peer of that MagicDNS name.
    pub fn peer(&self, name: &Name) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name.as_ref() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: &str, address: &str, routes: &[&str], online: bool) -> Peer {
        Peer {
            name: Name::parse(format!("{host}.lab.ts.net").as_bytes()).ok(),
            host: host.to_owned(),
            addresses: vec![address.parse().unwrap()],
            routes: routes.iter().map(|net| net.parse().unwrap()).collect(),
            online,
        }
    }

    #[test]
    fn peers_cover_their_addresses_and_accepted_routes_the_rest() {
        let mut netmap = Netmap {
            accepts_routes: true,
            peers: vec![
                peer("a", "100.64.0.1", &["10.50.0.0/16"], true),
                peer("b", "100.64.0.2", &["10.50.0.0/24"], false),
                peer("c", "100.64.0.3", &["10.50.0.0/24"], true),
            ],
            ..Netmap::default()
        };
        let host = |netmap: &Netmap, ip: &str| {
            netmap.cover(ip.parse().unwrap()).map(|cover| cover.peer.host.clone())
        };
        assert_eq!(host(&netmap, "100.64.0.2").as_deref(), Some("b"));
        assert_eq!(host(&netmap, "10.50.0.7").as_deref(), Some("c"), "longest, then online");
        assert_eq!(host(&netmap, "10.50.1.7").as_deref(), Some("a"));
        assert_eq!(host(&netmap, "10.99.0.1"), None);
        netmap.accepts_routes = false;
        assert_eq!(host(&netmap, "10.50.0.7"), None);
    }
}
