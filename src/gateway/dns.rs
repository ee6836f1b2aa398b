//! The DNS server's place in the gateway: its sockets, and who answers there.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use super::Gateway;
use crate::connection::DnsResponder;
use crate::dns::serve::{self, QuestionHandler};
use crate::listener::{self, Accepted, Bound, Permit};

/// Clients connected at once; they are many with one question each, so the rest waits its turn.
const CLIENTS: u32 = 256;
/// Of one of them, a user of this host or an address beyond it: nobody keeps the others out.
const OF_ONE: u32 = 64;
/// Ports tried where the kernel picks one that is free for TCP and not for UDP.
const TRIES: u32 = 16;

/// One address, for datagrams and for connections.
#[derive(Debug)]
pub(super) struct Sockets {
    tcp: Bound,
    udp: UdpSocket,
}

impl Sockets {
    /// Binds both, or neither; with port 0 both get the same.
    ///
    /// # Errors
    /// What `bind(2)` says.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut tries = if address.port() == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            match pair(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                bound => return bound,
            }
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.tcp.address()
    }
}

fn pair(address: SocketAddr) -> io::Result<Sockets> {
    let tcp = Bound::new(address)?;
    let udp = UdpSocket::bind(tcp.address())?;
    udp.set_nonblocking(true)?;
    Ok(Sockets { tcp, udp })
}

/// Answers on all of them until the gateway stops accepting.
pub(super) fn serve(gateway: &Gateway, sockets: Vec<Sockets>) {
    let handler =
        QuestionHandler::new(Arc::new(DnsResponder::new(Arc::clone(&gateway.gateway_state))));
    let limits = listener::Limits::new(CLIENTS, OF_ONE);
    for Sockets { tcp, udp } in sockets {
        let (address, datagrams) =
            (tcp.address(), serve::serve_udp(udp, handler.clone(), gateway.stopped()));
        tokio::spawn(async move {
            if let Err(error) = datagrams.await {
                tracing::error!(%address, %error, "no DNS datagram is answered there any more");
            }
        });
        let (handler, telemetry) = (handler.clone(), Arc::clone(&gateway.gateway_state.telemetry));
        tokio::spawn(listener::accept_loop(
            tcp,
            Arc::clone(&limits),
            gateway.bound.all(),
            move |errno| telemetry.count_accept_error(errno),
            move |Accepted { stream, peer, permit, .. }| {
                let handler = handler.clone();
                if matches!(permit, Permit::Serve(_)) {
                    drop(tokio::spawn(async move {
                        serve::serve_tcp(stream, peer, handler).await;
                        drop(permit);
                    }));
                }
            },
            gateway.stopped(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_both_or_neither() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = Sockets::bind(any).unwrap();
        assert_eq!(sockets.address(), sockets.udp.local_addr().unwrap());
        // An address of its own: nobody else takes the port meanwhile.
        let alone = SocketAddr::from(([127, 0, 7, 53], 0));
        let taken = UdpSocket::bind(alone).unwrap().local_addr().unwrap();
        let _holder = UdpSocket::bind(taken).unwrap();
        let error = Sockets::bind(taken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(Bound::new(taken).is_ok(), "nothing stays bound");
    }
}
