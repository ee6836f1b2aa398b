//! Telling a client that has closed its socket from one that has only sent its FIN.

use std::io;
use std::net::SocketAddr;

use super::{Stream, closing_sockets, original_dst, socket_owner};

/// Whether the peer of `stream` is a socket on this host that nobody holds any more: closed, or its
/// process ended. A client elsewhere is never told so. Some system calls.
///
/// The wire does not tell: both ends look alike until something is sent (tcp(7)). The kernel does:
/// it keeps the abandoned socket for `tcp_fin_timeout`, without an inode.
pub fn peer_left(stream: &Stream) -> bool {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return false };
    // Where a redirected client thinks it is connected to.
    let server = original_dst(stream, local).unwrap_or(local);
    let here = peer.ip() == local.ip() || peer.ip().is_loopback() || server != local;
    match here.then(|| socket_owner(peer, server)) {
        Some(Ok(owner)) => owner.inode == 0,
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            // By OUTPUT a connection is redirected to loopback (net/netfilter/nf_nat_redirect.c): its
            // client is on this host, and has another port than the one it comes from.
            server != local && local.ip().to_canonical().is_loopback() && all_left(server)
        }
        _ => false,
    }
}

/// Whether of the sockets on this host that have sent their FIN to `server` nobody holds a single one.
///
/// Where conntrack changed a client's port, because another client had the same one towards another
/// server, the client's own is not known here: only a process with `CAP_NET_ADMIN` may ask conntrack. But
/// its socket leads to `server` and has sent a FIN, so it is one of these. While one is held, none counts.
fn all_left(server: SocketAddr) -> bool {
    closing_sockets(server)
        .is_ok_and(|all| !all.is_empty() && all.iter().all(|owner| owner.inode == 0))
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn c6_a_half_closed_client_is_still_there_and_a_closed_one_is_not() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ours = listener.accept().unwrap().0;
            ours.set_nonblocking(true).unwrap();
            let ours = Stream::new(ours.into()).unwrap();
            assert!(!peer_left(&ours));
            client.shutdown(Shutdown::Write).unwrap();
            ours.readiness().readable().await.unwrap().retain_ready();
            let second = client.try_clone().unwrap();
            drop(client);
            assert!(!peer_left(&ours), "somebody else holds it");
            drop(second);
            let left = async {
                while !peer_left(&ours) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), left).await.unwrap();
        }
    }
}
