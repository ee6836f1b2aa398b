//! Whose socket is at the other end of a local connection: one question to the kernel
//! (sock_diag(7), `inet_diag`), where reading `/proc/net/tcp` would walk every connection there is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` (linux/netlink.h).
const REQUEST: u16 = 1;
/// Where `struct inet_diag_req_v2` and `struct inet_diag_msg` have the two ports.
const ASKED: usize = HEADER + 8;
const ANSWERED: usize = HEADER + 4;
/// Where `struct inet_diag_msg` has `idiag_uid`, behind the header; the inode follows.
const UID: usize = HEADER + 64;

/// The owner of a socket on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id of who made the socket.
    pub uid: u32,
    /// The socket's inode, as in `/proc/PID/fd/N -> socket:[inode]`.
    pub inode: u32,
}

/// Asks who owns the socket bound to `local` and connected to `remote`, as its owner sees them.
///
/// # Errors
/// `ENOENT` if there is no such socket in this network namespace, or what netlink says.
pub fn socket_owner(local: SocketAddr, remote: SocketAddr) -> io::Result<Owner> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = (AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG));
    let socket = rustix::net::socket_with(kind.0, kind.1, flags, kind.2)?;
    let question = question(local, remote);
    rustix::net::send(&socket, &question, SendFlags::empty())?;
    let mut answer = [0; 512];
    // The kernel answers within send(2): nothing to wait for.
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let owner = parse(&answer[..length])?;
    // Where there is no such connection, the kernel names a listener on that port instead.
    match answer[ANSWERED..ANSWERED + 4] == question[ASKED..ASKED + 4] {
        true => Ok(owner),
        false => Err(Errno::NOENT.into()),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (linux/inet_diag.h).
fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let (from, to) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut body = vec![family.as_raw() as u8, 6, 0, 0]; // 6: IPPROTO_TCP
    body.extend(u32::MAX.to_ne_bytes()); // any state
    body.extend(local.port().to_be_bytes());
    body.extend(remote.port().to_be_bytes());
    body.extend(sixteen(from));
    body.extend(sixteen(to));
    body.extend(0u32.to_ne_bytes()); // any interface
    body.extend(u64::MAX.to_ne_bytes()); // INET_DIAG_NOCOOKIE
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port id: one question per socket
    message.extend(body);
    message
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut padded = [0; 16];
            padded[..4].copy_from_slice(&v4.octets());
            padded
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn parse(answer: &[u8]) -> io::Result<Owner> {
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map(u32::from_ne_bytes).ok_or(io::ErrorKind::UnexpectedEof)
    };
    if answer.get(4..6) != Some(&BY_FAMILY.to_ne_bytes()) {
        let code = (number(HEADER)? as i32).wrapping_neg();
        return Err(match code {
            0 => io::ErrorKind::InvalidData.into(),
            code => Errno::from_raw_os_error(code).into(),
        });
    }
    Ok(Owner { uid: number(UID)?, inode: number(UID + 4)? })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_client_of_a_loopback_connection_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let owner = socket_owner(from, to).unwrap();
            assert_eq!(owner.uid, rustix::process::getuid().as_raw());
            let link = std::fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd()));
            assert_eq!(link.unwrap().to_str().unwrap(), format!("socket:[{}]", owner.inode));
            drop(client);
            let gone = socket_owner(to, to).unwrap_err();
            assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        }
    }
}
