//! Keeping the pool full and the health known, in the background and at a measured pace.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::exchange::Talk;
use super::{Broken, Greeted, Kind, Upstream, UpstreamError};

/// Between two looks at the connections held.
const TICK: Duration = Duration::from_secs(1);
/// First and longest pause after a failure: a dead upstream must not make a storm.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// When the next connection may be opened.
struct Pace {
    pause: Duration,
    not_before: Instant,
}

impl Upstream {
    /// Keeps `settings.pool` greeted connections open, and looks for an upstream that is not known
    /// to be up. Never ends with [`Kind::Socks5`]; ends at once with [`Kind::Direct`].
    pub async fn keep_pool(self: Arc<Self>) {
        let Kind::Socks5(upstream) = self.settings.kind else { return };
        let mut fills = JoinSet::new();
        let mut pace = Pace { pause: PAUSE[0], not_before: Instant::now() };
        let mut prune_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= prune_at {
                self.pool.prune(now); // a system call for each: not at every connection taken
                prune_at = now + TICK;
            }
            if now >= pace.not_before {
                for _ in fills.len()..self.wanted(fills.len()) {
                    fills.spawn(Arc::clone(&self).fill(upstream));
                }
            }
            self.pool.set_filling(fills.len());
            tokio::select! {
                Some(filled) = fills.join_next() => pace.note(filled.is_ok_and(|good| good)),
                () = self.pool.taken() => {}
                () = self.health.lost() => {}
                () = self.next_look(&pace) => {}
            }
        }
    }

    /// How many fills should be under way: all that are missing, but one while the upstream is not
    /// known to be up.
    fn wanted(&self, filling: usize) -> usize {
        let missing = (self.settings.pool as usize).saturating_sub(self.pool.counts().0);
        if self.is_up() { missing } else { filling.max(1) }
    }

    /// Waits for the next moment at which something may be due.
    async fn next_look(&self, pace: &Pace) {
        let now = Instant::now();
        if now < pace.not_before {
            sleep_until(pace.not_before).await;
        } else if self.settings.pool > 0 {
            sleep_until(now + TICK).await;
        } else {
            std::future::pending().await
        }
    }

    /// Opens and greets one connection; true if the upstream greeted.
    async fn fill(self: Arc<Self>, upstream: SocketAddr) -> bool {
        let greeted = timeout(self.settings.local_timeout, self.greeted(upstream)).await;
        match greeted {
            Ok(Ok(greeted)) => {
                self.health.alive();
                if self.pool.counts().0 < self.settings.pool as usize {
                    self.pool.put(greeted);
                }
                true
            }
            Ok(Err(error)) => {
                if matches!(error, UpstreamError::Protocol { .. } | UpstreamError::Closed { .. }) {
                    self.health.down(&error.to_string());
                }
                tracing::debug!(%error, "no upstream connection for the pool");
                false
            }
            Err(_elapsed) => {
                self.health.miss();
                false
            }
        }
    }

    async fn greeted(&self, upstream: SocketAddr) -> Result<Greeted, UpstreamError> {
        let slot = self.slots.take()?;
        let stream = self.dial_upstream(upstream).await?;
        let mut talk = Talk::new(&stream, upstream);
        talk.greet(&[]).await.map_err(Broken::into_error)?;
        talk.method().await.map_err(Broken::into_error)?;
        Ok(Greeted { stream, slot, since: Instant::now() })
    }
}

impl Pace {
    fn note(&mut self, good: bool) {
        let now = Instant::now();
        if good {
            *self = Self { pause: PAUSE[0], not_before: now };
        } else if now >= self.not_before {
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE[1]);
        }
    }
}
