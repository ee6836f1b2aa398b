//! Every listening socket, bound before anything else happens: all of them, or none.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::StartError;
use super::dns::Sockets;
use crate::config::{self, ListenerKey, UpstreamKind};
use crate::lifecycle::run_dir::Listening;
use crate::listener::Bound;
use crate::target::Forward;

/// Every socket that was bound, and the addresses they have.
pub(super) struct Listeners {
    /// With those for TPROXY.
    pub(super) proxy: Vec<Bound>,
    pub(super) forwards: Vec<Bound>,
    pub(super) admin: TcpListener,
    pub(super) dns: Vec<Sockets>,
    /// Port 0 replaced by what the kernel picked.
    pub(super) listening: Listening,
}

/// The upstream's own port, which no client may reach past the policy.
pub(super) fn internal(upstream: &config::Upstream) -> Vec<SocketAddr> {
    match upstream.kind {
        UpstreamKind::Socks5(address) | UpstreamKind::Tailscaled(Some(address)) => vec![address],
        _ => Vec::new(),
    }
}

/// Binds what the settings name. An IPv6 address on a host without IPv6 is skipped with a line.
pub(super) fn all(listen: &config::Listen, forwards: &[Forward]) -> Result<Listeners, StartError> {
    let mut proxy = each(ListenerKey::Proxy, &listen.proxy, Bound::new)?;
    if proxy.is_empty() {
        return Err(StartError::NoListener);
    }
    let tproxy = each(ListenerKey::Tproxy, &listen.tproxy, Bound::transparent)?;
    let failed = |error| StartError::bind(ListenerKey::Admin, listen.admin, error);
    let admin = TcpListener::bind(listen.admin).map_err(failed)?;
    let admin_address = admin.local_addr().map_err(failed)?;
    let (forwards, forward) = forwards.iter().map(forward).collect::<Result<_, _>>()?;
    let private = Sockets::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .map_err(|source| StartError::System { what: "the DNS port for `run`", source })?;
    let clients = listen.dns.map(|address| {
        Sockets::bind(address).map_err(|error| StartError::bind(ListenerKey::Dns, address, error))
    });
    let clients = clients.transpose()?;
    let listening = Listening {
        proxy: proxy.iter().map(Bound::address).collect(),
        tproxy: tproxy.iter().map(Bound::address).collect(),
        admin: admin_address,
        forward,
        dns: Some(private.address()),
        dns_clients: clients.as_ref().map(Sockets::address),
    };
    proxy.extend(tproxy);
    let dns = [private].into_iter().chain(clients).collect();
    Ok(Listeners { proxy, forwards, admin, dns, listening })
}

/// Binds each address of the setting `key`.
fn each(
    key: ListenerKey,
    addresses: &[SocketAddr],
    bind: fn(SocketAddr) -> io::Result<Bound>,
) -> Result<Vec<Bound>, StartError> {
    let mut all = Vec::with_capacity(addresses.len());
    for address in addresses {
        match bind(*address) {
            Ok(bound) => all.push(bound),
            Err(error) if address.is_ipv6() && no_such_address(&error) => {
                tracing::info!(%address, "{key}: no IPv6 here, this address is skipped");
            }
            Err(error) => return Err(StartError::bind(key, *address, error)),
        }
    }
    Ok(all)
}

/// A static forward, and the same with the address as bound.
fn forward(wanted: &Forward) -> Result<(Bound, Forward), StartError> {
    let Forward { listen, target } = wanted.clone();
    let failed = |error| StartError::bind(ListenerKey::Forward, listen, error);
    let bound = Bound::new(listen).map_err(failed)?.leading_to(target.clone());
    let listen = bound.address();
    Ok((bound, Forward { listen, target }))
}

fn no_such_address(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    #[test]
    fn f6_all_listeners_or_none() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = config::Listen { proxy: vec![free], admin: any, ..config::Listen::default() };
        let target = Target::try_from("db.corp.example:5432".to_owned()).unwrap();
        let taken = Forward { listen: taken.local_addr().unwrap(), target };
        let error = all(&listen, &[Forward { listen: any, ..taken.clone() }, taken.clone()]);
        let error = error.err().unwrap();
        assert!(matches!(error, StartError::InUse { key: ListenerKey::Forward, .. }), "{error:?}");
        assert_eq!((error.key(), error.address()), (None, Some(taken.listen)));
        assert!(TcpListener::bind(free).is_ok(), "nothing stays bound");
    }

    #[test]
    fn f6_a_taken_port_names_its_owner_and_ends_75() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = config::Listen {
            proxy: vec![taken.local_addr().unwrap()],
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..config::Listen::default()
        };
        let error = all(&listen, &[]).err().unwrap();
        assert_eq!(error.exit_code(), 75);
        let text = error.to_string();
        assert!(text.contains(&format!("by process {}", std::process::id())), "{text}");
    }
}
