//! The IPN bus of tailscaled, kept open where it can be had.
//!
//! The bus is not among the calls that tailscale keeps stable (tailscale commit 172124da8 names those):
//! which bits of its mask a version takes has changed before and will again, and from 1.102 on it closes on
//! a watcher that lags. So a refused mask is followed by a smaller one, a closed bus is opened again at
//! once, and whoever waits here is told when neither helps.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::{Instant, sleep_until};

use crate::localapi::messages;
use crate::localapi::{IpnBus, LocalApi, LocalApiError};

/// Bits of `ipn.NotifyWatchOpt` (ipn/backend.go).
const INITIAL_STATE: u32 = 1 << 1;
const INITIAL_HEALTH: u32 = 1 << 7;
const PEER_CHANGES: u32 = 1 << 12;
const PEER_PATCHES: u32 = 1 << 15;

/// What is asked for, the most first. Without `PEER_PATCHES` 1.102 sends whole nodes for each endpoint that
/// moves; 1.98 does not know the bit and passes it over. `NotifyRateLimit` (256) is never asked for: it
/// delays news of peers by three seconds up to 1.101, and from 1.102 on a mask with both is refused.
const MASKS: [u32; 4] = [
    INITIAL_STATE | INITIAL_HEALTH | PEER_CHANGES | PEER_PATCHES,
    INITIAL_STATE | INITIAL_HEALTH | PEER_CHANGES,
    INITIAL_STATE | INITIAL_HEALTH,
    0,
];

/// After a refusal of every mask: a tailscaled that was replaced meanwhile may offer a bus.
const DECLINED_RETRY: Duration = Duration::from_secs(60);
/// Between two tries where nobody accepts, or where the bus closes as soon as it is open: twice as long
/// each time, up to the second.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// A bus that lived this long is opened again without a pause.
const LASTING: Duration = Duration::from_secs(1);

/// What happened to the bus.
#[derive(Debug)]
pub(super) enum BusEvent {
    /// It is open: what happens from now on is heard.
    Opened {
        /// Whether changes of the peers are told too.
        peers: bool,
    },
    /// tailscaled said this.
    Notified(Box<messages::BusNotification>),
    /// It ended, or nobody answers; it is tried again without being asked to.
    Closed {
        /// What ended it.
        why: String,
    },
    /// tailscaled offers none, whatever the mask.
    Declined {
        /// Its answer.
        why: String,
    },
}

type OpeningBus = Pin<Box<dyn Future<Output = Result<(IpnBus, u32), LocalApiError>> + Send>>;

enum BusConnection {
    Waiting { until: Instant },
    Opening(OpeningBus),
    Open { bus: IpnBus, since: Instant },
}

/// One watcher of the bus, for one session.
pub(super) struct BusWatcher {
    api: LocalApi,
    connection: BusConnection,
    /// The pause before the next try, if this one does not last.
    retry: Duration,
}

impl BusWatcher {
    pub(super) fn new(api: LocalApi) -> Self {
        let connection = BusConnection::Waiting { until: Instant::now() };
        Self { api, connection, retry: RETRY[0] }
    }

    /// Opens the bus again now, whatever its state: after a pause of the whole machine an old one may
    /// be silent for ever.
    pub(super) fn reopen(&mut self) {
        self.connection = BusConnection::Waiting { until: Instant::now() };
    }

    /// The next thing that happens. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> BusEvent {
        loop {
            match &mut self.connection {
                BusConnection::Waiting { until } => {
                    sleep_until(*until).await;
                    self.connection = BusConnection::Opening(Box::pin(open_bus(self.api.clone())));
                }
                BusConnection::Opening(opening) => match opening.await {
                    Ok((bus, mask)) => {
                        self.connection = BusConnection::Open { bus, since: Instant::now() };
                        return BusEvent::Opened { peers: mask & PEER_CHANGES != 0 };
                    }
                    Err(error) if error.is_declined() => {
                        self.wait_before_retry(DECLINED_RETRY);
                        return BusEvent::Declined { why: error.to_string() };
                    }
                    Err(error) => {
                        self.schedule_retry();
                        return BusEvent::Closed { why: error.to_string() };
                    }
                },
                BusConnection::Open { bus, since } => {
                    let why = match bus.next().await {
                        Ok(Some(notify)) => return BusEvent::Notified(Box::new(notify)),
                        Ok(None) => "tailscaled closed the IPN bus".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    if since.elapsed() >= LASTING {
                        self.retry = RETRY[0];
                        self.wait_before_retry(Duration::ZERO);
                    } else {
                        self.schedule_retry();
                    }
                    return BusEvent::Closed { why };
                }
            }
        }
    }

    fn schedule_retry(&mut self) {
        self.wait_before_retry(self.retry);
        self.retry = (self.retry * 2).min(RETRY[1]);
    }

    fn wait_before_retry(&mut self, pause: Duration) {
        self.connection = BusConnection::Waiting { until: Instant::now() + pause };
    }
}

/// Opens the bus with the first mask that is not refused.
async fn open_bus(api: LocalApi) -> Result<(IpnBus, u32), LocalApiError> {
    let mut refused = None;
    for mask in MASKS {
        match api.watch_bus(mask).await {
            Ok(bus) => return Ok((bus, mask)),
            Err(LocalApiError::Status { path, status: StatusCode::BAD_REQUEST, said }) => {
                tracing::debug!(mask, said, "tailscaled refuses this mask of the IPN bus");
                let status = StatusCode::BAD_REQUEST;
                refused = Some(LocalApiError::Status { path, status, said });
            }
            Err(error) => return Err(error),
        }
    }
    // The list of masks is not empty, so without an answer there is a refusal.
    Err(refused.unwrap_or_else(|| LocalApiError::Late { path: "watch-ipn-bus".to_owned() }))
}
