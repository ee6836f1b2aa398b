//! Whose socket is at the other end of a local connection: one question to the kernel
//! (sock_diag(7), `inet_diag`), where reading `/proc/net/tcp` would walk every connection there is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
pub(super) const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` (linux/netlink.h).
pub(super) const REQUEST: u16 = 1;
/// Length of a question: the header and `struct inet_diag_req_v2`.
const QUESTION: usize = HEADER + 56;
/// Where `struct nlmsghdr` has its sequence number.
const SEQUENCE: usize = 8;
/// Where `struct inet_diag_msg` has the two ports.
const ANSWERED: usize = HEADER + 4;
/// Questions in one datagram; as many answers fit the socket's receive buffer many times over.
const AT_ONCE: usize = 32;
/// Where `struct inet_diag_msg` has `idiag_uid`, behind the header; the inode follows.
pub(super) const UID: usize = HEADER + 64;

/// The owner of a socket on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOwner {
    /// User id of who made the socket.
    pub uid: u32,
    /// The socket's inode, as in `/proc/PID/fd/N -> socket:[inode]`.
    pub inode: u32,
}

/// Asks who owns the socket bound to `local` and connected to `remote`, as its owner sees them.
///
/// # Errors
/// `ENOENT` if there is no such socket in this network namespace, or what netlink says.
pub fn socket_owner(local: SocketAddr, remote: SocketAddr) -> io::Result<SocketOwner> {
    let socket = netlink_socket()?;
    let mut question = Vec::with_capacity(QUESTION);
    append_question(&mut question, 0, local, remote);
    rustix::net::send(&socket, &question, SendFlags::empty())?;
    let mut answer = [0; 512];
    // The kernel answers within send(2): nothing to wait for.
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    parse_answer(&answer[..length], local, remote)
}

/// The same for many sockets at a time, over one netlink socket that is kept.
#[derive(Debug)]
pub struct SocketOwners {
    socket: OwnedFd,
    questions: Vec<u8>,
}

impl SocketOwners {
    /// Of this thread's network namespace.
    ///
    /// # Errors
    /// What `socket(2)` says: no netlink here, no descriptor left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: netlink_socket()?, questions: Vec::new() })
    }

    /// One answer for each pair of `local` and `remote`, in their order; `None` where there is no such
    /// socket or the kernel did not say.
    pub fn ask_owners(&mut self, pairs: &[(SocketAddr, SocketAddr)]) -> Vec<Option<SocketOwner>> {
        let mut owners = vec![None; pairs.len()];
        for (pairs, owners) in pairs.chunks(AT_ONCE).zip(owners.chunks_mut(AT_ONCE)) {
            self.ask_few(pairs, owners);
        }
        owners
    }

    fn ask_few(&mut self, pairs: &[(SocketAddr, SocketAddr)], owners: &mut [Option<SocketOwner>]) {
        self.questions.clear();
        for (at, (local, remote)) in (0..).zip(pairs) {
            append_question(&mut self.questions, at, *local, *remote);
        }
        if rustix::net::send(&self.socket, &self.questions, SendFlags::empty()).is_err() {
            return;
        }
        let mut answer = [0; 512];
        // Every message of the datagram is answered by one of its own, within send(2) (netlink(7)).
        // What is there beyond that is left of a question whose answers did not fit.
        while let Ok((length, _)) =
            rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())
        {
            let answer = &answer[..length];
            let asked = read_u32(answer, SEQUENCE).ok().and_then(|at| usize::try_from(at).ok());
            let Some((at, pair)) = asked.and_then(|at| Some((at, pairs.get(at)?))) else {
                continue;
            };
            owners[at] = parse_answer(answer, pair.0, pair.1).ok();
        }
    }
}

pub(super) fn netlink_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = (AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG));
    Ok(rustix::net::socket_with(kind.0, kind.1, flags, kind.2)?)
}

/// Appends `struct nlmsghdr` and `struct inet_diag_req_v2` (linux/inet_diag.h).
fn append_question(out: &mut Vec<u8>, sequence: u32, local: SocketAddr, remote: SocketAddr) {
    let (from, to) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let header = DiagHeader { flags: REQUEST, sequence, family, states: u32::MAX };
    header.append_to(out, (from, local.port()), (to, remote.port()));
}

/// What a question says beside the two addresses.
pub(super) struct DiagHeader {
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) family: AddressFamily,
    /// A bit for each state of a socket that counts (tcp(7), `TCP_ESTABLISHED` is bit 1).
    pub(super) states: u32,
}

impl DiagHeader {
    /// Appends the whole question; ports are 0 for any.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, local: (IpAddr, u16), remote: (IpAddr, u16)) {
        out.extend((QUESTION as u32).to_ne_bytes());
        out.extend(BY_FAMILY.to_ne_bytes());
        out.extend(self.flags.to_ne_bytes());
        out.extend(self.sequence.to_ne_bytes());
        out.extend([0; 4]); // port id: the kernel knows who asks
        out.extend([self.family.as_raw() as u8, 6, 0, 0]); // 6: IPPROTO_TCP
        out.extend(self.states.to_ne_bytes());
        out.extend(local.1.to_be_bytes());
        out.extend(remote.1.to_be_bytes());
        out.extend(sixteen_bytes(local.0));
        out.extend(sixteen_bytes(remote.0));
        out.extend(0u32.to_ne_bytes()); // any interface
        out.extend(u64::MAX.to_ne_bytes()); // INET_DIAG_NOCOOKIE
    }
}

fn sixteen_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut padded = [0; 16];
            padded[..4].copy_from_slice(&v4.octets());
            padded
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(super) fn read_u32(answer: &[u8], at: usize) -> io::Result<u32> {
    let bytes = answer.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    bytes.map(u32::from_ne_bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn parse_answer(answer: &[u8], local: SocketAddr, remote: SocketAddr) -> io::Result<SocketOwner> {
    if answer.get(4..6) != Some(&BY_FAMILY.to_ne_bytes()) {
        let code = (read_u32(answer, HEADER)? as i32).wrapping_neg();
        return Err(match code {
            0 => io::ErrorKind::InvalidData.into(),
            code => Errno::from_raw_os_error(code).into(),
        });
    }
    let owner = SocketOwner { uid: read_u32(answer, UID)?, inode: read_u32(answer, UID + 4)? };
    // Where there is no such connection, the kernel names a listener on that port instead.
    let [from, to] = [local.port().to_be_bytes(), remote.port().to_be_bytes()];
    match answer[ANSWERED..ANSWERED + 4] == [from, to].concat() {
        true => Ok(owner),
        false => Err(Errno::NOENT.into()),
    }
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

    #[test]
    fn many_are_asked_at_a_time_and_answered_in_their_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(server).unwrap()).collect();
        let mut pairs: Vec<_> = clients.iter().map(|c| (c.local_addr().unwrap(), server)).collect();
        pairs.insert(50, (server, server));
        let mut owners = SocketOwners::open().unwrap();
        for _ in 0..2 {
            let mut answers = owners.ask_owners(&pairs);
            assert_eq!(answers.remove(50), None, "no such connection");
            let inode = |client: &TcpStream| rustix::fs::fstat(client).unwrap().st_ino;
            let told = answers.iter().map(|owner| u64::from(owner.unwrap().inode));
            assert!(told.eq(clients.iter().map(inode)));
        }
    }
}
