//! A program that waits in a call: its memory, its sockets, and what it is answered.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::address::{self, InetAddress, ParsedAddress};
use tailrace_sys::memory;
use tailrace_sys::seccomp::{CallNotification, FilterListener};

/// `PIDFD_THREAD` (pidfd_open(2), Linux 6.9): a thread that is not its process's first.
const PIDFD_THREAD: u32 = OFlags::EXCL.bits();

/// Why a call cannot be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallError {
    /// The caller's memory or descriptors are closed to us, or what it points to is not there.
    Unreadable,
    /// The caller no longer waits.
    Gone,
}

/// One call of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct SuspendedCall<'a> {
    calls: &'a FilterListener,
    /// What it asks for.
    pub(super) call: CallNotification,
}

/// What a socket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketKind {
    /// TCP, or MPTCP, which falls back to it.
    Stream,
    /// UDP, on either family.
    Datagram,
    /// Anything else, which is never carried.
    Other,
}

/// A socket of the program that made the call.
#[derive(Debug)]
pub(super) struct ProgramSocket {
    /// A duplicate of the program's own; none where the sandbox forbids pidfd_getfd(2).
    pub(super) duplicate: Option<Arc<OwnedFd>>,
    /// The program's number for it.
    pub(super) number: RawFd,
    /// Its protocol, as far as it matters here.
    pub(super) kind: SocketKind,
    /// Whether its family is IPv6.
    pub(super) v6: bool,
    /// What it is known by.
    pub(super) inode: u64,
    /// Whether calls on it wait (`O_NONBLOCK` is not set).
    pub(super) blocking: bool,
}

impl<'a> SuspendedCall<'a> {
    pub(super) fn new(calls: &'a FilterListener, call: CallNotification) -> Self {
        Self { calls, call }
    }

    /// An argument that is a descriptor's number or a count: the kernel looks at 32 bits.
    pub(super) fn argument_as_int(&self, argument: usize) -> i32 {
        self.call.arguments[argument] as u32 as i32
    }

    /// Whether it still waits in this call.
    pub(super) fn still_waits(&self) -> bool {
        self.calls.still_waits(self.call.id)
    }

    /// Bytes of its memory.
    pub(super) fn read_memory(&self, address: u64, length: usize) -> Result<Vec<u8>, CallError> {
        let mut bytes = vec![0; length];
        match memory::read_memory(self.call.pid, address, &mut bytes) {
            // Its id may have become another process's while we read.
            Ok(()) if self.still_waits() => Ok(bytes),
            Err(_) if self.still_waits() => Err(CallError::Unreadable),
            _ => Err(CallError::Gone),
        }
    }

