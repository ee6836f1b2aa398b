//! A blocking TCP connection with byte-exact control, for clients and for scripted servers.
//!
//! Every read has a deadline; everything said and heard is on the tape of the failing test.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::transcript;
use super::wait::{PATIENCE, eventually, pause};

/// How the other side ended its half of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// A clean FIN.
    Fin,
    /// A reset.
    Reset,
    /// Not ended when the time was up.
    Open,
}

/// One connection.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    name: String,
}

impl RawConnection {
    /// Connects, without Nagle's delay.
    #[track_caller]
    pub fn dial(to: SocketAddr) -> RawConnection {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)
            .unwrap_or_else(|e| panic!("cannot connect to {to}: {e}"));
        RawConnection::new(stream)
    }

    /// Asserts that a connection there is reset, which may be so quick that `connect` already sees it.
    #[track_caller]
    pub fn assert_reset(to: SocketAddr) {
        match TcpStream::connect(to) {
            Ok(stream) => RawConnection::new(stream).expect_end(ConnectionEnd::Reset),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// Takes an established connection.
    pub fn new(stream: TcpStream) -> RawConnection {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let port = stream.local_addr().map_or(0, |a| a.port());
        RawConnection { stream, name: format!(":{port}") }
    }

    /// The socket itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// A second handle on the same connection, for another thread.
    pub fn twin(&self) -> RawConnection {
        RawConnection { stream: self.stream.try_clone().unwrap(), name: self.name.clone() }
    }

    /// Our own address.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends all bytes, in one segment where they fit.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("{}: send: {e}", self.name));
    }

    /// Sends all bytes, or says why not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        transcript::note(&self.name, "->", bytes.as_ref());
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `piece` bytes at a time with a pause after each.
    #[track_caller]
    pub fn send_slowly(&mut self, bytes: impl AsRef<[u8]>, piece: usize, rest: Duration) {
        for part in bytes.as_ref().chunks(piece) {
            self.send(part);
            pause(rest);
        }
    }

    /// Sends one byte out of band (`MSG_OOB`).
    #[track_caller]
    pub fn urgent(&mut self, byte: u8) {
        transcript::note(&self.name, "-> (urgent)", &[byte]);
        SockRef::from(&self.stream).send_out_of_band(&[byte]).unwrap();
    }

    /// Reads exactly `n` bytes; panics if the peer ends or stalls before.
    #[track_caller]
    pub fn read_n(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        let mut have = 0;
        while have < n {
            match self.stream.read(&mut bytes[have..]) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    transcript::note(&self.name, "<-", &bytes[..have]);
                    panic!("{}: wanted {n} bytes, got {have}, then: {e}", self.name);
                }
            }
        }
        transcript::note(&self.name, "<-", &bytes[..have]);
        assert!(
            have == n,
            "{}: wanted {n} bytes, got {have} and FIN: {}",
            self.name,
            transcript::escape(&bytes[..have])
        );
        bytes
    }

    /// Reads and compares.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let got = self.read_n(bytes.as_ref().len());
        assert!(
            got == bytes.as_ref(),
            "wanted {:?}, got {:?}",
            transcript::escape(bytes.as_ref()),
            transcript::escape(&got)
        );
    }

    /// Everything up to the end of the connection; gives up after ten seconds of silence.
    pub fn rest(&mut self) -> (Vec<u8>, ConnectionEnd) {
        self.collect(|silence, _| silence)
    }

    /// Everything that comes within `limit`, and how it ended.
    pub fn rest_within(&mut self, limit: Duration) -> (Vec<u8>, ConnectionEnd) {
        let deadline = Instant::now() + limit;
        self.collect(|_, now| deadline.saturating_duration_since(now))
    }

    /// Reads to the end, or until `left` (told what is left of the silence allowed, and the time)
    /// says zero.
    fn collect(
        &mut self,
        left: impl Fn(Duration, Instant) -> Duration,
    ) -> (Vec<u8>, ConnectionEnd) {
        let mut heard = Instant::now();
        let mut all = Vec::new();
        let mut chunk = vec![0; 65_536];
        let end = loop {
            let now = Instant::now();
            let wait = left(PATIENCE.saturating_sub(now - heard), now);
            if wait.is_zero() {
                break ConnectionEnd::Open;
            }
            let _ = self.stream.set_read_timeout(Some(wait));
            match self.stream.read(&mut chunk) {
                Ok(0) => break ConnectionEnd::Fin,
                Ok(n) => {
                    all.extend_from_slice(&chunk[..n]);
                    heard = Instant::now();
                }
                Err(e) => match e.kind() {
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut => {}
                    _ => break ConnectionEnd::Reset,
                },
            }
        };
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        transcript::note(&self.name, "<-", &all);
        transcript::line(format!("{} ended: {end:?}", self.name));
        (all, end)
    }

    /// Asserts that nothing more comes and the connection ends like this.
    #[track_caller]
    pub fn expect_end(&mut self, end: ConnectionEnd) {
        let (bytes, got) = self.rest();
        assert!(
            bytes.is_empty(),
            "unexpected bytes before the end: {}",
            transcript::escape(&bytes)
        );
        assert_eq!(got, end, "how the connection ended");
    }

    /// Asserts that nothing comes and nothing ends within `limit`.
    #[track_caller]
    pub fn expect_silence(&mut self, limit: Duration) {
        let (bytes, end) = self.rest_within(limit);
        assert!(
            bytes.is_empty() && end == ConnectionEnd::Open,
            "wanted silence, got {:?} and {end:?}",
            transcript::escape(&bytes)
        );
    }

    /// Sends FIN, keeps reading.
    pub fn fin(&mut self) {
        transcript::line(format!("{} -> FIN", self.name));
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends RST at once, whatever other handles exist: `connect(2)` to `AF_UNSPEC` aborts.
    pub fn reset(self) {
        transcript::line(format!("{} -> RST", self.name));
        abort(&self.stream);
    }
}

