//! Making one connection on somebody else's socket: to the gateway, and through it.
//!
//! The socket's flags and options stay as they are: whether a call waits is said with each call.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::proxy_client::{ProxyAnswer, ProxyClient};

/// How often a waiting supervisor looks whether its caller is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes. An answer of SOCKS5 with the longest name takes 264.
const LONGEST_ANSWER: usize = 1024;

/// How long to wait, and for whom.
pub(super) struct WaitLimit<'a> {
    /// No longer than this.
    pub(super) until: Option<Instant>,
    /// Whether anybody still waits.
    pub(super) alive: &'a dyn Fn() -> bool,
}

impl WaitLimit<'_> {
    /// Waits for an event.
    ///
    /// # Errors
    /// `ETIMEDOUT`, or `ECANCELED` when nobody waits any longer.
    pub(super) fn wait_for(&self, fd: BorrowedFd<'_>, event: PollFlags) -> Result<(), Errno> {
        loop {
            let left = self.time_left()?.map_or(LOOK, |left| left.min(LOOK));
            let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
            match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, event)], Some(&left)) {
                Ok(0) if !(self.alive)() => return Err(Errno::CANCELED),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn time_left(&self) -> Result<Option<Duration>, Errno> {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        match self.until.map(left) {
            Some(Duration::ZERO) => Err(Errno::TIMEDOUT),
            left => Ok(left),
        }
    }
}

/// Connects `fd` to `address`.
///
/// # Errors
/// What `connect(2)` says; `ETIMEDOUT`.
pub(super) fn connect_socket(
    fd: BorrowedFd<'_>,
    address: SocketAddr,
    blocking: bool,
    wait_limit: &WaitLimit<'_>,
) -> Result<(), Errno> {
    let connected = match blocking.then(|| wait_limit.time_left()).transpose()?.flatten() {
        Some(left) => connect_within(fd, address, left),
        None => rustix::net::connect(fd, &address),
    };
    match connected {
        Err(Errno::INPROGRESS) if blocking => Err(Errno::TIMEDOUT),
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait_limit.wait_for(fd, PollFlags::OUT)?;
            // The kernel answers the second call with how the first one ended, and only then takes the
            // socket for connected: a further call of the program's gets `EISCONN`.
            rustix::net::connect(fd, &address)
        }
        done => done,
    }
}

/// On a socket that waits, its send timeout bounds `connect` (socket(7), `SO_SNDTIMEO`).
fn connect_within(fd: BorrowedFd<'_>, address: SocketAddr, left: Duration) -> Result<(), Errno> {
    let own = sockopt::socket_timeout(fd, sockopt::Timeout::Send)?;
    let limit = own.map_or(left, |own| own.min(left));
    sockopt::set_socket_timeout(fd, sockopt::Timeout::Send, Some(limit))?;
    let connected = rustix::net::connect(fd, &address);
    sockopt::set_socket_timeout(fd, sockopt::Timeout::Send, own)?;
    connected
}

