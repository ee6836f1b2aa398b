//! The first packet to a peer that has not heard of us yet.
//!
//! A node that has just joined knows its peers at once; they learn of it from the control server a moment
//! later. WireGuard's first handshake is lost then and tried again after five seconds, which is as long
//! as tailscaled waits for a connection. A disco ping repeated until it is answered costs a round trip and
//! makes sure that the peer knows us.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::localapi::LocalApi;

/// How long a node is fresh: control servers tell its peers within seconds.
const FRESH: Duration = Duration::from_secs(30);
/// For one ping.
const TRY: Duration = Duration::from_millis(150);
/// For all of them; the dial then has its own patience.
const TRIES: u32 = 20;

/// Peers that have answered since the node joined.
#[derive(Debug)]
pub struct Acquaintances {
    api: LocalApi,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    /// The joining they belong to.
    since: Option<Instant>,
    peers: HashMap<IpAddr, Arc<OnceCell<()>>>,
}

impl Acquaintances {
    /// Asks through the tailscaled behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { api: LocalApi::new(socket), met: Mutex::default() }
    }

    /// Waits, if the node that joined at `since` is fresh, until `peer` has answered once; all who ask
    /// at a time share the answer. It never fails: the dial tells what is wrong.
    pub async fn meet(&self, peer: IpAddr, since: Option<Instant>) {
        let fresh = since.is_some_and(|since| since.elapsed() < FRESH);
        if !fresh {
            return;
        }
        let cell = {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            if met.since != since {
                *met = Met { since, peers: HashMap::new() };
            }
            Arc::clone(met.peers.entry(peer).or_default())
        };
        cell.get_or_init(|| self.ping(peer)).await;
    }

    async fn ping(&self, peer: IpAddr) {
        for _ in 0..TRIES {
            let begun = Instant::now();
            match timeout(TRY, self.api.ping(peer)).await {
                Ok(Ok(())) => return,
                // An older tailscaled, say: no answer is to be had at all.
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "the peer could not be pinged");
                    return;
                }
                Err(_lost) => tracing::debug!(%peer, took = ?begun.elapsed(), "a ping was lost"),
            }
        }
    }
}
