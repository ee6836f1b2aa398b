//! Opening one TCP connection: socket, mark, connect, wait.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{Stream, tune};

/// Connects to `address`. Dropping the future closes the socket; it sets no time limit itself.
///
/// `mark` is `SO_MARK` (socket(7)), which needs `CAP_NET_ADMIN`.
///
/// # Errors
/// What `socket(2)`, `setsockopt(2)` and `connect(2)` say. A connection to itself, which TCP makes
/// when the kernel picks the asked-for port as our own, is `ECONNREFUSED`: nobody listens there.
pub async fn dial(address: SocketAddr, mark: Option<u32>) -> io::Result<Stream> {
    let socket = open(address, mark)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = Stream::new(socket)?;
    stream.readiness().writable().await?.retain_ready();
    rustix::net::sockopt::socket_error(&stream)??;
    if stream.local_addr()? == address {
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(stream)
}

fn open(address: SocketAddr, mark: Option<u32>) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    #[cfg(target_os = "linux")]
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = mark;
    tune(&socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_listener_is_reached_and_a_closed_port_refuses() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stream = dial(address, None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        drop(listener);
        let error = dial(address, None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
