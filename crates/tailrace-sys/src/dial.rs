//! Opening one connection: socket, mark, connect, wait.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Stream, tune};

/// Between two attempts at a Unix socket whose backlog is full: no event tells when it is not.
const PAUSE: Duration = Duration::from_millis(10);

/// Connects to `address`. Dropping the future closes the socket; it sets no time limit itself.
///
/// `mark` is `SO_MARK` (socket(7)), which needs `CAP_NET_ADMIN`.
///
/// # Errors
/// What `socket(2)`, `setsockopt(2)` and `connect(2)` say. A connection to itself, which TCP makes
/// when the kernel picks the asked-for port as our own, is `ECONNREFUSED`: nobody listens there.
pub async fn dial(address: SocketAddr, mark: Option<u32>) -> io::Result<Stream> {
    let socket = open_socket(address, mark)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = Stream::new(socket)?;
    // On loopback it is through by now, and nobody need be woken for it.
    if !stream.has_peer() {
        stream.readiness().writable().await?.retain_ready();
        rustix::net::sockopt::socket_error(&stream)??;
    }
    if stream.local_addr()? == address {
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(stream)
}

/// Connects to the Unix stream socket at `path` (unix(7)). Dropping the future closes the socket; it
/// sets no time limit itself: while the listener's backlog is full it tries again.
///
/// # Errors
/// What `socket(2)` and `connect(2)` say, `ENAMETOOLONG` or `EINVAL` for a path no address holds.
pub async fn dial_unix(path: &Path) -> io::Result<Stream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    loop {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Stream::new(socket),
            Err(Errno::AGAIN | Errno::INTR) => tokio::time::sleep(PAUSE).await,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Tries whether connections of ours may carry `mark`.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, or what `socket(2)` says.
pub fn may_mark(mark: u32) -> io::Result<()> {
    open_socket((Ipv4Addr::LOCALHOST, 0).into(), Some(mark)).map(drop)
}

fn open_socket(address: SocketAddr, mark: Option<u32>) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    tune(&socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_reached_and_one_nobody_listens_on_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert_eq!(dial_unix(&path).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        let stream = dial_unix(&path).await.unwrap();
        let (mut far, _) = listener.accept().unwrap();
        stream.write_all(b"over").await.unwrap();
        let mut got = [0; 4];
        io::Read::read_exact(&mut far, &mut got).unwrap();
        assert_eq!(&got, b"over");
        drop(listener);
        assert_eq!(dial_unix(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(dial_unix(Path::new(&"x".repeat(200))).await.is_err());
    }

    #[tokio::test]
    async fn u2_a_full_backlog_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let _fills_it = dial_unix(&path).await.unwrap();
        let wait = tokio::time::timeout(PAUSE * 10, dial_unix(&path)).await;
        assert!(wait.is_err(), "{wait:?}");
        let (taken, room) = tokio::join!(
            async { socket.accept() },
            tokio::time::timeout(PAUSE * 500, dial_unix(&path))
        );
        assert!(taken.is_ok() && room.unwrap().is_ok());
    }

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
