//! A program's `connect`: let pass, or carried out on its own socket, to the gateway.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::address::{Address, InetAddress, for_socket};
use super::caller::{Caller, Closed, Kind, Socket};
use super::dial::{self, Patience};
use super::proxy_client::ProxyClient;
use super::supervisor::{Asked, Carried, Supervisor};
use super::way::{Datagram, Local, Way};

/// What a nested `run` is told by its outer one: an answer no Unix socket's `connect` gives.
pub(super) const NESTED: Errno = Errno::NOTUNIQ;

/// Answers `connect(fd, address, length)`.
pub(super) fn connect(supervisor: &Supervisor, caller: &Caller<'_>) -> Result<(), Closed> {
    match caller.address(caller.call.arguments[1], caller.number(2))? {
        Address::Inet(address) => inet(supervisor, caller, address)?,
        Address::Unix(name) => match supervisor.gateway.local(&name) {
            Local::Untouched => caller.let_pass(),
            Local::Refused => _ = caller.answer(Err(Errno::NOENT)),
            Local::Probe => _ = caller.answer(Err(NESTED)),
        },
        Address::Other => caller.let_pass(),
    }
    Ok(())
}

fn inet(supervisor: &Supervisor, caller: &Caller<'_>, address: InetAddress) -> Result<(), Closed> {
    let to = address.to;
    let (stream, datagram) = (supervisor.gateway.stream(to), supervisor.gateway.datagram(to));
    if (stream, datagram) == (Way::Untouched, Datagram::Untouched) {
        forget_if_ours(supervisor, caller, to);
        caller.let_pass();
        return Ok(());
    }
    let socket = caller.socket(caller.number(0))?;
    if !socket.takes(address) {
        caller.let_pass();
        return Ok(());
    }
    match (socket.kind, stream, datagram) {
        (Kind::Stream, Way::Proxy(target), _) => tcp(supervisor, caller, &socket, target),
        (Kind::Stream, Way::Dns(dns), _) => {
            let connected = on_its_socket(supervisor, caller, &socket, &Purpose::Dns(dns, to));
            caller.answer(connected.map(|()| 0));
        }
        (Kind::Datagram, _, Datagram::Dns(dns)) => {
            let connected = udp(supervisor, caller, &socket, to, dns);
            caller.answer(connected.map(|()| 0));
        }
        (Kind::Datagram, _, Datagram::LeftAlone) => {
            supervisor.counts.left_alone();
            caller.let_pass();
        }
        _ => caller.let_pass(),
    }
    Ok(())
}

/// A program that dials the gateway itself is told just that, also on a socket that led elsewhere
/// before it was disconnected.
fn forget_if_ours(supervisor: &Supervisor, caller: &Caller<'_>, to: SocketAddr) {
    if supervisor.gateway.leads_to_us(to)
        && let Some(inode) = caller.inode(caller.number(0))
    {
        supervisor.carried.forget(inode);
    }
}

/// What a TCP connection is for.
enum Purpose<'a> {
    /// A connection through the proxy to this target.
    Proxy(&'a [SocketAddr], SocketAddr),
    /// Questions to the gateway's DNS port, in the place of this nameserver.
    Dns(SocketAddr, SocketAddr),
}

impl Purpose<'_> {
    /// Where the program asked to go.
    fn target(&self) -> SocketAddr {
        let (Self::Proxy(_, target) | Self::Dns(_, target)) = self;
        *target
    }
}

fn tcp(supervisor: &Supervisor, caller: &Caller<'_>, socket: &Socket, target: SocketAddr) {
    let attempts = &supervisor.attempts;
    let connected = match attempts.under_way(socket.inode, target) {
        Some(attempt) => attempt.wait(),
        None => {
            let attempt = attempts.begin(socket.inode, target);
            let errand = Purpose::Proxy(&supervisor.gateway.proxy, target);
            let connected = on_its_socket(supervisor, caller, socket, &errand);
            supervisor.counts.connection(connected);
            attempt.end(connected);
            connected
        }
    };
    attempts.tell(socket.inode, || {
        caller.answer(connected.map(|()| 0)) || caller.waits_through_signals()
    });
}

/// Connects the program's own socket; where it cannot be had, or is bound to an address from which the
/// gateway cannot be reached, one of ours that takes its place.
fn on_its_socket(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    socket: &Socket,
    errand: &Purpose<'_>,
) -> Result<(), Errno> {
    let until = Some(Instant::now() + supervisor.gateway.patience);
    // A call that signals interrupt comes again and finds this connection.
    let alive = || !caller.waits_through_signals() || caller.alive();
    let patience = Patience { until, alive: &alive };
    let client = supervisor.gateway.client;
    if let Some(copy) = socket.copy() {
        match run(copy, socket.v6, socket.blocking, errand, client, &patience) {
            Err(Errno::ADDRNOTAVAIL | Errno::INVAL) => {}
            Ok(()) => {
                supervisor.carried.put(socket.inode, Carried::to(errand.target()));
                return Ok(());
            }
            Err(errno) => return Err(errno),
        }
    } else if supervisor.carried.get(socket.inode).is_some() {
        return Err(Errno::ISCONN);
    }
    let ours = own(socket, SocketType::STREAM)?;
    run(ours.as_fd(), socket.v6, true, errand, client, &patience)?;
    let inode = rustix::fs::fstat(&ours)?.st_ino;
    let carried = Carried { ends: ends(ours.as_fd()), ..Carried::to(errand.target()) };
    caller.replace(socket.number, ours.as_fd())?;
    supervisor.carried.put(inode, carried);
    Ok(())
}

