//! How far one conversation with tailscaled has come, and what is to be read next.
#![forbid(unsafe_code)]

use tokio::time::Instant;

use super::localapi_session::{PEERS_BESIDE_BUS, STATUS_ALONE};

/// How far one session has come.
pub(super) struct SessionProgress {
    /// The login was begun, or found not to be needed.
    pub(super) begun: bool,
    /// When `status` is read next; the bus is given its time to open first, so that a login is heard from its
    /// beginning.
    pub(super) status_due: Instant,
    /// When the peers and names are read next.
    pub(super) peers_due: Instant,
    /// Whether the bus is open, and whether it tells of peers.
    pub(super) bus: Option<BusCoverage>,
    /// When tailscaled last answered anything.
    pub(super) answered: Instant,
    /// When the login under way began.
    pub(super) logging_in: Option<Instant>,
    /// tailscaled came up with the node's identity of an earlier life: no key was used.
    pub(super) resumed: bool,
    /// The text of the health warning `login-state`.
    pub(super) login_warning: Option<String>,
    /// `dns-config` was found to be missing, and that was said.
    pub(super) without_dns_config: bool,
}

/// What an open bus tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BusCoverage {
    pub(super) peers: bool,
}

impl SessionProgress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: false,
            status_due: now + STATUS_ALONE,
            peers_due: now + PEERS_BESIDE_BUS,
            bus: None,
            answered: now,
            logging_in: None,
            resumed: false,
            login_warning: None,
            without_dns_config: false,
        }
    }

    pub(super) fn bus_tells_peers(&self) -> bool {
        self.bus.is_some_and(|bus| bus.peers)
    }
}
