//! A program's datagrams: questions to a nameserver go to the gateway's DNS port, the rest as they are.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::address::{Address, for_socket};
use super::caller::{Caller, Closed, Kind, Socket};
use super::connect::{datagram, reachable};
use super::message::{HEADER_WITH_LENGTH, MOST_BYTES, MessageHeader};
use super::supervisor::Supervisor;
use super::way::Datagram;

/// `UIO_MAXIOV`: the kernel sends no more messages in one call.
const MOST_MESSAGES: u32 = 1024;

/// Answers `sendto(fd, bytes, length, flags, address, length)`.
pub(super) fn sendto(supervisor: &Supervisor, caller: &Caller<'_>) -> Result<(), Closed> {
    let arguments = caller.call.arguments;
    let to = caller.address(arguments[4], caller.number(5))?;
    let Some((socket, nameserver, dns)) = redirected(supervisor, caller, &to)? else {
        caller.let_pass();
        return Ok(());
    };
    let length = usize::try_from(arguments[2]).unwrap_or(MOST_BYTES);
    let bytes = caller.read(arguments[1], length.min(MOST_BYTES))?;
    let flags = caller.number(3);
    caller.answer(question(supervisor, caller, &socket, nameserver, dns, &bytes, flags));
    Ok(())
}

/// Answers `sendmsg(fd, message, flags)`.
pub(super) fn sendmsg(supervisor: &Supervisor, caller: &Caller<'_>) -> Result<(), Closed> {
    let header = MessageHeader::read(caller, caller.call.arguments[1])?;
    let Some((socket, nameserver, dns)) = named(supervisor, caller, &header)? else {
        caller.let_pass();
        return Ok(());
    };
    let bytes = header.gather(caller)?;
    let flags = caller.number(2);
    caller.answer(question(supervisor, caller, &socket, nameserver, dns, &bytes, flags));
    Ok(())
}

/// Answers `sendmmsg(fd, messages, count, flags)`. The first message decides for all: a resolver asks
/// nameservers only.
pub(super) fn sendmmsg(supervisor: &Supervisor, caller: &Caller<'_>) -> Result<(), Closed> {
    let [_, vector, count, ..] = caller.call.arguments;
    let count = (count as u32).min(MOST_MESSAGES);
    let mut sent = 0;
    let mut failed = None;
    while sent < count && failed.is_none() {
        let at = vector + u64::from(sent) * HEADER_WITH_LENGTH;
        let header = MessageHeader::read(caller, at)?;
        let Some((socket, nameserver, dns)) = named(supervisor, caller, &header)? else { break };
        let bytes = header.gather(caller)?;
        let flags = caller.number(3);
        let one = question(supervisor, caller, &socket, nameserver, dns, &bytes, flags);
        let length = |length: i64| (length as u32).to_ne_bytes();
        // `msg_len` lies behind the header.
        match one.and_then(|n| caller.write(at + HEADER_WITH_LENGTH - 8, &length(n))) {
            Ok(()) => sent += 1,
            Err(errno) => failed = Some(errno),
        }
    }
    match (sent, failed) {
        (0, None) => caller.let_pass(),
        (0, Some(errno)) => _ = caller.answer(Err(errno)),
        _ => _ = caller.answer(Ok(sent.into())),
    }
    Ok(())
}

/// The socket, the nameserver meant and the gateway's DNS port, when a message is a question.
type Question = (Socket, SocketAddr, SocketAddr);

fn named(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    header: &MessageHeader,
) -> Result<Option<Question>, Closed> {
    if header.name == 0 {
        return Ok(None);
    }
    let to = caller.address(header.name, header.name_length.cast_signed())?;
    redirected(supervisor, caller, &to)
}

fn redirected(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    to: &Address,
) -> Result<Option<Question>, Closed> {
    let Address::Inet(address) = to else { return Ok(None) };
    match supervisor.gateway.datagram(address.to) {
        Datagram::Untouched => Ok(None),
        Datagram::LeftAlone => {
            supervisor.counts.left_alone();
            Ok(None)
        }
        Datagram::Dns(dns) => {
            let socket = caller.socket(caller.number(0))?;
            let ours = socket.kind == Kind::Datagram && socket.takes(*address);
            Ok(ours.then_some((socket, address.to, dns)))
        }
    }
}

fn question(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    socket: &Socket,
    nameserver: SocketAddr,
    dns: SocketAddr,
    bytes: &[u8],
    flags: i32,
) -> Result<i64, Errno> {
    let fd = datagram(supervisor, caller, socket, nameserver)?;
    let flags = SendFlags::from_bits_retain(flags.cast_unsigned()) | SendFlags::NOSIGNAL;
    let to = for_socket(reachable(fd.as_fd(), dns, socket.v6)?, socket.v6);
    supervisor.counts.question();
    Ok(rustix::net::sendto(&fd, bytes, flags, &to)? as i64)
}
