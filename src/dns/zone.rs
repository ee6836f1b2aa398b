//! What the tailnet says about names, as `gateway.rs` hands it over.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use crate::sys::Stream;
use crate::target::Name;

/// The tailnet's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TailnetZone {
    /// MagicDNS suffix, as `tail1234.ts.net`; a bare `db` is `db.tail1234.ts.net` when that is known.
    pub suffix: Option<Name>,
    /// MagicDNS names and `ExtraRecords`, whole; IPv4 first.
    pub hosts: HashMap<Name, Vec<IpAddr>>,
    /// Nodes by their own addresses, for reverse names.
    pub pointers: HashMap<IpAddr, Name>,
    /// Domains with nameservers of their own (split DNS); none named: answered from `hosts` alone.
    pub routes: Vec<(Name, Vec<NameserverAddress>)>,
    /// Nameservers for everything else; none: this host's.
    pub global: Vec<NameserverAddress>,
}

/// A nameserver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NameserverAddress {
    /// Asked by DNS over TCP.
    Address(SocketAddr),
    /// DNS over HTTPS; `bootstrap` are addresses of its host, where some are given.
    Https {
        /// The whole URL.
        url: String,
        /// Where its host is.
        bootstrap: Vec<IpAddr>,
    },
    /// A form that is not asked.
    Other(String),
}

impl TailnetZone {
    /// Whether nobody but the tailnet's own nameservers may hear of `name`.
    pub(super) fn is_internal(&self, name: &Name) -> bool {
        let own = self.suffix.iter().chain(self.routes.iter().map(|(domain, _)| domain));
        self.hosts.contains_key(name) || own.into_iter().any(|domain| is_within(name, domain))
    }
}

/// Whether `name` is `domain` or below it, by whole labels.
pub(super) fn is_within(name: &Name, domain: &Name) -> bool {
    let rest = name.as_str().strip_suffix(domain.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A connection under way.
pub type NameserverDial = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

/// The way to nameservers inside the tailnet.
pub trait NameserverWay: Send + Sync + 'static {
    /// Whether the tailnet leads to `address`.
    fn covers(&self, address: IpAddr) -> bool;
    /// Connects to a nameserver that it covers.
    fn dial(&self, to: SocketAddr) -> NameserverDial;
}
