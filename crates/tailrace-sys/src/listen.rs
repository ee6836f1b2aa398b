//! Listening TCP sockets, and taking one connection from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::tune;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Binds `address` and listens. `[::]` takes IPv4 too, whatever `net.ipv6.bindv6only` says, as the
/// admin listener and most servers do.
///
/// # Errors
/// What `bind(2)` says: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL` (no such address on this host).
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    open_socket(address, false)
}

/// The same with `IP_TRANSPARENT` (ip(7)): TPROXY leads connections here whatever their destination,
/// which then is the address the accepted socket is bound to.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `Unsupported` where there is no TPROXY, and what
/// [`listen`] says.
pub fn listen_transparent(address: SocketAddr) -> io::Result<OwnedFd> {
    open_socket(address, true)
}

fn open_socket(address: SocketAddr, transparent: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    if transparent {
        set_transparent(&socket)?;
    }
    tune(&socket)?; // accepted sockets inherit it: five calls less for each
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The IPv4 option is the socket's own whatever its family (linux net/ipv6/ipv6_sockglue.c hands
/// `SOL_IP` on).
fn set_transparent(socket: &OwnedFd) -> io::Result<()> {
    socket2::SockRef::from(socket).set_ip_transparent_v4(true)
}

/// The address a socket is bound to.
///
/// # Errors
/// What `getsockname(2)` says.
pub fn bound_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket)?).map_err(io::Error::from)
}

/// A listening socket registered with the runtime.
#[derive(Debug)]
pub struct Listener {
    fd: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Registers a listening, non-blocking socket. Must be called inside a runtime.
    ///
    /// # Errors
    /// What epoll says, most likely `ENOMEM` or `ENOSPC`.
    #[expect(unsafe_code, reason = "registering a raw descriptor")]
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: the `OwnedFd` moves into the registration, which closes it only after it has
        // taken it out of epoll; nothing else ever gets it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { fd })
    }

    /// Waits until somebody may be there; after [`Listener::accept`] said otherwise, until the
    /// next one comes.
    ///
    /// # Errors
    /// Only when the runtime is shutting down.
    pub async fn somebody(&self) -> io::Result<()> {
        self.fd.readable().await?.retain_ready();
        Ok(())
    }

    /// Takes one waiting connection, non-blocking and closed on exec, and who it is from.
    ///
    /// # Errors
    /// What `accept(2)` says; `WouldBlock` when nobody waits.
    pub async fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let mut guard = self.fd.readable().await?;
        let accepted = guard.try_io(|fd| Ok(rustix::net::acceptfrom_with(fd, FLAGS)?));
        let (socket, peer) = accepted.unwrap_or(Err(io::ErrorKind::WouldBlock.into()))?;
        let peer = peer.ok_or(io::ErrorKind::NotConnected)?;
        Ok((socket, SocketAddr::try_from(peer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_a_port_in_use_keeps_its_errno() {
        let first = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let error = listen(bound_address(&first).unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn an_accepted_socket_knows_its_peer_and_inherits_its_options() {
        let socket = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound_address(&socket).unwrap();
        let idle = sockopt::tcp_keepidle(&socket).unwrap();
        let listener = Listener::new(socket).unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        listener.somebody().await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(sockopt::tcp_nodelay(&stream).unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), idle);
    }
}
