//! The sockets of this host that have sent their FIN to one address, whatever port they have: a dump of
//! sock_diag(7). It walks the kernel's whole table of connections, a millisecond or so, so it is for what
//! is rare.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags};

use super::socket_owner::{
    BY_FAMILY, DiagHeader, HEADER, REQUEST, SocketOwner, UID, netlink_socket, read_u32,
};

/// `NLM_F_DUMP`, and the types of the messages that end a dump (linux/netlink.h).
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_TIME_WAIT`, `TCP_LAST_ACK` and `TCP_CLOSING`
/// (net/tcp_states.h), each as a bit.
const FIN_SENT: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11;
/// Where `struct inet_diag_msg` has the remote port and address, behind the header.
const REMOTE_PORT: usize = HEADER + 6;
const REMOTE_ADDRESS: usize = HEADER + 24;
/// The kernel's datagrams of a dump are no longer.
const ROOM: usize = 32 * 1024;
/// More sockets are not looked at.
const MOST: usize = 4096;

/// The owners of all sockets in this network namespace that are connected to `remote` and have sent their
/// FIN. One that nobody holds any more has inode 0.
///
/// # Errors
/// What netlink says; `EOVERFLOW` when there are thousands of them.
pub fn closing_sockets(remote: SocketAddr) -> io::Result<Vec<SocketOwner>> {
    let mut owners = Vec::new();
    // An IPv6 socket connected to an IPv4 address is among those of IPv6.
    if remote.ip().to_canonical().is_ipv4() {
        dump_sockets(AddressFamily::INET, remote, &mut owners)?;
    }
    dump_sockets(AddressFamily::INET6, remote, &mut owners)?;
    Ok(owners)
}

fn dump_sockets(
    family: AddressFamily,
    remote: SocketAddr,
    owners: &mut Vec<SocketOwner>,
) -> io::Result<()> {
    let socket = netlink_socket()?;
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let mut question = Vec::new();
    DiagHeader { flags: REQUEST | DUMP, sequence: 0, family, states: FIN_SENT }.append_to(
        &mut question,
        (any, 0),
        (any, remote.port()),
    );
    rustix::net::send(&socket, &question, SendFlags::empty())?;
    let mut bytes = vec![0; ROOM];
    while read_dump(socket.as_fd(), &mut bytes, remote, owners)? {
        if owners.len() > MOST {
            return Err(Errno::OVERFLOW.into());
        }
    }
    Ok(())
}

/// Reads some messages; false at the end of the dump. The kernel writes the next ones while these are
/// read: nothing to wait for (netlink(7)).
fn read_dump(
    socket: impl AsFd,
    bytes: &mut [u8],
    remote: SocketAddr,
    owners: &mut Vec<SocketOwner>,
) -> io::Result<bool> {
    let (_, length) = rustix::net::recv(socket, &mut *bytes, RecvFlags::TRUNC)?;
    let mut rest = bytes.get(..length).ok_or(Errno::MSGSIZE)?;
    while !rest.is_empty() {
        let length = read_u32(rest, 0)? as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER);
        let message = message.ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([message[4], message[5]]) {
            DONE => return Ok(false),
            ERROR => {
                return Err(Errno::from_raw_os_error(-(read_u32(message, HEADER)? as i32)).into());
            }
            BY_FAMILY if leads_to(message, remote)? => {
                owners.push(SocketOwner {
                    uid: read_u32(message, UID)?,
                    inode: read_u32(message, UID + 4)?,
                });
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn leads_to(message: &[u8], remote: SocketAddr) -> io::Result<bool> {
    let bytes = message.get(..UID).ok_or(io::ErrorKind::UnexpectedEof)?;
    let port = u16::from_be_bytes([bytes[REMOTE_PORT], bytes[REMOTE_PORT + 1]]);
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[REMOTE_ADDRESS..REMOTE_ADDRESS + 16]);
    let ip = match i32::from(bytes[HEADER]) {
        libc::AF_INET => IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
        _ => Ipv6Addr::from(ip).into(),
    };
    Ok(port == remote.port() && ip.to_canonical() == remote.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn only_those_that_sent_their_fin_to_that_address_are_told() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let server = listener.local_addr().unwrap();
            let other = TcpListener::bind(address).unwrap();
            let clients = [server, server, server, other.local_addr().unwrap()]
                .map(|to| TcpStream::connect(to).unwrap());
            let _accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
            assert_eq!(held(server), []);
            clients[0].shutdown(Shutdown::Write).unwrap();
            clients[3].shutdown(Shutdown::Write).unwrap();
            let uid = rustix::process::getuid().as_raw();
            let inode = rustix::fs::fstat(&clients[0]).unwrap().st_ino as u32;
            assert_eq!(held(server), [SocketOwner { uid, inode }]);
            let [half_closed, left, ..] = clients;
            drop(left);
            assert_eq!(held(server), [SocketOwner { uid, inode }]);
            wait_until(|| closing_sockets(server).unwrap().iter().any(|owner| owner.inode == 0));
            drop(half_closed);
            wait_until(|| held(server).is_empty());
        }
    }

    /// A program that another test starts has a copy of each of our descriptors between fork and exec: until
    /// then a socket we have closed is not.
    fn wait_until(holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// An address may have been another test's lately: those have left.
    fn held(server: SocketAddr) -> Vec<SocketOwner> {
        let mut all = closing_sockets(server).unwrap();
        all.retain(|owner| owner.inode != 0);
        all
    }

    #[test]
    fn an_ipv6_socket_to_an_ipv4_address_is_one_of_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let IpAddr::V4(ip) = server.ip() else { unreachable!("bound to IPv4") };
        let mapped = SocketAddr::new(ip.to_ipv6_mapped().into(), server.port());
        let Ok(client) = TcpStream::connect(mapped) else { return };
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(held(server).len(), 1);
    }
}
