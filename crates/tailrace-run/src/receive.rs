//! Answers to a program's questions: they come from the gateway's DNS port, and the program finds the
//! nameserver it asked as their source, as resolvers check (RFC 5452 section 9.1).
#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, sockopt};

use super::address;
use super::dial::WaitLimit;
use super::message::{MOST_BYTES, MessageHeader, write_address};
use super::supervisor::{CallSupervisor, QuestionSocket};
use super::suspended_call::{CallError, ProgramSocket, SuspendedCall};

/// A datagram that was received for the program.
struct ReceivedDatagram {
    bytes: Vec<u8>,
    /// What the call returns; with `MSG_TRUNC` more than the bytes.
    length: i64,
    /// What the kernel said of it (recvmsg(2), `msg_flags`).
    flags: u32,
    /// `struct sockaddr` of where it came from, for the program to see.
    source: Vec<u8>,
}

/// Answers `recvfrom(fd, bytes, room, flags, address, length)` with an address to be filled in.
pub(super) fn handle_recvfrom(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let [_, bytes, room, _, name, name_length] = caller.call.arguments;
    let Some((socket, asked)) = question_socket(supervisor, caller, caller.argument_as_int(3))?
    else {
        caller.let_pass();
        return Ok(());
    };
    let name_room = caller.read_memory(name_length, 4)?;
    let name_room = name_room.first_chunk().map_or(0, |room| u32::from_ne_bytes(*room));
    let room = usize::try_from(room).unwrap_or(MOST_BYTES).min(MOST_BYTES);
    let received =
        receive_answer(supervisor, caller, &socket, &asked, room, caller.argument_as_int(3));
    caller.return_result(received.and_then(|received| {
        caller.write_memory(bytes, &received.bytes)?;
        write_address(caller, name, name_room, name_length, &received.source)?;
        Ok(received.length)
    }));
    Ok(())
}

/// Answers `recvmsg(fd, message, flags)`.
pub(super) fn handle_recvmsg(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
) -> Result<(), CallError> {
    let Some((socket, asked)) = question_socket(supervisor, caller, caller.argument_as_int(2))?
    else {
        caller.let_pass();
        return Ok(());
    };
    let header = MessageHeader::read_header(caller, caller.call.arguments[1])?;
    if header.name == 0 {
        caller.let_pass();
        return Ok(());
    }
    let received = receive_answer(
        supervisor,
        caller,
        &socket,
        &asked,
        header.total_room(),
        caller.argument_as_int(2),
    );
    caller.return_result(received.and_then(|received| {
        header.write_message(caller, &received.bytes, received.flags)?;
        header.write_source(caller, &received.source)?;
        Ok(received.length)
    }));
    Ok(())
}

/// The socket, when a question has gone out on it. Whoever only wants its errors finds no answer.
fn question_socket(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    flags: i32,
) -> Result<Option<(ProgramSocket, QuestionSocket)>, CallError> {
    let number = caller.argument_as_int(0);
    if supervisor.asked.is_empty() || flags & libc::MSG_ERRQUEUE != 0 {
        return Ok(None);
    }
    let known = caller.inode_in_proc(number).and_then(|inode| supervisor.asked.get(inode));
    match known {
        Some(asked) => Ok(Some((caller.find_socket(number)?, asked))),
        None => Ok(None),
    }
}

fn receive_answer(
    supervisor: &CallSupervisor,
    caller: &SuspendedCall<'_>,
    socket: &ProgramSocket,
    asked: &QuestionSocket,
    room: usize,
    flags: i32,
) -> Result<ReceivedDatagram, Errno> {
    let fd = match (socket.duplicate(), &asked.ours) {
        (Some(copy), _) => copy,
        (None, Some(ours)) => ours.as_fd(),
        (None, None) => return Err(Errno::BADF),
    };
    let flags = RecvFlags::from_bits_retain(flags.cast_unsigned());
    let waits = socket.blocking && !flags.contains(RecvFlags::DONTWAIT);
    let limit = sockopt::socket_timeout(fd, sockopt::Timeout::Recv)?;
    let until = limit.map(|limit| Instant::now() + limit);
    let wait_limit = WaitLimit { until, alive: &|| caller.still_waits() };
    let mut bytes = vec![0; room];
    loop {
        match receive_once(fd, &mut bytes, flags | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) if waits => match wait_limit.wait_for(fd, PollFlags::IN) {
                Err(Errno::TIMEDOUT) => return Err(Errno::AGAIN), // as `SO_RCVTIMEO` has it
                waited => waited?,
            },
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok((length, flags, source)) => {
                bytes.truncate(length);
                let source = shown_source(supervisor, asked, source, socket.v6);
                return Ok(ReceivedDatagram { length: length as i64, bytes, flags, source });
            }
        }
    }
}

type OneDatagram = (usize, u32, Option<SocketAddr>);

fn receive_once(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> Result<OneDatagram, Errno> {
    let mut control = RecvAncillaryBuffer::default();
    let told = rustix::net::recvmsg(fd, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let source = told.address.and_then(|address| SocketAddr::try_from(address).ok());
    Ok((told.bytes, told.flags.bits(), source))
}

/// An answer of the gateway's comes from the nameserver that was asked.
fn shown_source(
    supervisor: &CallSupervisor,
    asked: &QuestionSocket,
    source: Option<SocketAddr>,
    v6: bool,
) -> Vec<u8> {
    let plain = source.map(|it| SocketAddr::new(it.ip().to_canonical(), it.port()));
    match (plain, source) {
        (Some(plain), _) if Some(plain) == supervisor.gateway.dns => {
            address::sockaddr_bytes(asked.nameserver, v6)
        }
        (_, Some(source)) => address::sockaddr_bytes(source, v6),
        (_, None) => Vec::new(),
    }
}