/// How many of the bytes that come `next` belong to what has been read so far: up to and including `end`, else all.
pub(crate) fn length_until(read: &[u8], next: &[u8], end: &[u8]) -> usize {
    // The end may have begun in what was read.
    let tail = &read[(read.len() + 1).saturating_sub(end.len())..];
    let joined = [tail, next].concat();
    memchr::memmem::find(&joined, end).map_or(next.len(), |at| at + end.len() - tail.len())
}

/// Resets a connection at once, also when other descriptors of it are open.
pub fn abort(stream: &TcpStream) {
    let _ = rustix::net::connect_unspec(stream);
}

/// The connection ends by RST when its last descriptor is closed (`SO_LINGER` 0).
pub fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Bytes the kernel will hold for this socket each way, so that a stalled reader is felt early.
pub fn small_buffers(stream: &TcpStream, bytes: usize) {
    let _ = SockRef::from(stream).set_recv_buffer_size(bytes);
    let _ = SockRef::from(stream).set_send_buffer_size(bytes);
}

/// Waits until the peer's kernel has acknowledged everything sent (`SIOCOUTQ` 0, tcp(7)).
pub fn wait_delivered(stream: &TcpStream) {
    let delivered = || tailrace_sys::unacked(stream).is_ok_and(|bytes| bytes == 0);
    eventually("the sent bytes are acknowledged", PATIENCE, delivered);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_an_end_is_not_counted() {
        let whole = b"GET / HTTP/1.1\r\n\r\nbody";
        let end = whole.len() - 4;
        for cut in 0..end {
            let (read, next) = whole.split_at(cut);
            assert_eq!(length_until(read, next, b"\r\n\r\n"), end - cut, "{cut}");
        }
        assert_eq!(length_until(b"ab\r\n", b"\rc", b"\r\n\r\n"), 2);
    }
}
