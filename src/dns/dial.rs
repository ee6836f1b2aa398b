//! Connections to nameservers: through the tailnet where it leads there, else directly.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::runtime::{RuntimeProvider, TokioHandle, TokioTime};

use super::NameserverWay;
use crate::sys::{self, Stream};

/// What hickory dials and spawns with. Its tasks end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct NameserverRuntime {
    pub(super) way: Option<Arc<dyn NameserverWay>>,
    pub(super) mark: Option<u32>,
    pub(super) tasks: TokioHandle,
}

impl RuntimeProvider for NameserverRuntime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = tokio::net::UdpSocket;
    type Tcp = AsyncIoTokioAsStd<Stream>;

    fn create_handle(&self) -> Self::Handle {
        self.tasks.clone()
    }

    /// The caller sets the time limit: there is one deadline for a name.
    fn connect_tcp(
        &self,
        to: SocketAddr,
        _bind: Option<SocketAddr>,
        _timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let (way, mark) = (self.way.clone(), self.mark);
        Box::pin(
            async move { dial_nameserver(way.as_deref(), to, mark).await.map(AsyncIoTokioAsStd) },
        )
    }

    /// For this host's own resolvers alone: nothing else is asked by datagrams.
    fn bind_udp(
        &self,
        local: SocketAddr,
        _to: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        Box::pin(tokio::net::UdpSocket::bind(local))
    }
}

async fn dial_nameserver(
    way: Option<&dyn NameserverWay>,
    to: SocketAddr,
    mark: Option<u32>,
) -> io::Result<Stream> {
    match way {
        Some(way) if way.covers(to.ip()) => way.dial(to).await,
        // This host's network may hold somebody else under such an address.
        _ if of_a_tailnet(to.ip()) => {
            Err(io::Error::new(io::ErrorKind::NotFound, "no node of the tailnet has this address"))
        }
        _ => sys::dial(to, mark).await,
    }
}

/// The ranges nodes get their addresses from: 100.64.0.0/10 and fd7a:115c:a1e0::/48
/// (tailscale net/tsaddr).
fn of_a_tailnet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4 & Ipv4Addr::new(255, 192, 0, 0) == Ipv4Addr::new(100, 64, 0, 0),
        IpAddr::V6(v6) => matches!(v6.segments(), [0xfd7a, 0x115c, 0xa1e0, ..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn d9_a_node_address_is_never_dialled_on_this_hosts_network() {
        for address in ["100.64.0.1:53", "100.127.255.254:53", "[fd7a:115c:a1e0::1]:53"] {
            let error = dial_nameserver(None, address.parse().unwrap(), None).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{address}");
        }
        for outside in ["100.63.255.255", "100.128.0.0", "fd7a:115c:a1e1::1", "::1"] {
            assert!(!of_a_tailnet(outside.parse().unwrap()), "{outside}");
        }
    }
}