    /// Puts bytes into its memory.
    ///
    /// # Errors
    /// `EFAULT` where the memory is not there, `ECANCELED` when nobody waits any longer.
    pub(super) fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if !self.still_waits() {
            return Err(Errno::CANCELED);
        }
        memory::write_memory(self.call.pid, address, bytes).map_err(|_| Errno::FAULT)
    }

    /// The address at `pointer`; of a length the kernel refuses, none.
    pub(super) fn read_address(
        &self,
        pointer: u64,
        length: i32,
    ) -> Result<ParsedAddress, CallError> {
        match usize::try_from(length) {
            Ok(length) if length <= address::LONGEST => {
                Ok(ParsedAddress::parse(&self.read_memory(pointer, length)?))
            }
            _ => Ok(ParsedAddress::Other),
        }
    }

    /// Its socket of this number; `Unreadable` too when it is none, which the kernel will say.
    pub(super) fn find_socket(&self, number: RawFd) -> Result<ProgramSocket, CallError> {
        let socket = match self.duplicate_socket(number) {
            Ok(copy) => inspect_duplicate(copy, number),
            Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => self.socket_in_proc(number),
            Err(errno) => Err(errno.into()),
        };
        match socket {
            Ok(socket) if self.still_waits() => Ok(socket),
            Err(_) if self.still_waits() => Err(CallError::Unreadable),
            _ => Err(CallError::Gone),
        }
    }

    fn duplicate_socket(&self, number: RawFd) -> Result<OwnedFd, Errno> {
        if number < 0 {
            return Err(Errno::BADF); // rustix takes -1 for a mistake of ours
        }
        pidfd_getfd(self.open_process()?, number, PidfdGetfdFlags::empty())
    }

    fn open_process(&self) -> Result<OwnedFd, Errno> {
        let thread = to_pid(self.call.pid)?;
        let of_thread = PidfdFlags::from_bits_retain(PIDFD_THREAD);
        pidfd_open(thread, PidfdFlags::empty())
            .or_else(|_| pidfd_open(thread, of_thread))
            .or_else(|_| pidfd_open(self.thread_group_leader()?, PidfdFlags::empty()))
    }

    /// The process of the calling thread (proc(5), `Tgid`).
    fn thread_group_leader(&self) -> Result<Pid, Errno> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.call.pid));
        let status = status.map_err(|_| Errno::SRCH)?;
        let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:")).map(str::trim);
        to_pid(tgid.and_then(|tgid| tgid.parse().ok()).ok_or(Errno::SRCH)?)
    }

    /// The socket as `/proc` shows it, where it cannot be duplicated.
    fn socket_in_proc(&self, number: RawFd) -> io::Result<ProgramSocket> {
        let path = format!("/proc/{}/fd/{number}", self.call.pid);
        let mut name = [0; 32];
        // The kernel keeps a socket's protocol as an attribute of its inode (net/socket.c).
        let length = rustix::fs::getxattr(&path, "system.sockprotoname", &mut name[..])?;
        let name = name[..length].split(|byte| *byte == 0).next().unwrap_or_default();
        let kind = match name {
            b"TCP" | b"TCPv6" | b"MPTCP" | b"MPTCPv6" => SocketKind::Stream,
            b"UDP" | b"UDPv6" => SocketKind::Datagram,
            _ => SocketKind::Other,
        };
        let blocking = !self.descriptor_flags(number)?.contains(OFlags::NONBLOCK);
        let (v6, inode) = (name.ends_with(b"v6"), fs::metadata(&path)?.ino());
        Ok(ProgramSocket { duplicate: None, number, kind, v6, inode, blocking })
    }

    /// The inode behind a number, as `/proc` shows it.
    pub(super) fn inode_in_proc(&self, number: RawFd) -> Option<u64> {
        Some(fs::metadata(format!("/proc/{}/fd/{number}", self.call.pid)).ok()?.ino())
    }

    /// A descriptor's flags, `O_CLOEXEC` among them (proc(5), fdinfo).
    fn descriptor_flags(&self, number: RawFd) -> io::Result<OFlags> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.call.pid))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 8).ok());
        flags.map(OFlags::from_bits_retain).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Puts `ours` in the place of its socket of this number, with that one's flags.
    ///
    /// # Errors
    /// What `/proc` or the kernel say.
    pub(super) fn replace_socket(&self, number: RawFd, ours: BorrowedFd<'_>) -> Result<(), Errno> {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::ACCESS);
        let flags = self.descriptor_flags(number).map_err(errno)?;
        rustix::io::ioctl_fionbio(ours, flags.contains(OFlags::NONBLOCK))?;
        self.calls.put_descriptor(self.call.id, ours, number, flags.contains(OFlags::CLOEXEC))
    }

    /// Makes its call return this; false when it no longer waits.
    pub(super) fn return_result(&self, result: Result<i64, Errno>) -> bool {
        self.calls.return_result(self.call.id, result)
    }

    /// Lets the kernel carry its call out.
    pub(super) fn let_pass(&self) {
        self.calls.let_pass(self.call.id);
    }

    /// Whether its call waits through signals until it is answered.
    pub(super) fn waits_through_signals(&self) -> bool {
        self.calls.killable
    }
}

fn to_pid(number: u32) -> Result<Pid, Errno> {
    Pid::from_raw(number.cast_signed()).ok_or(Errno::SRCH)
}

fn inspect_duplicate(copy: OwnedFd, number: RawFd) -> io::Result<ProgramSocket> {
    let domain = sockopt::socket_domain(&copy)?;
    let inet = domain == AddressFamily::INET || domain == AddressFamily::INET6;
    let protocol = sockopt::socket_protocol(&copy)?;
    let kind = match (sockopt::socket_type(&copy)?, protocol) {
        (SocketType::STREAM, Some(ipproto::TCP | ipproto::MPTCP)) if inet => SocketKind::Stream,
        (SocketType::DGRAM, Some(ipproto::UDP)) if inet => SocketKind::Datagram,
        _ => SocketKind::Other,
    };
    let inode = rustix::fs::fstat(&copy)?.st_ino;
    let blocking = !rustix::fs::fcntl_getfl(&copy)?.contains(OFlags::NONBLOCK);
    let v6 = domain == AddressFamily::INET6;
    Ok(ProgramSocket { duplicate: Some(Arc::new(copy)), number, kind, v6, inode, blocking })
}

impl ProgramSocket {
    /// The duplicate, where there is one.
    pub(super) fn duplicate(&self) -> Option<BorrowedFd<'_>> {
        self.duplicate.as_ref().map(|copy| copy.as_fd())
    }

    /// Whether the kernel takes an address of this family on this socket. If not, it says so itself:
    /// `EAFNOSUPPORT`, or `ENETUNREACH` for IPv4 on a socket that is for IPv6 alone (ipv6(7)).
    pub(super) fn accepts_address(&self, address: InetAddress) -> bool {
        match (self.v6, address.v6) {
            (false, given_as_v6) => !given_as_v6,
            (true, true) => address.to.is_ipv6() || !self.is_only_v6(),
            // UDP takes an IPv4 address on an IPv6 socket, TCP does not.
            (true, false) => self.kind == SocketKind::Datagram && !self.is_only_v6(),
        }
    }

    /// Without a duplicate its options are not to be had.
    fn is_only_v6(&self) -> bool {
        self.duplicate().is_some_and(|copy| sockopt::ipv6_v6only(copy) == Ok(true))
    }
}
