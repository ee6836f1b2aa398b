//! A program's `connect`: let pass, or carried out on its own socket, to the gateway.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::address::{InetAddress, ParsedAddress, for_socket};
use super::dial::{self, WaitLimit};
use super::proxy_client::ProxyClient;
use super::routing::{DatagramRoute, StreamRoute, UnixSocketRoute};
use super::supervisor::{CallSupervisor, CarriedSocket, QuestionSocket};
use super::suspended_call::{CallError, ProgramSocket, SocketKind, SuspendedCall};

/// What a nested `run` is told by its outer one: an answer no Unix socket's `connect` gives.
pub(super) const NESTED: Errno = Errno::NOTUNIQ;

/// Answers `connect(fd, address, length)`.
pub(super) fn handle_connect(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    match caller.read_address(caller.call.arguments[1], caller.argument_as_int(2))? {
        ParsedAddress::Inet(address) => connect_inet(supervisor, caller, address)?,
        ParsedAddress::Unix(name) => match supervisor.gateway.unix_socket_route(&name) {
            UnixSocketRoute::Untouched => caller.let_pass(),
            UnixSocketRoute::Refused => _ = caller.return_result(Err(Errno::NOENT)),
            UnixSocketRoute::Probe => _ = caller.return_result(Err(NESTED)),
        },
        ParsedAddress::Other => caller.let_pass(),
    }
    Ok(())
}

fn connect_inet(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    address: InetAddress,
) -> Result<(), CallError> {
    let to = address.to;
    let (stream, datagram) =
        (supervisor.gateway.stream_route(to), supervisor.gateway.datagram_route(to));
    if (stream, datagram) == (StreamRoute::Untouched, DatagramRoute::Untouched) {
        forget_if_ours(supervisor, caller, to);
        caller.let_pass();
        return Ok(());
    }
    let socket = caller.find_socket(caller.argument_as_int(0))?;
    if !socket.accepts_address(address) {
        caller.let_pass();
        return Ok(());
    }
    match (socket.kind, stream, datagram) {
        (SocketKind::Stream, StreamRoute::Proxy(target), _) => {
            carry_tcp(supervisor, caller, &socket, target)
        }
        (SocketKind::Stream, StreamRoute::Dns(dns), _) => {
            let connected =
                connect_program_socket(supervisor, caller, &socket, &ConnectPurpose::Dns(dns, to));
            caller.return_result(connected.map(|()| 0));
        }
        (SocketKind::Datagram, _, DatagramRoute::Dns(dns)) => {
            let connected = connect_udp(supervisor, caller, &socket, to, dns);
            caller.return_result(connected.map(|()| 0));
        }
        (SocketKind::Datagram, _, DatagramRoute::LeftAlone) => {
            supervisor.counts.count_left_alone();
            caller.let_pass();
        }
        _ => caller.let_pass(),
    }
    Ok(())
}

/// A program that dials the gateway itself is told just that, also on a socket that led elsewhere
/// before it was disconnected.
fn forget_if_ours(supervisor: &CallSupervisor, caller: &SuspendedCall<'_>, to: SocketAddr) {
    if supervisor.gateway.leads_to_us(to)
        && let Some(inode) = caller.inode_in_proc(caller.argument_as_int(0))
    {
        supervisor.carried.forget(inode);
    }
}

/// What a TCP connection is for.
enum ConnectPurpose<'a> {
    /// A connection through the proxy to this target.
    Proxy(&'a [SocketAddr], SocketAddr),
    /// Questions to the gateway's DNS port, in the place of this nameserver.
    Dns(SocketAddr, SocketAddr),
}

impl ConnectPurpose<'_> {
    /// Where the program asked to go.
    fn requested_target(&self) -> SocketAddr {
        let (Self::Proxy(_, target) | Self::Dns(_, target)) = self;
        *target
    }
}

fn carry_tcp(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    socket: &ProgramSocket,
    target: SocketAddr,
) {
    let attempts = &supervisor.attempts;
    let connected = match attempts.under_way(socket.inode, target) {
        Some(attempt) => attempt.wait_for_end(),
        None => {
            let attempt = attempts.begin_attempt(socket.inode, target);
            let purpose = ConnectPurpose::Proxy(&supervisor.gateway.proxy, target);
            let connected = connect_program_socket(supervisor, caller, socket, &purpose);
            supervisor.counts.count_connection(connected);
            attempt.record_end(connected);
            connected
        }
    };
    attempts.deliver_result(socket.inode, || {
        caller.return_result(connected.map(|()| 0)) || caller.waits_through_signals()
    });
}

