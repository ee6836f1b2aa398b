//! This process towards the kernel: core files, memory closed to others, orphans, what came over exec.
#![allow(unsafe_code, reason = "a descriptor by its number")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::fs::FileType;
use rustix::io::{Errno, FdFlags};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Keeps what is in our memory there: no core file (`RLIMIT_CORE`, the soft limit, which children
/// inherit), and no look into our memory by the same user (`PR_SET_DUMPABLE`, prctl(2)).
///
/// # Errors
/// What the kernel says.
pub fn harden() -> io::Result<()> {
    let mut core = getrlimit(Resource::Core);
    core.current = Some(0);
    setrlimit(Resource::Core, core)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Whether orphans below us become our children: as process 1 of a container, or as a child
/// subreaper (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
pub fn adopts_orphans() -> bool {
    let subreaper = matches!(rustix::process::child_subreaper(), Ok(Some(_)));
    subreaper || std::process::id() == 1
}

/// Takes a pipe that was handed to us over exec under this number, and closes it to our children.
///
/// # Errors
/// No such descriptor, one that is no pipe, or one that this process opened itself or has taken
/// already (those are closed on exec).
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the borrow is for the three calls below; on a number that is not open they fail with
    // EBADF.
    let seen = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = rustix::io::fcntl_getfd(seen)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(seen)?.st_mode);
    if flags.contains(FdFlags::CLOEXEC) || kind != FileType::Fifo {
        return Err(Errno::BADF.into());
    }
    rustix::io::fcntl_setfd(seen, FdFlags::CLOEXEC)?;
    // SAFETY: everything this process opens is closed on exec, so a descriptor that is not was there
    // before it and has no owner; the flag set above makes sure it gets only one.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};

    use super::*;

    #[test]
    fn k8_a_pipe_is_taken_once_and_nothing_of_ours() {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"key").unwrap();
        drop(write);
        assert!(inherited(read.as_raw_fd()).is_err(), "opened here");
        let handed = rustix::io::dup(&read).unwrap().into_raw_fd();
        drop(read);
        let mut text = String::new();
        let taken = inherited(handed).unwrap();
        assert!(inherited(handed).is_err(), "taken already");
        std::fs::File::from(taken).read_to_string(&mut text).unwrap();
        assert_eq!(text, "key");
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = rustix::io::dup(&socket).unwrap();
        assert!(inherited(socket.as_raw_fd()).is_err(), "no pipe");
        assert!(inherited(2).is_err() && inherited(-1).is_err() && inherited(1 << 30).is_err());
    }
}
