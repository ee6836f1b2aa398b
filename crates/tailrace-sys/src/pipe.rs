//! A kernel pipe for splice(2): bytes go from socket to socket without being copied to us.
//!
//! It knows one pipe; how many there may be is the pool's business.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

use super::Stream;

/// `SPLICE_F_MORE` is never set: it holds back a last small chunk for 200 ms (measured).
const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A pipe: what goes in at one end comes out at the other.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    /// Opens a pipe of the kernel's default size.
    ///
    /// # Errors
    /// What `pipe2(2)` says: `EMFILE`, `ENFILE`.
    pub fn open() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = rustix::pipe::fcntl_getpipe_size(&write)?;
        Ok(Self { read, write, size })
    }

    /// Asks for a larger pipe; at most what `fs.pipe-max-size` and the user's quota allow.
    ///
    /// # Errors
    /// `EPERM` when the quota (`fs.pipe-user-pages-soft`) is used up.
    pub fn grow_to(&mut self, size: usize) -> io::Result<()> {
        self.size = rustix::pipe::fcntl_setpipe_size(&self.write, size)?;
        Ok(())
    }

    /// Bytes the pipe can hold at best: many small segments fill its slots sooner.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes lying in the pipe (`FIONREAD`).
    ///
    /// # Errors
    /// What `ioctl(2)` says.
    pub fn len(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.read)?)
    }

    /// Whether nothing lies in the pipe.
    ///
    /// # Errors
    /// What `ioctl(2)` says.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Moves bytes from a socket into the pipe. 0 may be FIN, or an urgent mark: ask `recv`.
    ///
    /// # Errors
    /// What `splice(2)` says; `WouldBlock` when the socket has nothing or the pipe no slot.
    pub fn fill_from(&self, from: &Stream) -> io::Result<usize> {
        splice_once(from.as_fd(), self.write.as_fd(), self.size)
    }

    /// Moves up to `len` bytes from the pipe into a socket.
    ///
    /// # Errors
    /// What `splice(2)` says; `WouldBlock` when the socket takes nothing.
    pub fn drain_to(&self, to: &Stream, len: usize) -> io::Result<usize> {
        splice_once(self.read.as_fd(), to.as_fd(), len)
    }

    /// Reads bytes out of the pipe into memory: the way out when a socket refuses splice.
    ///
    /// # Errors
    /// What `read(2)` says.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.read, &mut *buf))?)
    }
}

fn splice_once(
    from: std::os::fd::BorrowedFd<'_>,
    to: std::os::fd::BorrowedFd<'_>,
    len: usize,
) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::pipe::splice(from, None, to, None, len, FLAGS))?)
}
