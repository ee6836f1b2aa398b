//! Where a call is led: the pure part of what a supervisor decides.
//!
//! No policy: what is not let pass goes to the gateway, which judges (B27).
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::proxy_client::ProxyClient;

/// The port of nameservers (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// Ports of datagram sockets that are connected to learn a source address, and send nothing: glibc and
/// musl, when they sort addresses (RFC 6724).
const NO_TRAFFIC: [u16; 2] = [0, 65535];

/// The name a nested `run` asks for; no program listens there, so the kernel would say `ECONNREFUSED`.
pub(super) const PROBE: &[u8] = b"\0tailrace/run";
/// Sockets by which libc has names looked up outside of the program: systemd-resolved for
/// nss-resolve(8), and nscd(8). Refused, libc asks by DNS.
const RESOLVERS: [&[u8]; 4] = [
    b"/run/systemd/resolve/io.systemd.Resolve",
    b"/var/run/systemd/resolve/io.systemd.Resolve",
    b"/run/nscd/socket",
    b"/var/run/nscd/socket",
];

/// The gateway, as programs under `run` reach it.
#[derive(Debug, Clone)]
pub struct GatewayAccess {
    /// The addresses of its proxy port, to be tried in this order.
    pub proxy: Vec<SocketAddr>,
    /// Its admin listener, which programs reach directly.
    pub admin: SocketAddr,
    /// The private DNS port; without it names are not redirected.
    pub dns: Option<SocketAddr>,
    /// How long a connection may take to be made, the gateway's own limit included.
    pub connect_timeout: Duration,
    /// Addresses that are never carried to the gateway: loopback, and those of metadata services.
    pub direct: Vec<IpAddr>,
    /// The protocol of the proxy port.
    pub client: &'static dyn ProxyClient,
}

/// What is to become of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamRoute {
    /// As the program made it.
    Untouched,
    /// To this address by the gateway's proxy port.
    Proxy(SocketAddr),
    /// To the gateway's DNS port, whatever nameserver was meant.
    Dns(SocketAddr),
}

/// What is to become of a datagram, or of a datagram socket that is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatagramRoute {
    /// As the program made it.
    Untouched,
    /// The same, and it is traffic the gateway does not carry.
    LeftAlone,
    /// To the gateway's DNS port.
    Dns(SocketAddr),
}

/// What is to become of a connection to a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnixSocketRoute {
    /// As the program made it.
    Untouched,
    /// Refused as if nobody were there.
    Refused,
    /// A nested `run` that wants to know.
    Probe,
}

impl GatewayAccess {
    /// The way of a TCP connection to `to`.
    pub(super) fn stream_route(&self, to: SocketAddr) -> StreamRoute {
        match self.dns {
            Some(dns) if to.port() == DNS_PORT => StreamRoute::Dns(dns),
            None if to.port() == DNS_PORT => StreamRoute::Untouched,
            _ if to.port() == 0 || self.is_near(to) => StreamRoute::Untouched,
            _ => StreamRoute::Proxy(to),
        }
    }

    /// The way of a datagram to `to`.
    pub(super) fn datagram_route(&self, to: SocketAddr) -> DatagramRoute {
        match self.dns {
            Some(dns) if to.port() == DNS_PORT => DatagramRoute::Dns(dns),
            _ if self.is_near(to) || NO_TRAFFIC.contains(&to.port()) => DatagramRoute::Untouched,
            _ => DatagramRoute::LeftAlone,
        }
    }

    /// The way of a connection to the Unix socket of this name.
    pub(super) fn unix_socket_route(&self, name: &[u8]) -> UnixSocketRoute {
        if name.starts_with(PROBE) {
            return UnixSocketRoute::Probe;
        }
        let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
        match self.dns.is_some() && RESOLVERS.contains(&path) {
            true => UnixSocketRoute::Refused,
            false => UnixSocketRoute::Untouched,
        }
    }

