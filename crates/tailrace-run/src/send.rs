//! A program's datagrams: questions to a nameserver go to the gateway's DNS port, the rest as they are.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::address::{ParsedAddress, for_socket};
use super::connect::{adapt_address, question_socket};
use super::message::{HEADER_WITH_LENGTH, MOST_BYTES, MessageHeader};
use super::routing::DatagramRoute;
use super::supervisor::CallSupervisor;
use super::suspended_call::{CallError, ProgramSocket, SocketKind, SuspendedCall};

/// `UIO_MAXIOV`: the kernel sends no more messages in one call.
const MOST_MESSAGES: u32 = 1024;

/// Answers `sendto(fd, bytes, length, flags, address, length)`.
pub(super) fn handle_sendto(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let arguments = caller.call.arguments;
    let to = caller.read_address(arguments[4], caller.argument_as_int(5))?;
    let Some((socket, nameserver, dns)) = redirected_question(supervisor, caller, &to)? else {
        caller.let_pass();
        return Ok(());
    };
    let length = usize::try_from(arguments[2]).unwrap_or(MOST_BYTES);
    let bytes = caller.read_memory(arguments[1], length.min(MOST_BYTES))?;
    let flags = caller.argument_as_int(3);
    caller
        .return_result(send_question(supervisor, caller, &socket, nameserver, dns, &bytes, flags));
    Ok(())
}

/// Answers `sendmsg(fd, message, flags)`.
pub(super) fn handle_sendmsg(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let header = MessageHeader::read_header(caller, caller.call.arguments[1])?;
    let Some((socket, nameserver, dns)) = redirected_by_header(supervisor, caller, &header)? else {
        caller.let_pass();
        return Ok(());
    };
    let bytes = header.read_message(caller)?;
    let flags = caller.argument_as_int(2);
    caller
        .return_result(send_question(supervisor, caller, &socket, nameserver, dns, &bytes, flags));
    Ok(())
}

/// Answers `sendmmsg(fd, messages, count, flags)`. The first message decides for all: a resolver asks
/// nameservers only.
pub(super) fn handle_sendmmsg(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let [_, vector, count, ..] = caller.call.arguments;
    let count = (count as u32).min(MOST_MESSAGES);
    let mut sent = 0;
    let mut failed = None;
    while sent < count && failed.is_none() {
        let at = vector + u64::from(sent) * HEADER_WITH_LENGTH;
        let header = MessageHeader::read_header(caller, at)?;
        let Some((socket, nameserver, dns)) = redirected_by_header(supervisor, caller, &header)?
        else {
            break;
        };
        let bytes = header.read_message(caller)?;
        let flags = caller.argument_as_int(3);
        let one = send_question(supervisor, caller, &socket, nameserver, dns, &bytes, flags);
        let length = |length: i64| (length as u32).to_ne_bytes();
        // `msg_len` lies behind the header.
        match one.and_then(|n| caller.write_memory(at + HEADER_WITH_LENGTH - 8, &length(n))) {
            Ok(()) => sent += 1,
            Err(errno) => failed = Some(errno),
        }
    }
    match (sent, failed) {
        (0, None) => caller.let_pass(),
        (0, Some(errno)) => _ = caller.return_result(Err(errno)),
        _ => _ = caller.return_result(Ok(sent.into())),
    }
    Ok(())
}

/// The socket, the nameserver meant and the gateway's DNS port, when a message is a question.
type RedirectedQuestion = (ProgramSocket, SocketAddr, SocketAddr);

fn redirected_by_header(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    header: &MessageHeader,
) -> Result<Option<RedirectedQuestion>, CallError> {
    if header.name == 0 {
        return Ok(None);
    }
    let to = caller.read_address(header.name, header.name_length.cast_signed())?;
    redirected_question(supervisor, caller, &to)
}

fn redirected_question(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    to: &ParsedAddress,
) -> Result<Option<RedirectedQuestion>, CallError> {
    let ParsedAddress::Inet(address) = to else { return Ok(None) };
    match supervisor.gateway.datagram_route(address.to) {
        DatagramRoute::Untouched => Ok(None),
        DatagramRoute::LeftAlone => {
            supervisor.counts.count_left_alone();
            Ok(None)
        }
        DatagramRoute::Dns(dns) => {
            let socket = caller.find_socket(caller.argument_as_int(0))?;
            let ours = socket.kind == SocketKind::Datagram && socket.accepts_address(*address);
            Ok(ours.then_some((socket, address.to, dns)))
        }
    }
}

fn send_question(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    socket: &ProgramSocket,
    nameserver: SocketAddr,
    dns: SocketAddr,
    bytes: &[u8],
    flags: i32,
) -> Result<i64, Errno> {
    let fd = question_socket(supervisor, caller, socket, nameserver)?;
    let flags = SendFlags::from_bits_retain(flags.cast_unsigned()) | SendFlags::NOSIGNAL;
    let to = for_socket(adapt_address(fd.as_fd(), dns, socket.v6)?, socket.v6);
    supervisor.counts.count_question();
    Ok(rustix::net::sendto(&fd, bytes, flags, &to)? as i64)
}