/// Asks the gateway for `target` on a connection to its proxy port; afterwards the next byte is the
/// far side's.
///
/// # Errors
/// The gateway's refusal as `connect(2)` would say it; `ETIMEDOUT`.
pub(super) fn request_target(
    fd: BorrowedFd<'_>,
    client: &dyn ProxyClient,
    target: SocketAddr,
    wait_limit: &WaitLimit<'_>,
) -> Result<(), Errno> {
    let request = client.request(target);
    let sent = rustix::net::send(fd, &request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    if sent < request.len() {
        return Err(Errno::NOBUFS); // a fresh connection takes thirty bytes, or none ever
    }
    read_answer(fd, client, wait_limit)
}

/// Reads the answer, and not a byte of what follows it.
fn read_answer(
    fd: BorrowedFd<'_>,
    client: &dyn ProxyClient,
    wait_limit: &WaitLimit<'_>,
) -> Result<(), Errno> {
    let mut received = Vec::with_capacity(LONGEST_ANSWER);
    let mut bytes = [0; LONGEST_ANSWER];
    loop {
        wait_limit.wait_for(fd, PollFlags::IN)?;
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = match rustix::net::recv(fd, &mut bytes[..], flags) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(Errno::CONNREFUSED), // it closed
            Ok((_, seen)) => seen,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let before = received.len();
        received.extend_from_slice(&bytes[..seen]);
        let (of_the_answer, ended) = match client.parse(&received) {
            ProxyAnswer::Incomplete if received.len() < LONGEST_ANSWER => (seen, None),
            ProxyAnswer::Connected(length) => (length.saturating_sub(before), Some(Ok(()))),
            ProxyAnswer::Refused(reason) => (seen, Some(Err(errno_of(reason)))),
            ProxyAnswer::Incomplete | ProxyAnswer::Malformed => return Err(Errno::CONNREFUSED),
        };
        let of_the_answer = of_the_answer.min(seen);
        rustix::net::recv(fd, &mut bytes[..of_the_answer], RecvFlags::DONTWAIT)?;
        if let Some(ended) = ended {
            return ended;
        }
    }
}

/// What a program is told of a refusal (RFC 1928 section 6, connect(2)). One by the policy, 02, is
/// `EACCES`, as of a local firewall.
fn errno_of(reason: u8) -> Errno {
    match reason {
        2 => Errno::ACCESS,
        3 => Errno::NETUNREACH,
        4 => Errno::HOSTUNREACH,
        6 => Errno::TIMEDOUT,
        _ => Errno::CONNREFUSED,
    }
}

/// Makes the socket one that never connected, so that the program may try again on it.
pub(super) fn disconnect_socket(fd: BorrowedFd<'_>) {
    // Fails on a socket that is not connected, which is what is wanted.
    let _already = rustix::net::connect_unspec(fd);
    // Disconnecting leaves an error to be read, which belongs to us.
    let _read = sockopt::socket_error(fd);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::proxy_client::tests::Lines;

    const REQUEST: &[u8; 12] = b"10.0.0.1:80\n";

    /// What `ask` makes of these answers, and what is left to read after them.
    fn asked(answers: &[&[u8]]) -> (Result<(), Errno>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let answers: Vec<Vec<u8>> = answers.iter().map(|part| part.to_vec()).collect();
        let serving = std::thread::spawn(move || {
            let mut request = [0; REQUEST.len()];
            server.read_exact(&mut request).unwrap();
            for part in answers {
                server.set_nodelay(true).unwrap();
                server.write_all(&part).unwrap();
                std::thread::yield_now();
            }
            request
        });
        let until = Some(Instant::now() + Duration::from_secs(20));
        let wait_limit = WaitLimit { until, alive: &|| true };
        let result =
            request_target(socket.as_fd(), &Lines, "10.0.0.1:80".parse().unwrap(), &wait_limit);
        assert_eq!(serving.join().unwrap(), *REQUEST);
        let mut rest = Vec::new();
        let mut socket = socket;
        socket.read_to_end(&mut rest).unwrap();
        (result, rest)
    }

    #[test]
    fn the_far_side_s_first_bytes_stay_in_the_socket() {
        let whole = b"+ by 127.0.0.1:80\nhello";
        assert_eq!(asked(&[whole]), (Ok(()), b"hello".to_vec()));
        let dribbled: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(asked(&dribbled), (Ok(()), b"hello".to_vec()));
    }

    #[test]
    fn refusals_are_told_as_the_kernel_tells_them() {
        for (reason, errno) in [
            (1, Errno::CONNREFUSED),
            (2, Errno::ACCESS),
            (3, Errno::NETUNREACH),
            (4, Errno::HOSTUNREACH),
            (5, Errno::CONNREFUSED),
            (6, Errno::TIMEDOUT),
            (7, Errno::CONNREFUSED),
        ] {
            let answer = format!("-{reason}\n");
            assert_eq!(asked(&[answer.as_bytes()]).0, Err(errno), "{reason}");
        }
        let endless = [b'+'; LONGEST_ANSWER];
        for garbage in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"+ cut off", b"", &endless] {
            assert_eq!(asked(&[garbage]).0, Err(Errno::CONNREFUSED), "{garbage:?}");
        }
    }
}
