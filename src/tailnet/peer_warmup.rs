//! The first packet to a peer that has not heard of us yet.
//!
//! A node that has just joined knows its peers at once; they learn of it from the control server a moment
//! later, and by which relay it is reached (its home DERP) some moments after that. WireGuard's first
//! handshake is lost then, or the answer to it ("no UDP or DERP addr", wgengine/magicsock/endpoint.go:1034),
//! and tried again after five seconds, which is as long as tailscaled waits for a connection.
//!
//! So a disco ping is repeated until the peer answers: it knows us. It went directly and by the peer's relay;
//! once it has come by the relay too, the peer answers the handshake that way if it has no other
//! (fallbackDERPRegionForPeer). Only the first answer is told.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use crate::localapi::LocalApi;

/// How long a node is fresh: control servers tell its peers within seconds.
const FRESH: Duration = Duration::from_secs(30);
/// For each ping: a lost one is not waited for, an answer from far away is. The dial then has its own
/// patience.
const TRIES: [Duration; 6] = [
    Duration::from_millis(150),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1500),
];
/// For a ping to come by the relay, when the direct one is answered: across continents it is less.
const BY_RELAY: Duration = Duration::from_millis(200);

/// Peers that have answered since the node joined.
#[derive(Debug)]
pub struct PeerWarmup {
    api: LocalApi,
    met: Mutex<WarmPeers>,
}

#[derive(Debug, Default)]
struct WarmPeers {
    /// The joining they belong to.
    since: Option<Instant>,
    peers: HashMap<IpAddr, Arc<OnceCell<()>>>,
}

impl PeerWarmup {
    /// Asks through the tailscaled behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { api: LocalApi::new(socket), met: Mutex::default() }
    }

    /// Waits, if the node that joined at `since` is fresh, until `peer` knows it;
    /// all who ask at a time share the answer. It never fails: the dial tells what is wrong.
    pub async fn warm_up(&self, peer: IpAddr, since: Option<Instant>) {
        let fresh = since.is_some_and(|since| since.elapsed() < FRESH);
        if !fresh {
            return;
        }
        let cell = {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            if met.since != since {
                *met = WarmPeers { since, peers: HashMap::new() };
            }
            Arc::clone(met.peers.entry(peer).or_default())
        };
        cell.get_or_init(|| self.ping_until_answered(peer)).await;
    }

    async fn ping_until_answered(&self, peer: IpAddr) {
        for patience in TRIES {
            match timeout(patience, self.api.ping(peer)).await {
                Ok(Ok(pong)) if pong.relay == 0 && pong.error.is_empty() => {
                    return sleep(BY_RELAY).await;
                }
                Ok(Ok(_by_relay_or_not_at_all)) => return,
                // An older tailscaled, say: no answer is to be had at all.
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "the peer could not be pinged");
                    return;
                }
                Err(_lost) => tracing::debug!(%peer, ?patience, "a ping was lost"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// A LocalAPI that leaves the first ping unanswered and says `pong` to the others; how many came.
    fn tailscaled(folder: &Path, pong: &'static str) -> Arc<AtomicUsize> {
        let listener = UnixListener::bind(folder.join("s")).unwrap();
        let pings = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pings);
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                let read = stream.read(&mut [0; 1024]).await.unwrap();
                assert!(read > 0);
                if count.fetch_add(1, Ordering::Relaxed) == 0 {
                    unanswered.push(stream);
                    continue;
                }
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{pong}", pong.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        pings
    }

    #[tokio::test]
    async fn a_fresh_node_is_met_once_its_handshake_has_a_way_back() {
        let direct =
            r#"{"IP":"100.64.0.1","Err":"","LatencySeconds":0.001,"Endpoint":"10.0.0.1:4"}"#;
        let by_relay = r#"{"IP":"100.64.0.1","LatencySeconds":0.1,"DERPRegionID":999}"#;
        for (pong, at_least) in [(direct, TRIES[0] + BY_RELAY), (by_relay, TRIES[0])] {
            let folder = tempfile::tempdir().unwrap();
            let pings = tailscaled(folder.path(), pong);
            let warmup = PeerWarmup::new(&folder.path().join("s"));
            let (peer, begun) = ("100.64.0.1".parse().unwrap(), Instant::now());
            warmup.warm_up(peer, None).await;
            assert_eq!(pings.load(Ordering::Relaxed), 0, "not in the tailnet");
            tokio::join!(warmup.warm_up(peer, Some(begun)), warmup.warm_up(peer, Some(begun)),);
            assert!(begun.elapsed() >= at_least, "{:?}: {pong}", begun.elapsed());
            let met = pings.load(Ordering::Relaxed);
            assert!(met >= 2, "the first is lost: {pong}");
            warmup.warm_up(peer, Some(begun)).await;
            assert_eq!(pings.load(Ordering::Relaxed), met, "met already: {pong}");
        }
    }
}
