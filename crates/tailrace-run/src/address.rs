//! Socket addresses as they lie in memory (`struct sockaddr`, ip(7), ipv6(7), unix(7)).
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `sizeof(struct sockaddr_storage)`: the longest address the kernel takes.
pub(super) const LONGEST: usize = 128;

/// An address a program gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ParsedAddress {
    /// Of the families that can be carried.
    Inet(InetAddress),
    /// A Unix socket's name as it lies there: a path, or an abstract name behind a zero byte.
    Unix(Vec<u8>),
    /// Anything else, or too short to be what it says: the kernel's affair.
    Other,
}

/// An IPv4 or IPv6 address as a program gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InetAddress {
    /// Where it leads: an IPv4-mapped one is IPv4 here.
    pub(super) to: SocketAddr,
    /// Whether it was given as `AF_INET6`, IPv4-mapped or not.
    pub(super) v6: bool,
}

impl ParsedAddress {
    /// Reads a `struct sockaddr` of this length.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let Some((family, rest)) = bytes.split_first_chunk() else { return Self::Other };
        match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_INET => parse_inet(bytes, rest).map_or(Self::Other, Self::Inet),
            libc::AF_INET6 => parse_inet6(rest).map_or(Self::Other, Self::Inet),
            libc::AF_UNIX => Self::Unix(rest.to_vec()),
            _ => Self::Other,
        }
    }
}

fn parse_inet(whole: &[u8], rest: &[u8]) -> Option<InetAddress> {
    let (port, rest) = rest.split_first_chunk()?;
    let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
    // One without its padding is `EINVAL` to the kernel (`tcp_v4_connect`, `udp_sendmsg`).
    let to = SocketAddr::new(ip.into(), u16::from_be_bytes(*port));
    (whole.len() >= size_of::<libc::sockaddr_in>()).then_some(InetAddress { to, v6: false })
}

fn parse_inet6(rest: &[u8]) -> Option<InetAddress> {
    let (port, rest) = rest.split_first_chunk()?;
    let (flow, rest) = rest.split_first_chunk()?;
    let (ip, rest) = rest.split_first_chunk::<16>()?;
    // The kernel takes an address without its scope (`SIN6_LEN_RFC2133`).
    let scope = rest.first_chunk().map_or(0, |scope| u32::from_ne_bytes(*scope));
    let (ip, port) = (Ipv6Addr::from(*ip), u16::from_be_bytes(*port));
    let to = match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(v4.into(), port),
        None => SocketAddrV6::new(ip, port, u32::from_ne_bytes(*flow), scope).into(),
    };
    Some(InetAddress { to, v6: true })
}

/// `address` as a program finds it behind a received datagram; for an IPv6 socket (`v6`) an IPv4
/// address is mapped.
pub(super) fn sockaddr_bytes(address: SocketAddr, v6: bool) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    let family = |family: i32| (family as u16).to_ne_bytes();
    match for_socket(address, v6) {
        SocketAddr::V4(v4) => {
            [&family(libc::AF_INET)[..], &port, &v4.ip().octets(), &[0; 8]].concat()
        }
        SocketAddr::V6(it) => [
            &family(libc::AF_INET6)[..],
            &port,
            &it.flowinfo().to_ne_bytes(),
            &it.ip().octets(),
            &it.scope_id().to_ne_bytes(),
        ]
        .concat(),
    }
}

/// `address` in the words of a socket's family.
pub(super) fn for_socket(address: SocketAddr, v6: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) if v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet_of(bytes: &[u8]) -> String {
        match ParsedAddress::parse(bytes) {
            ParsedAddress::Inet(address) => address.to.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["10.1.2.3:5432", "[2001:db8::1]:80", "[fe80::1%3]:7"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(inet_of(&sockaddr_bytes(address, address.is_ipv6())), text);
        }
        let mapped = sockaddr_bytes("10.1.2.3:53".parse().unwrap(), true);
        assert_eq!((mapped.len(), inet_of(&mapped)), (28, "10.1.2.3:53".to_owned()));
        assert_eq!(inet_of(&mapped[..24]), "10.1.2.3:53", "without a scope");
    }

    #[test]
    fn what_is_too_short_or_strange_is_the_kernel_s() {
        let v4 = sockaddr_bytes("10.1.2.3:53".parse().unwrap(), false);
        let v6 = sockaddr_bytes("[2001:db8::1]:80".parse().unwrap(), true);
        for bytes in [&v4[..0], &v4[..1], &v4[..7], &v4[..8], &v4[..15], &v6[..16], &v6[..23]] {
            assert_eq!(ParsedAddress::parse(bytes), ParsedAddress::Other, "{bytes:?}");
        }
        for bytes in [&[99, 0, 1, 2][..], &[0, 0]] {
            assert_eq!(ParsedAddress::parse(bytes), ParsedAddress::Other, "{bytes:?}");
        }
        let unix = [&[libc::AF_UNIX as u8, 0][..], b"/run/x\0"].concat();
        assert_eq!(ParsedAddress::parse(&unix), ParsedAddress::Unix(b"/run/x\0".to_vec()));
    }
}
