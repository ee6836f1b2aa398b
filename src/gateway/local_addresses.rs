//! What belongs to this host: the addresses and names through which a target would come back to us.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::policy::LocalAddresses;
use crate::tailnet;
use crate::target::Name;

/// Looks at this host as it is now; `node` is its part of the tailnet, with the kinds that go through
/// a tailscaled of this host.
pub(super) fn look(
    listeners: Vec<SocketAddr>,
    internal: Vec<SocketAddr>,
    node: Option<&tailnet::TailnetState>,
) -> LocalAddresses {
    let (mut addresses, mut names) = (interfaces(), names());
    if let Some(node) = node.and_then(|state| state.node.as_ref()) {
        addresses.extend(&node.addresses);
        names.extend(Name::parse(node.name.as_bytes()).ok());
    }
    LocalAddresses { listeners, internal, addresses, names, reach_loopback: node.is_some() }
}

/// Every interface address; none when the kernel will not say (`getifaddrs(3)`).
fn interfaces() -> Vec<IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found.iter().map(|interface| interface.ip().to_canonical()).collect()
}

/// This host's own name, as it stands and up to its first dot.
fn names() -> Vec<Name> {
    let system = rustix::system::uname();
    let whole = system.nodename().to_bytes();
    let short = whole.split(|byte| *byte == b'.').next().unwrap_or(whole);
    let mut names: Vec<Name> =
        [whole, short, b"localhost"].iter().filter_map(|text| Name::parse(text).ok()).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_localhost_are_ours() {
        let own = look(Vec::new(), Vec::new(), None);
        assert!(own.addresses.contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(own.names.iter().any(|name| name.as_str() == "localhost"));
    }
}
