//! Who holds a listening port: for the sentence a person gets when ours is taken.
//!
//! The kernel is asked for the listener's socket (sock_diag(7)) and `/proc` for who has it open among the
//! processes we may look into; nothing to be found is no error. `/proc/net/tcp` would tell it too, line by line
//! of every connection there is: seconds on a busy host.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::sys::{self, Program};

/// The process that listens on `address`, where `/proc` shows it to us.
pub(crate) fn of(address: SocketAddr) -> Option<u32> {
    let inode = listener(address)?;
    sys::programs().into_iter().find(|pid| holds(*pid, inode))
}

/// Whether anybody listens on `address`, also a process that we may not look into.
pub(crate) fn is_taken(address: SocketAddr) -> bool {
    listener(address).is_some()
}

/// The inode of the socket that takes what comes to `address`. Whoever keeps us from listening everywhere
/// may do so on loopback alone.
fn listener(address: SocketAddr) -> Option<u32> {
    let (nowhere, loopback): (IpAddr, IpAddr) = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    };
    // A listener is connected to nobody.
    let ask = |ip| sys::socket_owner((ip, address.port()).into(), (nowhere, 0).into()).ok();
    let everywhere = address.ip().is_unspecified();
    let owner = ask(address.ip()).or_else(|| everywhere.then(|| ask(loopback)).flatten())?;
    Some(owner.inode)
}

fn holds(pid: u32, inode: u32) -> bool {
    let Ok(descriptors) = Program::open(pid).and_then(|program| program.descriptors()) else {
        return false;
    };
    descriptors.numbers().into_iter().any(|number| descriptors.socket(number) == Some(inode))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn our_own_listener_is_ours() {
        let me = Some(std::process::id());
        for (on, asked) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("127.0.0.1", "0.0.0.0"),
            ("::1", "::1"),
            ("::", "::1"),
        ] {
            let Ok(listener) = TcpListener::bind((on, 0)) else { continue }; // a host without IPv6
            let port = listener.local_addr().unwrap().port();
            let asked: IpAddr = asked.parse().unwrap();
            let _connections = TcpStream::connect((on, port));
            assert_eq!(of((asked, port).into()), me, "on {on}, asked for {asked}");
            assert!(is_taken((asked, port).into()), "on {on}, asked for {asked}");
            drop(listener);
            // A program that another test starts has a copy of the descriptor between fork and exec.
            let deadline = Instant::now() + Duration::from_secs(10);
            while is_taken((asked, port).into()) {
                assert!(Instant::now() < deadline, "on {on}, asked for {asked}");
                std::thread::park_timeout(Duration::from_millis(1));
            }
            assert_eq!(of((asked, port).into()), None);
        }
    }
}