    /// Loopback, the gateway itself, what never goes through a proxy, and what no proxy can reach.
    fn is_near(&self, to: SocketAddr) -> bool {
        let ip = to.ip();
        let on_one_link = match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        ip.is_loopback()
            || ip.is_unspecified()
            || ip.is_multicast()
            || on_one_link
            || self.direct.contains(&ip)
            || is_broadcast(ip)
            || self.proxy.contains(&to)
            || self.admin == to
    }

    /// Whether a connection to `to` ends at one of the addresses that connections are carried to.
    pub(super) fn leads_to_us(&self, to: SocketAddr) -> bool {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.proxy.contains(&to) || self.dns == Some(to)
    }
}

/// The kernel says what becomes of it, which depends on an option (ip(7), `SO_BROADCAST`).
fn is_broadcast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(dns: Option<&str>) -> GatewayAccess {
        GatewayAccess {
            proxy: vec!["192.0.2.9:1055".parse().unwrap()],
            admin: "192.0.2.9:9155".parse().unwrap(),
            dns: dns.map(|dns| dns.parse().unwrap()),
            connect_timeout: Duration::from_secs(1),
            direct: ["169.254.169.254", "169.254.170.2"].map(|ip| ip.parse().unwrap()).to_vec(),
            client: &crate::proxy_client::tests::Lines,
        }
    }

    #[test]
    fn loopback_the_gateway_and_metadata_stay_and_the_rest_goes() {
        let gateway = gateway(None);
        for near in [
            "127.0.0.1:5432",
            "127.9.9.9:1",
            "[::1]:80",
            "0.0.0.0:80",
            "[::]:80",
            "192.0.2.9:1055",
            "192.0.2.9:9155",
            "169.254.169.254:80",
            "169.254.170.2:80",
            "[fe80::1]:22",
            "255.255.255.255:80",
            "10.0.0.1:0",
            "10.0.0.53:53",
        ] {
            assert_eq!(
                gateway.stream_route(near.parse().unwrap()),
                StreamRoute::Untouched,
                "{near}"
            );
        }
        for far in ["10.0.0.1:5432", "192.0.2.9:22", "100.64.0.1:80", "[2001:db8::1]:443"] {
            let far = far.parse().unwrap();
            assert_eq!(gateway.stream_route(far), StreamRoute::Proxy(far));
            assert_eq!(gateway.datagram_route(far), DatagramRoute::LeftAlone);
        }
        for quiet in ["10.0.0.1:0", "10.0.0.1:65535", "127.0.0.1:9", "224.0.0.251:5353"] {
            assert_eq!(
                gateway.datagram_route(quiet.parse().unwrap()),
                DatagramRoute::Untouched,
                "{quiet}"
            );
        }
    }

    #[test]
    fn every_nameserver_is_ours_once_there_is_a_dns_port() {
        let with = gateway(Some("127.0.0.1:5300"));
        let dns = with.dns.unwrap();
        for nameserver in ["127.0.0.11:53", "127.0.0.53:53", "10.0.0.2:53", "[2001:db8::2]:53"] {
            let nameserver = nameserver.parse().unwrap();
            assert_eq!(with.stream_route(nameserver), StreamRoute::Dns(dns));
            assert_eq!(with.datagram_route(nameserver), DatagramRoute::Dns(dns));
        }
        let resolved = b"/run/systemd/resolve/io.systemd.Resolve\0\0";
        assert_eq!(with.unix_socket_route(resolved), UnixSocketRoute::Refused);
        assert_eq!(with.unix_socket_route(b"/var/run/nscd/socket"), UnixSocketRoute::Refused);
        assert_eq!(gateway(None).unix_socket_route(resolved), UnixSocketRoute::Untouched);
        for other in [&b"/run/x"[..], b"", b"\0abstract", b"/run/nscd/socket2\0"] {
            assert_eq!(with.unix_socket_route(other), UnixSocketRoute::Untouched);
        }
        assert_eq!(with.unix_socket_route(PROBE), UnixSocketRoute::Probe);
    }
}
