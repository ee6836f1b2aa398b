//! What is ours: targets that would come back to this gateway.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::target::{Host, Name, Target, carried_v4};

/// This host's listeners, addresses and names, as `gateway.rs` last saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Addresses that our own listeners are bound to.
    pub listeners: Vec<SocketAddr>,
    /// The upstream's own port.
    pub internal: Vec<SocketAddr>,
    /// Every address of this host: of its interfaces, and of its node in the tailnet.
    pub addresses: Vec<IpAddr>,
    /// This host's names, `localhost` and its node's among them.
    pub names: Vec<Name>,
    /// Through the upstream they all lead to this host's loopback, whatever port: a userspace
    /// tailscaled does that (B13).
    pub reach_loopback: bool,
}

impl LocalAddresses {
    /// The rule's text when `target` is one of our listeners or the upstream's port (B14).
    pub(super) fn loop_rule(&self, target: &Target) -> Option<&'static str> {
        let port = target.port.get();
        let hits = |mut list: std::slice::Iter<'_, SocketAddr>| {
            list.any(|own| {
                own.port() == port && self.leads_to(&target.host, own.ip().to_canonical())
            })
        };
        if hits(self.listeners.iter()) {
            return Some("own listener");
        }
        hits(self.internal.iter()).then_some("internal port of the upstream")
    }

    /// The rule's text when `host` is this host by way of a userspace tailscaled.
    pub(super) fn own_host_rule(&self, host: &Host) -> Option<&'static str> {
        if !self.reach_loopback {
            return None;
        }
        match host {
            Host::Name(name) => self.is_our_name(name).then_some("own name"),
            Host::Address(address) => {
                let carried = carried_v4(*address).any(|v4| self.is_here(v4.into()));
                (carried || self.is_here(*address)).then_some("own address")
            }
        }
    }

    /// Whether an address is one of this host.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.is_here(address.to_canonical())
    }

    fn leads_to(&self, host: &Host, listener: IpAddr) -> bool {
        match host {
            Host::Address(address) => {
                self.is_same(*address, listener)
                    || carried_v4(*address).any(|v4| self.is_same(v4.into(), listener))
            }
            Host::Name(name) => self.is_here(listener) && self.is_our_name(name),
        }
    }

    /// Any address of this host counts for any other: what is bound to one may be redirected.
    fn is_same(&self, address: IpAddr, listener: IpAddr) -> bool {
        address == listener || (self.is_here(address) && self.is_here(listener))
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified() || self.addresses.contains(&address)
    }

    /// `localhost` and all below it are loopback (RFC 6761 section 6.3).
    fn is_our_name(&self, name: &Name) -> bool {
        name.is_localhost() || self.names.contains(name)
    }
}
