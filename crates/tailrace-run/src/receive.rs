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
use super::caller::{Caller, Closed, Socket};
use super::dial::Patience;
use super::message::{MOST_BYTES, MessageHeader, fill_name};
use super::supervisor::{Asked, Supervisor};

/// A datagram.
struct ReceivedDatagram {
    bytes: Vec<u8>,
    /// What the call returns; with `MSG_TRUNC` more than the bytes.
    length: i64,
    /// `msg_flags`.
    flags: u32,
    /// `struct sockaddr` of where it came from, for the program to see.
    source: Vec<u8>,
}

/// Answers `recvfrom(fd, bytes, room, flags, address, length)` with an address to be filled in.
pub(super) fn recvfrom(supervisor: &Supervisor, caller: &Caller<'_>) -> Result<(), Closed> {
    let [_, bytes, room, _, name, name_length] = caller.call.arguments;
    let Some((socket, asked)) = asked(supervisor, caller, caller.number(3))? else {
        caller.let_pass();
        return Ok(());
    };
    let name_room = caller.read(name_length, 4)?;
    let name_room = name_room.first_chunk().map_or(0, |room| u32::from_ne_bytes(*room));
    let room = usize::try_from(room).unwrap_or(MOST_BYTES).min(MOST_BYTES);
    let received = receive(supervisor, caller, &socket, &asked, room, caller.number(3));
    caller.answer(received.and_then(|received| {
        caller.write(bytes, &received.bytes)?;
        fill_name(caller, name, name_room, name_length, &received.source)?;
        Ok(received.length)
    }));
    Ok(())
}

/// Answers `recvmsg(fd, message, flags)`.
pub(super) fn recvmsg(supervisor: &Supervisor, caller: &Caller<'_>) -> Result<(), Closed> {
    let Some((socket, asked)) = asked(supervisor, caller, caller.number(2))? else {
        caller.let_pass();
        return Ok(());
    };
    let header = MessageHeader::read(caller, caller.call.arguments[1])?;
    if header.name == 0 {
        caller.let_pass();
        return Ok(());
    }
    let received = receive(supervisor, caller, &socket, &asked, header.room(), caller.number(2));
    caller.answer(received.and_then(|received| {
        header.fill(caller, &received.bytes, received.flags)?;
        header.name(caller, &received.source)?;
        Ok(received.length)
    }));
    Ok(())
}

/// The socket, when a question has gone out on it. Whoever only wants its errors finds no answer.
fn asked(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    flags: i32,
) -> Result<Option<(Socket, Asked)>, Closed> {
    let number = caller.number(0);
    if supervisor.asked.is_empty() || flags & libc::MSG_ERRQUEUE != 0 {
        return Ok(None);
    }
    let known = caller.inode(number).and_then(|inode| supervisor.asked.get(inode));
    match known {
        Some(asked) => Ok(Some((caller.socket(number)?, asked))),
        None => Ok(None),
    }
}

fn receive(
    supervisor: &Supervisor,
    caller: &Caller<'_>,
    socket: &Socket,
    asked: &Asked,
    room: usize,
    flags: i32,
) -> Result<ReceivedDatagram, Errno> {
    let fd = match (socket.copy(), &asked.ours) {
        (Some(copy), _) => copy,
        (None, Some(ours)) => ours.as_fd(),
        (None, None) => return Err(Errno::BADF),
    };
    let flags = RecvFlags::from_bits_retain(flags.cast_unsigned());
    let waits = socket.blocking && !flags.contains(RecvFlags::DONTWAIT);
    let limit = sockopt::socket_timeout(fd, sockopt::Timeout::Recv)?;
    let until = limit.map(|limit| Instant::now() + limit);
    let patience = Patience { until, alive: &|| caller.alive() };
    let mut bytes = vec![0; room];
    loop {
        match once(fd, &mut bytes, flags | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) if waits => match patience.wait(fd, PollFlags::IN) {
                Err(Errno::TIMEDOUT) => return Err(Errno::AGAIN), // as `SO_RCVTIMEO` has it
                waited => waited?,
            },
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok((length, flags, source)) => {
                bytes.truncate(length);
                let source = shown(supervisor, asked, source, socket.v6);
                return Ok(ReceivedDatagram { length: length as i64, bytes, flags, source });
            }
        }
    }
}

type Once = (usize, u32, Option<SocketAddr>);

fn once(fd: BorrowedFd<'_>, bytes: &mut [u8], flags: RecvFlags) -> Result<Once, Errno> {
    let mut control = RecvAncillaryBuffer::default();
    let told = rustix::net::recvmsg(fd, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let source = told.address.and_then(|address| SocketAddr::try_from(address).ok());
    Ok((told.bytes, told.flags.bits(), source))
}

/// An answer of the gateway's comes from the nameserver that was asked.
fn shown(supervisor: &Supervisor, asked: &Asked, source: Option<SocketAddr>, v6: bool) -> Vec<u8> {
    let plain = source.map(|it| SocketAddr::new(it.ip().to_canonical(), it.port()));
    match (plain, source) {
        (Some(plain), _) if Some(plain) == supervisor.gateway.dns => {
            address::written(asked.nameserver, v6)
        }
        (_, Some(source)) => address::written(source, v6),
        (_, None) => Vec::new(),
    }
}
