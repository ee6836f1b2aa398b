//! Where a target leads: tailscaled's net/tsdial, without the network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr as _;

use ipnet::IpNet;

use super::script::{Answer, Script};

/// The way to a target.
#[derive(Debug, PartialEq)]
pub(super) enum Way {
    /// Into the tailnet; what happens to the dial there, and where the target really is.
    Tailnet { to: SocketAddr, answer: Answer, place: Option<SocketAddr> },
    /// Out of this host's own network: tailscaled dials it itself, `dial` hands it back.
    Outside { to: SocketAddr, place: Option<SocketAddr> },
    /// Nobody knows the name.
    NoSuchName,
}

/// What the routes are judged by.
pub(super) struct Router<'a> {
    /// The tailnet.
    pub script: &'a Script,
    /// This node's name, with the suffix.
    pub own: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether there is a netmap that counts.
    pub running: bool,
    /// `RouteAll`.
    pub accepts_routes: bool,
}

impl Router<'_> {
    /// The way to `host:port`.
    pub(super) fn way(&self, host: &str, port: u16) -> Way {
        let Some(address) = self.address(host) else {
            // The host's own resolver, which knows the places by name.
            return match self.place(host, port, None) {
                Some(place) => Way::Outside { to: place, place: Some(place) },
                None => Way::NoSuchName,
            };
        };
        let to = SocketAddr::new(address, port);
        let place = self.place(host, port, Some(address));
        if !self.running {
            return Way::Outside { to, place };
        }
        if self.addresses.contains(&address) {
            // Netstack hands what is for this node to the host's loopback.
            let place = Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
            return Way::Tailnet { to, answer: Answer::Connect, place };
        }
        if !self.covers(address) {
            return Way::Outside { to, place };
        }
        let answer = self.look(&self.script.answers, host, port, Some(address));
        let default = if place.is_some() { Answer::Connect } else { Answer::Silent };
        Way::Tailnet { to, answer: answer.unwrap_or(default), place }
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.script.peers.iter().any(|peer| {
            let routes = || peer.routes.iter().filter_map(|net| IpNet::from_str(net).ok());
            peer.addresses.contains(&address)
                || self.accepts_routes && routes().any(|net| net.contains(&address))
        })
    }

    /// A literal, or a name of the netmap; `ExtraRecords` count only with an empty type.
    fn address(&self, host: &str) -> Option<IpAddr> {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Some(address);
        }
        if !self.running {
            return None;
        }
        let whole = |short: &str| format!("{short}.{}", self.script.suffix);
        let is = |full: &str| name == full || full.split('.').next() == Some(name.as_str());
        if is(&self.own) {
            return self.addresses.first().copied();
        }
        let peer = self.script.peers.iter().find(|peer| is(&whole(&peer.name)));
        let record = || {
            let records = self.script.dns["ExtraRecords"].as_array()?;
            let found = records.iter().find(|r| {
                r["Name"].as_str().is_some_and(|n| n.trim_end_matches('.') == name)
                    && r["Type"].as_str().unwrap_or_default().is_empty()
            })?;
            found["Value"].as_str()?.parse().ok()
        };
        peer.and_then(|peer| peer.addresses.first().copied()).or_else(record)
    }

    fn place(&self, host: &str, port: u16, address: Option<IpAddr>) -> Option<SocketAddr> {
        self.look(&self.script.places, host, port, address)
    }

    /// By `host:port`, then `host`, first as asked, then by address.
    fn look<T: Clone>(
        &self,
        map: &std::collections::BTreeMap<String, T>,
        host: &str,
        port: u16,
        address: Option<IpAddr>,
    ) -> Option<T> {
        let hosts = [Some(host.to_owned()), address.map(|a| a.to_string())];
        hosts
            .into_iter()
            .flatten()
            .find_map(|host| map.get(&format!("{host}:{port}")).or_else(|| map.get(&host)).cloned())
    }
}