/// The two ends of a connection, this one first.
fn ends(fd: BorrowedFd<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let local = rustix::net::getsockname(fd).ok()?.try_into().ok()?;
    let remote = rustix::net::getpeername(fd).ok()??.try_into().ok()?;
    Some((local, remote))
}

fn run(
    fd: BorrowedFd<'_>,
    v6: bool,
    blocking: bool,
    errand: &Purpose<'_>,
    client: &dyn ProxyClient,
    patience: &Patience<'_>,
) -> Result<(), Errno> {
    let only_v6 = v6 && sockopt::ipv6_v6only(fd)?;
    let done = match errand {
        Purpose::Dns(dns, _) => to_one_of(fd, v6, blocking, &[*dns], patience),
        Purpose::Proxy(proxy, target) => {
            to_one_of(fd, v6, blocking, proxy, patience).and_then(|()| {
                dial::ask(fd, client, *target, patience).inspect_err(|_| dial::disconnect(fd))
            })
        }
    };
    if done.is_err() && only_v6 {
        // It was taken back to reach the gateway; refused where the socket is still bound.
        let _bound = sockopt::set_ipv6_v6only(fd, true);
    }
    done
}

/// Connects to the first of the gateway's addresses that this socket can reach.
fn to_one_of(
    fd: BorrowedFd<'_>,
    v6: bool,
    blocking: bool,
    gateway: &[SocketAddr],
    patience: &Patience<'_>,
) -> Result<(), Errno> {
    let mut failed = Errno::AFNOSUPPORT;
    for address in gateway {
        match dial::connect(fd, reachable(fd, *address, v6)?, blocking, patience) {
            Ok(()) => return Ok(()),
            Err(errno @ (Errno::ISCONN | Errno::ALREADY | Errno::TIMEDOUT | Errno::CANCELED)) => {
                return Err(errno);
            }
            Err(errno) => failed = errno,
        }
        dial::disconnect(fd);
    }
    Err(failed)
}

/// `address` for a socket of this family. An IPv6 socket reaches an IPv4 gateway unless it is for IPv6
/// alone, which can be taken back as long as it is not bound (ipv6(7), `IPV6_V6ONLY`).
pub(super) fn reachable(
    fd: BorrowedFd<'_>,
    address: SocketAddr,
    v6: bool,
) -> Result<SocketAddr, Errno> {
    if v6 && address.is_ipv4() && sockopt::ipv6_v6only(fd)? {
        sockopt::set_ipv6_v6only(fd, false)?;
    }
    Ok(for_socket(address, v6))
}

/// A socket of ours, of the program's kind.
fn own(socket: &Socket, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if socket.v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let protocol = if kind == SocketType::STREAM { ipproto::TCP } else { ipproto::UDP };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))
}

/// Connects a datagram socket that is for a nameserver to the gateway's DNS port.
fn udp(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    socket: &Socket,
    nameserver: SocketAddr,
    dns: SocketAddr,
) -> Result<(), Errno> {
    let fd = datagram(supervisor, caller, socket, nameserver)?;
    let address = reachable(fd.as_fd(), dns, socket.v6)?;
    rustix::net::connect(&fd, &address)?;
    let inode = rustix::fs::fstat(&fd)?.st_ino;
    supervisor.carried.put(inode, Carried::to(nameserver));
    supervisor.counts.question();
    Ok(())
}

/// The datagram socket on which a question to `nameserver` goes out, remembered with it: the program's
/// own, else one of ours that has taken its place.
pub(super) fn datagram(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    socket: &Socket,
    nameserver: SocketAddr,
) -> Result<Arc<OwnedFd>, Errno> {
    if let Some(copy) = &socket.copy {
        supervisor.asked.put(socket.inode, Asked { nameserver, ours: None });
        return Ok(Arc::clone(copy));
    }
    let known = supervisor.asked.get(socket.inode).and_then(|asked| asked.ours);
    let (ours, inode) = match known {
        Some(ours) => (ours, socket.inode),
        None => {
            let ours = own(socket, SocketType::DGRAM)?;
            caller.replace(socket.number, ours.as_fd())?;
            let inode = rustix::fs::fstat(&ours)?.st_ino;
            (Arc::new(ours), inode)
        }
    };
    supervisor.asked.put(inode, Asked { nameserver, ours: Some(Arc::clone(&ours)) });
    Ok(ours)
}
