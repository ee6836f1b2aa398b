//! Whether this host's own routing table leads to an address: no packet is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Asks the kernel by connecting a UDP socket, which only looks the route up (connect(2)).
pub fn has_route(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_one_and_the_broadcast_address_none() {
        assert!(has_route(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        // connect(2) says EACCES for it, whatever the table holds.
        assert!(!has_route(IpAddr::V4(Ipv4Addr::BROADCAST)));
    }
}
