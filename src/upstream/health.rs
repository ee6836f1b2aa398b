//! Whether the upstream is known to be up.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use tokio::sync::Notify;

/// Misses in a row after which an upstream that does refuse nothing is taken to hang.
const MISSES: u32 = 3;

/// What is known of the upstream. Starts as "not known to be up".
#[derive(Debug, Default)]
pub(super) struct UpstreamHealth {
    up: AtomicBool,
    misses: AtomicU32,
    lost: Notify,
}

impl UpstreamHealth {
    /// It greeted.
    pub(super) fn note_alive(&self) {
        self.misses.store(0, Relaxed);
        if !self.up.swap(true, Relaxed) {
            tracing::info!("upstream is up");
        }
    }

    /// It did not answer in time.
    pub(super) fn note_missed(&self) {
        if self.misses.fetch_add(1, Relaxed) + 1 >= MISSES {
            self.note_down("it did not answer three times in a row");
        }
    }

    /// It takes no connections, or is not what it should be.
    pub(super) fn note_down(&self, why: &str) {
        if self.up.swap(false, Relaxed) {
            tracing::warn!(why, "upstream is down");
            self.lost.notify_one();
        }
    }

    /// Whether a connection would be carried, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Waits until it is down after having been up.
    pub(super) async fn wait_until_lost(&self) {
        self.lost.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u3_three_misses_in_a_row_are_down_and_one_greeting_is_up() {
        let health = UpstreamHealth::default();
        assert!(!health.is_up());
        health.note_alive();
        health.note_missed();
        health.note_missed();
        assert!(health.is_up());
        health.note_alive();
        health.note_missed();
        health.note_missed();
        assert!(health.is_up());
        health.note_missed();
        assert!(!health.is_up());
    }
}
