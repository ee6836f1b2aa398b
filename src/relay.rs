//! The relay: bytes both ways between two sockets, exact, until the connection ends.
//!
//! It knows sockets, pipes and time; no names, no protocols, no policy.
#![forbid(unsafe_code)]

mod direction;
mod driver;
mod pipe_pool;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::lifecycle::connection_cut::{Cut, CutReason};
use crate::sys::{Exiting, Stream};

pub use crate::labels::HalfClose;
pub use pipe_pool::PipePool;

/// Limits of a relay.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// No byte either way for this long ends the relay.
    pub idle: Duration,
    /// The same once one side has sent its FIN.
    pub half_close_timeout: Duration,
    /// Whether bulky directions may splice; read live.
    pub splice: Arc<AtomicBool>,
    /// The process behind the upstream, where it is ours: the kernel sends FIN in the name of one
    /// that was killed, and that is no end of a stream.
    pub upstream_process: Arc<ArcSwapOption<Exiting>>,
}

/// Bytes of one connection, counted when the receiver's socket took them. A reset takes back what
/// the receiver had not acknowledged by then.
#[derive(Debug, Default)]
pub struct Meter {
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    /// Bytes the upstream's socket took.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes the client's socket took.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    fn take_back(&self, up: u64, down: u64) {
        self.up.fetch_sub(up.min(self.up()), Ordering::Relaxed);
        self.down.fetch_sub(down.min(self.down()), Ordering::Relaxed);
    }
}

impl Meter {
    /// Counts bytes the upstream's socket took.
    pub fn add_up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes the client's socket took.
    pub fn add_down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Looks at a client's first bytes before any of them goes on.
pub trait StreamInspector: Send {
    /// Judges all that has come so far. `over`: nothing more comes, or not in time.
    fn inspect(&mut self, bytes: &[u8], over: bool) -> InspectionVerdict;
}

/// What an inspector says of the bytes it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectionVerdict {
    /// Not enough to judge by. Once nothing more comes, this counts as `Pass`.
    More,
    /// Let them go on, and all that follows.
    Pass,
    /// End the relay; none of them goes on.
    Refuse,
}

/// How long a client may take over the bytes an inspector wants to see, from the first of them on.
pub const INSPECTION_TIME: Duration = Duration::from_secs(3);

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEnd {
    /// FIN from both, everything delivered.
    FinFin,
    /// The client's connection broke.
    ClientRst,
    /// The upstream's connection broke.
    UpstreamRst,
    /// No byte moved for `RelaySettings::idle`, and neither side had sent FIN.
    Idle,
    /// Silence after one FIN.
    HalfCloseIdle,
    /// The inspector refused the client's first bytes. Its socket is left as it is, to be told why.
    Refused,
    /// The drain ended, or a reload of the policy refuses the target; both sockets are reset.
    Cut(CutReason),
}

/// What a relay carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelaySummary {
    /// Bytes the upstream got; after a reset, only those it acknowledged.
    pub up: u64,
    /// Bytes the client got; the same.
    pub down: u64,
    /// Bytes read from one side that the other did not get, or did not acknowledge.
    pub lost: u64,
    /// What ended the relay; the connection's outcome follows from it.
    pub ended: RelayEnd,
}

/// Carries bytes both ways until an end. On return each socket is shut or marked for reset as the
/// end asks; dropping them completes it. `early_up` and `early_down` were read beforehand and are
/// sent first. An `inspector` holds up what the client says until it has seen enough; the other direction
/// does not wait for it.
#[allow(clippy::too_many_arguments)] // the two sides, and what the connection shares with others
pub fn relay_streams<'a>(
    client: &'a Stream,
    upstream: &'a Stream,
    early_up: Bytes,
    early_down: Bytes,
    inspector: Option<&'a mut dyn StreamInspector>,
    half_close: HalfClose,
    settings: &'a RelaySettings,
    pipes: &'a Arc<PipePool>,
    meter: &'a Meter,
    cut: &'a Cut,
) -> impl Future<Output = RelaySummary> + Send + 'a {
    let process = settings.upstream_process.load_full();
    let context =
        driver::RelayContext { client, upstream, half_close, settings, process, pipes, meter };
    // Made before the future is: that would keep the arguments too, for as long as the relay lives.
    let mut relay = driver::RelayDriver::new(context, early_up, early_down, inspector);
    async move { relay.run(cut).await }
}
