//! What belongs to this host: the addresses and names through which a target would come back to us.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::policy::Own;
use crate::target::Name;

/// Looks at this host as it is now.
pub(super) fn look(listeners: Vec<SocketAddr>, internal: Vec<SocketAddr>) -> Own {
    Own { listeners, internal, interfaces: interfaces(), names: names() }
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
        let own = look(Vec::new(), Vec::new());
        assert!(own.interfaces.contains(&IpAddr::from([127, 0, 0, 1])));
        assert!(own.names.iter().any(|name| name.as_str() == "localhost"));
    }
}
