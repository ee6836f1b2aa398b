//! What is known of the tailnet: one value, published whole whenever it changes.
//!
//! Only the supervisor and the login write it; everybody else reads it through one `watch`.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;

use super::explain::TailnetFault;
use super::netmap::Netmap;
use super::version::TailscaledVersion;
pub use crate::labels::TailnetPhase;

/// The whole of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TailnetState {
    /// How far this node has come.
    pub phase: TailnetPhase,
    /// Why it is not running, or what to worry about although it is.
    pub fault: Option<TailnetFault>,
    /// Why nothing may go through this tailscaled, whatever it says of itself.
    pub barred: Option<TailnetFault>,
    /// The first login has neither succeeded nor failed for good: connections may wait for it.
    pub first_login: bool,
    /// When the node was last let into the tailnet, while it is in.
    pub since: Option<Instant>,
    /// This node, once it is in a tailnet.
    pub node: Option<OwnNode>,
    /// tailscaled's version.
    pub version: Option<TailscaledVersion>,
    /// How changes of all this are learned of.
    pub feed: StatusFeed,
    /// tailscaled's own health warnings, as it words them.
    pub health: Vec<String>,
    /// Peers, routes and names.
    pub netmap: Arc<Netmap>,
    /// tailscaled's process, where it is known.
    pub process: Option<u32>,
    /// Its SOCKS5 port; none with kind `localapi`, and while it is not up.
    pub port: Option<SocketAddr>,
    /// Its limit on open files, where it is known.
    pub open_files: Option<u64>,
}

/// How the gateway learns what changes at tailscaled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StatusFeed {
    /// Nothing has been learned yet.
    #[default]
    Pending,
    /// From its IPN bus (LocalAPI `watch-ipn-bus`), as it happens.
    Bus,
    /// From LocalAPI `status`, every second: this tailscaled offers no bus.
    Polling {
        /// Its answer to the question for one.
        why: String,
    },
}

/// This node in its tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// Its MagicDNS name, without the trailing dot.
    pub name: String,
    /// Its addresses in the tailnet.
    pub addresses: Vec<IpAddr>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When its key ends, as tailscaled says it (RFC 3339); none for a key that does not.
    pub key_expiry: Option<String>,
}

impl TailnetState {
    /// Before anything is known.
    pub fn starting() -> Self {
        Self {
            phase: TailnetPhase::Starting,
            fault: None,
            barred: None,
            first_login: true,
            since: None,
            node: None,
            version: None,
            feed: StatusFeed::Pending,
            health: Vec::new(),
            netmap: Arc::default(),
            process: None,
            port: None,
            open_files: None,
        }
    }

    /// Whether a connection would be carried.
    pub fn is_running(&self) -> bool {
        self.phase == TailnetPhase::Running
    }

    /// Why no connection is carried, while none is.
    pub fn fault_now(&self) -> TailnetFault {
        self.fault.clone().unwrap_or(TailnetFault::NotYet { phase: self.phase })
    }

    /// The same in one sentence.
    pub fn fault_sentence(&self) -> String {
        self.fault_now().sentence()
    }

    /// Whether `address` is this node itself: through tailscaled it leads to this host's loopback.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.node.as_ref().is_some_and(|node| node.addresses.contains(&address))
    }
}
