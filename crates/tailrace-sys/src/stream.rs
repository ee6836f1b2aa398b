//! A connected stream socket, TCP or Unix, as the hot path wants it.
//!
//! One epoll registration from accept or dial to the end, with `EPOLLPRI` and `EPOLLRDHUP` seen:
//! tokio's own `TcpStream` cannot ask for priority readiness (tokio `Interest::PRIORITY`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A socket's readiness as it was looked at: to be cleared where nothing is left.
pub type ReadyGuard<'a> = AsyncFdReadyGuard<'a, OwnedFd>;

/// A connected, non-blocking stream socket registered with the runtime.
#[derive(Debug)]
pub struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    /// Registers a connected, non-blocking socket. Must be called inside a runtime.
    ///
    /// # Errors
    /// What epoll says, most likely `ENOMEM` or `ENOSPC`.
    #[allow(unsafe_code)] // tokio's registration asks for a promise about the descriptor
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and the
        // `AsyncFd` owns it: nothing else can close it first.
        let fd = unsafe { AsyncFd::register_with_interest(fd, interest) }?;
        Ok(Self { fd })
    }

    /// The registration, for code that does its own readiness loop.
    pub fn readiness(&self) -> &AsyncFd<OwnedFd> {
        &self.fd
    }

    /// Reads what is there, at least one byte. 0 is the peer's FIN.
    ///
    /// # Errors
    /// What `recv(2)` says.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.readable().await?;
            match self.receive(&mut guard, buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Reads what is there, and forgets that the socket was ready where nothing is left: a short read has
    /// emptied it, unless it stopped at an urgent mark.
    ///
    /// # Errors
    /// What `recv(2)` says; `WouldBlock` when nothing is there.
    pub fn receive(&self, guard: &mut ReadyGuard<'_>, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.try_recv(buf);
        self.note_emptied(guard, &read, buf.len());
        read
    }

    /// Notes whether `read`, which had room for so many bytes, has left nothing behind.
    fn note_emptied(&self, guard: &mut ReadyGuard<'_>, read: &io::Result<usize>, room: usize) {
        let empty = match read {
            Ok(n) => (1..room).contains(n) && !self.urgent_ahead(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if empty {
            guard.clear_ready();
        }
    }

    /// Reads what is there to the end of `buffer`, at most `room` bytes. 0 is the peer's FIN.
    /// A dropped future has taken nothing.
    ///
    /// # Errors
    /// What `recv(2)` says.
    pub async fn read_more(&self, buffer: &mut BytesMut, room: usize) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.readable().await?;
            let read = self.try_recv_behind(buffer, room);
            self.note_emptied(&mut guard, &read, room);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Looks at what is there without taking it. 0 is the peer's FIN.
    ///
    /// # Errors
    /// What `recv(2)` says; `WouldBlock` when nothing is there.
    pub fn try_peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.fd, buf, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
    }

    /// Whether nothing has come, no FIN either, as far as the runtime was told: its last look at epoll may be a
    /// moment old. Costs a system call only where something has.
    pub fn is_quiet(&self) -> bool {
        let looked = self.fd.try_io(Interest::READABLE, |_| self.try_peek(&mut [0]));
        looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads what has come, as far as the runtime was told, and waits for nothing. 0 is the peer's FIN. Costs a
    /// system call only where something has.
    ///
    /// # Errors
    /// What `recv(2)` says; `WouldBlock` when nothing has come.
    pub fn receive_at_once(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.fd.readable().now_or_never() {
            Some(guard) => self.receive(&mut guard?, buf),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads what is there, now. 0 is the peer's FIN.
    ///
    /// # Errors
    /// What `recv(2)` says; `WouldBlock` when nothing is there.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut *buf, RecvFlags::empty())
        })?
        .0)
    }

    /// Reads behind what is in `buffer`, into memory that nobody had to fill with zeros first.
    #[allow(unsafe_code)] // what the kernel has written is there, and only the kernel says how much
    fn try_recv_behind(&self, buffer: &mut BytesMut, room: usize) -> io::Result<usize> {
        buffer.reserve(room);
        let (held, free) = (buffer.len(), buffer.spare_capacity_mut());
        let (free, _beyond) = free.split_at_mut(room);
        let read = rustix::io::retry_on_intr(|| {
            let ((read, _unwritten), _) =
                rustix::net::recv(&self.fd, &mut *free, RecvFlags::empty())?;
            Ok(read.len())
        })?;
        // SAFETY: recv(2) has written the first `read` bytes behind the `held` ones.
        unsafe { buffer.set_len(held + read) };
        Ok(read)
    }

    /// Writes some of `buf`, now.
    ///
    /// # Errors
    /// What `send(2)` says; `WouldBlock` when the send buffer is full.
    pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, buf, SendFlags::NOSIGNAL))?)
    }

    /// Whether the urgent mark lies ahead of what was read so far (tcp(7), `EPOLLPRI`). Costs a
    /// system call only where epoll has reported the mark or the peer's FIN.
    pub fn urgent_ahead(&self) -> bool {
        self.fd.try_io(Interest::PRIORITY, |fd| ask_for_urgent(fd.as_fd())).is_ok()
    }

    /// Acknowledges what was read at once, by itself (tcp(7), `TCP_QUICKACK`). A peer with Nagle's algorithm
    /// keeps its next small piece back until then, and the kernel would wait 40 ms for an answer to put the
    /// acknowledgement on. Holds for what has come so far; a socket that cannot is left as it is.
    pub fn acknowledge(&self) {
        let _not_tcp = rustix::net::sockopt::set_tcp_quickack(&self.fd, true);
    }

    /// Takes the socket's pending error (`SO_ERROR`): told once, whoever asks first.
    ///
    /// # Errors
    /// The pending error itself.
    pub fn take_error(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::socket_error(&self.fd)??)
    }

    /// Writes some of `buf`, waiting until at least one byte is taken.
    ///
    /// # Errors
    /// What `send(2)` says.
    pub async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        // There is room nearly always, known to the runtime or not.
        let mut sent = self.try_send(buf);
        while sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let mut guard = self.fd.writable().await?;
            let now = guard.try_io(|_| self.try_send(buf));
            sent = now.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()));
        }
        sent
    }

    /// Writes all of `buf`. Not cancel safe: a dropped future may have written a part.
    ///
    /// # Errors
    /// What `send(2)` says; `WriteZero` never happens on a socket but is told apart.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write(buf).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => buf = &buf[n..],
            }
        }
        Ok(())
    }

    /// Sends FIN: nothing more will be written.
    ///
    /// # Errors
    /// What `shutdown(2)` says, `ENOTCONN` after a reset.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Write)?)
    }

    /// Makes the coming close a reset instead of a FIN (socket(7), `SO_LINGER` with 0 seconds).
    /// Unsent bytes are thrown away. A Unix socket knows no such close: its peer reads an end.
    pub fn reset_on_close(&self) {
        let linger = Some(std::time::Duration::ZERO);
        let _already_closed = rustix::net::sockopt::set_socket_linger(&self.fd, linger);
    }

    /// Whether the socket has a peer: one that got a mere FIN has, a TCP socket that was reset has
    /// none (`getpeername(2)`).
    pub fn has_peer(&self) -> bool {
        rustix::net::getpeername(&self.fd).is_ok()
    }

    /// The peer's address.
    ///
    /// # Errors
    /// What `getpeername(2)` says, `ENOTCONN` after a reset; `EAFNOSUPPORT` for a Unix socket.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let any = rustix::net::getpeername(&self.fd)?.ok_or(io::ErrorKind::NotConnected)?;
        SocketAddr::try_from(any).map_err(io::Error::from)
    }

    /// Our own address on this connection.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&self.fd)?).map_err(io::Error::from)
    }
}

/// `WouldBlock` when no urgent byte lies ahead, which makes tokio forget the report.
fn ask_for_urgent(fd: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::PRI)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    match fds[0].revents().contains(PollFlags::PRI) {
        true => Ok(()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}
