//! Where a socket leads, as its program asks (getpeername(2)): for one that was connected to the gateway
//! in its stead, the address it asked to go to. FTP clients send their second connection there, and
//! others log or check it.
//!
//! Whatever is no success is the kernel's to say: then the call is let pass, and its errno is the
//! kernel's own.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::address;
use super::message::write_address;
use super::supervisor::{CallSupervisor, CarriedSocket};
use super::suspended_call::{CallError, ProgramSocket, SuspendedCall};
use tailrace_sys as sys;

/// Answers `getpeername(fd, address, length)`.
pub(super) fn handle_getpeername(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let [_, name, length, ..] = caller.call.arguments;
    let Some(peer) = shown_peer(supervisor, caller)? else {
        caller.let_pass();
        return Ok(());
    };
    let room = read_room(caller, length)?;
    match write_address(caller, name, room, length, &peer) {
        Ok(()) => _ = caller.return_result(Ok(0)),
        Err(_) => caller.let_pass(),
    }
    Ok(())
}

/// Answers `getsockopt(fd, SOL_SOCKET, SO_PEERNAME, address, length)`, which gives as much of the
/// address as is asked for, says so, and refuses to give more than there is (net/core/sock.c).
pub(super) fn handle_peer_option(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let [_, _, _, name, length, _] = caller.call.arguments;
    let Some(peer) = shown_peer(supervisor, caller)? else {
        caller.let_pass();
        return Ok(());
    };
    let room = read_room(caller, length)?;
    let wanted = usize::try_from(room.cast_signed()).ok().and_then(|wanted| peer.get(..wanted));
    let written = wanted.map(|wanted| {
        caller.write_memory(name, wanted)?;
        caller.write_memory(length, &room.to_ne_bytes())
    });
    match written {
        Some(Ok(())) => _ = caller.return_result(Ok(0)),
        Some(Err(_)) | None => caller.let_pass(),
    }
    Ok(())
}

/// The room its program has for an address.
fn read_room(caller: &SuspendedCall<'_>, at: u64) -> Result<u32, CallError> {
    let bytes = caller.read_memory(at, 4)?;
    bytes.first_chunk().map(|room| u32::from_ne_bytes(*room)).ok_or(CallError::Unreadable)
}

/// `struct sockaddr` of where a carried socket leads; none for every other one.
fn shown_peer(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<Option<Vec<u8>>, CallError> {
    let number = caller.argument_as_int(0);
    if supervisor.carried.is_empty() {
        return Ok(None);
    }
    let known = caller.inode_in_proc(number).and_then(|inode| supervisor.carried.get(inode));
    let Some(carried) = known else { return Ok(None) };
    let socket = caller.find_socket(number)?;
    // IPV6_ADDRFORM (ipv6(7)) makes an IPv6 socket an IPv4 one, which an IPv6 address does not fit.
    let fits = socket.v6 || carried.target.is_ipv4();
    let shown = fits && still_leads_to_us(supervisor, &socket, &carried);
    Ok(shown.then(|| address::sockaddr_bytes(carried.target, socket.v6)))
}

/// Whether it is connected to the gateway still: the program may have disconnected it (connect(2),
/// `AF_UNSPEC`), and a reset leaves it without a peer.
fn still_leads_to_us(
    supervisor: &CallSupervisor,
    socket: &ProgramSocket,
    carried: &CarriedSocket,
) -> bool {
    if let Some(copy) = socket.duplicate() {
        let peer = rustix::net::getpeername(copy).ok().flatten();
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        return peer.is_some_and(|peer| supervisor.gateway.leads_to_us(peer));
    }
    let asked = supervisor.asked.get(socket.inode).and_then(|asked| asked.ours);
    if let Some(ours) = asked {
        return rustix::net::getpeername(&ours).is_ok_and(|peer| peer.is_some());
    }
    let Some((local, remote)) = carried.ends else { return false };
    match sys::socket_owner(local, remote) {
        Ok(owner) => u64::from(owner.inode) == socket.inode,
        // Nobody to ask: then it was connected when it was put there.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
