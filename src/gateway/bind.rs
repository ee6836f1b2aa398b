//! Every listening socket, bound before anything else happens: all of them, or none.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::{self, UpstreamKind};
use crate::listener::Bound;

/// What was bound.
pub(super) struct Listeners {
    pub(super) proxy: Vec<Bound>,
    pub(super) admin: TcpListener,
    addresses: Addresses,
}

/// The addresses as bound, port 0 replaced by what the kernel picked.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) proxy: Vec<SocketAddr>,
    pub(super) admin: SocketAddr,
}

impl Listeners {
    pub(super) fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }
}

impl Addresses {
    /// Every listener of ours: a target that leads to one is a loop.
    pub(super) fn listeners(&self) -> Vec<SocketAddr> {
        self.proxy.iter().copied().chain([self.admin]).collect()
    }

    /// The upstream's own port, which no client may reach past the policy.
    pub(super) fn internal(upstream: &config::Upstream) -> Vec<SocketAddr> {
        match upstream.kind {
            UpstreamKind::Socks5(address) | UpstreamKind::Tailscaled(Some(address)) => {
                vec![address]
            }
            _ => Vec::new(),
        }
    }
}

/// Binds what the settings name. An IPv6 address on a host without IPv6 is skipped with a line.
pub(super) fn all(listen: &config::Listen) -> Result<Listeners, StartError> {
    let mut proxy = Vec::with_capacity(listen.proxy.len());
    for address in &listen.proxy {
        match Bound::new(*address) {
            Ok(bound) => proxy.push(bound),
            Err(error) if address.is_ipv6() && no_such_address(&error) => {
                tracing::info!(%address, "listen.proxy: no IPv6 here, this address is skipped");
            }
            Err(error) => return Err(StartError::bind("listen.proxy", *address, error)),
        }
    }
    if proxy.is_empty() {
        return Err(StartError::NoListener);
    }
    let failed = |error| StartError::bind("listen.admin", listen.admin, error);
    let admin = TcpListener::bind(listen.admin).map_err(failed)?;
    let addresses = Addresses {
        proxy: proxy.iter().map(Bound::address).collect(),
        admin: admin.local_addr().map_err(failed)?,
    };
    Ok(Listeners { proxy, admin, addresses })
}

fn no_such_address(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_a_taken_port_names_its_owner_and_ends_75() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = config::Listen {
            proxy: vec![taken.local_addr().unwrap()],
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..config::Listen::default()
        };
        let error = all(&listen).err().unwrap();
        assert_eq!(error.exit_code(), 75);
        let text = error.to_string();
        assert!(text.contains(&format!("by process {}", std::process::id())), "{text}");
    }
}