/// Connects the program's own socket; where it cannot be had, or is bound to an address from which the
/// gateway cannot be reached, one of ours that takes its place.
fn connect_program_socket(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    socket: &ProgramSocket,
    purpose: &ConnectPurpose<'_>,
) -> Result<(), Errno> {
    let until = Some(Instant::now() + supervisor.gateway.connect_timeout);
    // A call that signals interrupt comes again and finds this connection.
    let alive = || !caller.waits_through_signals() || caller.still_waits();
    let wait_limit = WaitLimit { until, alive: &alive };
    let client = supervisor.gateway.client;
    if let Some(copy) = socket.duplicate() {
        match connect_for_purpose(copy, socket.v6, socket.blocking, purpose, client, &wait_limit) {
            Err(Errno::ADDRNOTAVAIL | Errno::INVAL) => {}
            Ok(()) => {
                supervisor
                    .carried
                    .put(socket.inode, CarriedSocket::to_target(purpose.requested_target()));
                return Ok(());
            }
            Err(errno) => return Err(errno),
        }
    } else if supervisor.carried.get(socket.inode).is_some() {
        return Err(Errno::ISCONN);
    }
    let ours = new_socket(socket, SocketType::STREAM)?;
    connect_for_purpose(ours.as_fd(), socket.v6, true, purpose, client, &wait_limit)?;
    let inode = rustix::fs::fstat(&ours)?.st_ino;
    let carried = CarriedSocket {
        ends: socket_ends(ours.as_fd()),
        ..CarriedSocket::to_target(purpose.requested_target())
    };
    caller.replace_socket(socket.number, ours.as_fd())?;
    supervisor.carried.put(inode, carried);
    Ok(())
}

/// The two ends of a connection, this one first.
fn socket_ends(fd: BorrowedFd<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let local = rustix::net::getsockname(fd).ok()?.try_into().ok()?;
    let remote = rustix::net::getpeername(fd).ok()??.try_into().ok()?;
    Some((local, remote))
}

fn connect_for_purpose(
    fd: BorrowedFd<'_>,
    v6: bool,
    blocking: bool,
    purpose: &ConnectPurpose<'_>,
    client: &dyn ProxyClient,
    wait_limit: &WaitLimit<'_>,
) -> Result<(), Errno> {
    let only_v6 = v6 && sockopt::ipv6_v6only(fd)?;
    let done = match purpose {
        ConnectPurpose::Dns(dns, _) => connect_to_any(fd, v6, blocking, &[*dns], wait_limit),
        ConnectPurpose::Proxy(proxy, target) => connect_to_any(fd, v6, blocking, proxy, wait_limit)
            .and_then(|()| {
                dial::request_target(fd, client, *target, wait_limit)
                    .inspect_err(|_| dial::disconnect_socket(fd))
            }),
    };
    if done.is_err() && only_v6 {
        // It was taken back to reach the gateway; refused where the socket is still bound.
        let _bound = sockopt::set_ipv6_v6only(fd, true);
    }
    done
}

/// Connects to the first of the gateway's addresses that this socket can reach.
fn connect_to_any(
    fd: BorrowedFd<'_>,
    v6: bool,
    blocking: bool,
    gateway: &[SocketAddr],
    wait_limit: &WaitLimit<'_>,
) -> Result<(), Errno> {
    let mut failed = Errno::AFNOSUPPORT;
    for address in gateway {
        match dial::connect_socket(fd, adapt_address(fd, *address, v6)?, blocking, wait_limit) {
            Ok(()) => return Ok(()),
            Err(errno @ (Errno::ISCONN | Errno::ALREADY | Errno::TIMEDOUT | Errno::CANCELED)) => {
                return Err(errno);
            }
            Err(errno) => failed = errno,
        }
        dial::disconnect_socket(fd);
    }
    Err(failed)
}

/// `address` for a socket of this family. An IPv6 socket reaches an IPv4 gateway unless it is for IPv6
/// alone, which can be taken back as long as it is not bound (ipv6(7), `IPV6_V6ONLY`).
pub(super) fn adapt_address(
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
fn new_socket(socket: &ProgramSocket, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if socket.v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let protocol = if kind == SocketType::STREAM { ipproto::TCP } else { ipproto::UDP };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))
}

/// Connects a datagram socket that is for a nameserver to the gateway's DNS port.
fn connect_udp(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    socket: &ProgramSocket,
    nameserver: SocketAddr,
    dns: SocketAddr,
) -> Result<(), Errno> {
    let fd = question_socket(supervisor, caller, socket, nameserver)?;
    let address = adapt_address(fd.as_fd(), dns, socket.v6)?;
    rustix::net::connect(&fd, &address)?;
    let inode = rustix::fs::fstat(&fd)?.st_ino;
    supervisor.carried.put(inode, CarriedSocket::to_target(nameserver));
    supervisor.counts.count_question();
    Ok(())
}

/// The datagram socket on which a question to `nameserver` goes out, remembered with it: the program's
/// own, else one of ours that has taken its place.
pub(super) fn question_socket(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    socket: &ProgramSocket,
    nameserver: SocketAddr,
) -> Result<Arc<OwnedFd>, Errno> {
    if let Some(copy) = &socket.duplicate {
        supervisor.asked.put(socket.inode, QuestionSocket { nameserver, ours: None });
        return Ok(Arc::clone(copy));
    }
    let known = supervisor.asked.get(socket.inode).and_then(|asked| asked.ours);
    let (ours, inode) = match known {
        Some(ours) => (ours, socket.inode),
        None => {
            let ours = new_socket(socket, SocketType::DGRAM)?;
            caller.replace_socket(socket.number, ours.as_fd())?;
            let inode = rustix::fs::fstat(&ours)?.st_ino;
            (Arc::new(ours), inode)
        }
    };
    supervisor.asked.put(inode, QuestionSocket { nameserver, ours: Some(Arc::clone(&ours)) });
    Ok(ours)
}
