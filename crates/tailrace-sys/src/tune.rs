//! The options every relayed socket carries, on both sides of the gateway.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// First probe on a silent connection: under the 60 s after which some NATs forget a half-closed
/// one, so that a late FIN still finds its way.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(45);

/// Time between probes that stay unanswered (`TCP_KEEPINTVL`, tcp(7)).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Longest time bytes may stay unacknowledged. It also ends a peer that keeps its window shut
/// (kernel, `tcp_probe_timer`), and a person may leave a pager standing: an hour, as the idle limit.
const USER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Sets `TCP_NODELAY`, keepalive and `TCP_USER_TIMEOUT` (tcp(7)).
///
/// # Errors
/// What `setsockopt(2)` says; a socket that was reset meanwhile may refuse.
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c18_keepalive_user_timeout_and_nodelay_are_set() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(tune(&socket).is_err(), "not a TCP socket");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&stream).unwrap();
        assert!(sockopt::tcp_nodelay(&stream).unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert!(sockopt::tcp_keepidle(&stream).unwrap() < Duration::from_secs(60));
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 3_600_000);
    }
}
