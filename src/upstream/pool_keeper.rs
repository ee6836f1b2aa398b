//! Keeping the pool full and the health known, in the background and at a measured pace.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::endpoint::EndpointState;
use super::handshake::{HandshakeError, UpstreamHandshake};
use super::pool::GreetedConnection;
use super::{Kind, Upstream, UpstreamError};
use crate::localapi::dial;
use crate::sys::Stream;

/// Between two looks at the connections held.
const TICK: Duration = Duration::from_secs(1);
/// First and longest pause after a failure: a dead upstream must not make a storm.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// When the next connection may be opened.
struct RetryPace {
    pause: Duration,
    not_before: Instant,
}

impl Upstream {
    /// Keeps `settings.pool` greeted connections open where the upstream is, and looks for one that
    /// is not known to be up. Ends at once with [`Kind::Direct`], else never.
    pub async fn keep_pool(self: Arc<Self>) {
        if self.settings.kind == Kind::Direct {
            return;
        }
        let mut pointed = self.point.subscribe();
        loop {
            let point = pointed.borrow_and_update().clone();
            let keep = async {
                match point {
                    Some(point) => self.maintain(point).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = keep => {}
                changed = pointed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Never ends by itself.
    async fn maintain(self: &Arc<Self>, point: Arc<EndpointState>) {
        let mut fills = JoinSet::new();
        let mut pace = RetryPace { pause: PAUSE[0], not_before: Instant::now() };
        let mut prune_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= prune_at {
                let patience = self.settings.local_timeout;
                point.pool.close_stale(now, patience, &point.health); // not at every connection taken
                prune_at = now + TICK;
            }
            if now >= pace.not_before {
                self.fill_up(&point, &mut fills, &mut pace);
            }
            point.pool.set_filling(fills.len());
            tokio::select! {
                Some(filled) = fills.join_next() => pace.note_result(filled.is_ok_and(|good| good)),
                () = point.pool.wait_until_taken() => {}
                () = point.health.wait_until_lost() => {}
                () = self.next_look(&pace) => {}
            }
        }
    }

    /// Opens what is missing. One that needs nobody's answer is open at once, others get a task each.
    fn fill_up(
        self: &Arc<Self>,
        point: &Arc<EndpointState>,
        fills: &mut JoinSet<bool>,
        pace: &mut RetryPace,
    ) {
        while fills.len() < self.fills_wanted(point, fills.len()) {
            let mut fill = Box::pin(Arc::clone(self).fill_one(Arc::clone(point)));
            match (&mut fill).now_or_never() {
                Some(good) => pace.note_result(good),
                None => drop(fills.spawn(fill)),
            }
            if Instant::now() < pace.not_before {
                return;
            }
        }
    }

    /// How many connections are to be held.
    pub(super) fn pool_size(&self) -> usize {
        match self.settings.kind {
            Kind::Tailscaled | Kind::Socks5 => self.settings.pool as usize,
            Kind::LocalApi | Kind::Direct => 0,
        }
    }

    /// How many fills should be under way: all that are missing, but one while the upstream is not
    /// known to be up.
    fn fills_wanted(&self, point: &EndpointState, filling: usize) -> usize {
        let missing = self.pool_size().saturating_sub(point.pool.counts().0);
        if point.health.is_up() { missing } else { filling.max(1) }
    }

    /// Waits for the next moment at which something may be due.
    async fn next_look(&self, pace: &RetryPace) {
        let now = Instant::now();
        if now < pace.not_before {
            sleep_until(pace.not_before).await;
        } else if self.pool_size() > 0 {
            sleep_until(now + TICK).await;
        } else {
            std::future::pending().await
        }
    }

    /// Opens and greets one connection; true if the upstream took it.
    async fn fill_one(self: Arc<Self>, point: Arc<EndpointState>) -> bool {
        match self.open_greeted(&point).await {
            Ok(greeted) => {
                if point.pool.counts().0 < self.pool_size() {
                    greeted.into_iter().for_each(|greeted| point.pool.put_back(greeted));
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no upstream connection for the pool");
                false
            }
        }
    }

    async fn open_greeted(
        &self,
        point: &EndpointState,
    ) -> Result<Option<GreetedConnection>, UpstreamError> {
        let slot = self.slots.take_slot()?;
        // Known to be up, it is not waited for: its answer is there when the connection is used.
        let answered = !point.health.is_up();
        let stream = self.greet_in_time(point, answered).await?;
        Ok(stream.map(|stream| GreetedConnection { stream, slot, since: Instant::now(), answered }))
    }

    /// Asks the upstream for a sign of life over a connection of its own, beside the bound on them:
    /// one SOCKS5 greeting, or LocalAPI's status. Nothing to ask with [`Kind::Direct`].
    ///
    /// # Errors
    /// [`UpstreamError`], at the latest after `local_timeout`.
    pub async fn probe(&self) -> Result<(), UpstreamError> {
        match self.settings.kind {
            Kind::Direct => Ok(()),
            _ => self.greet_in_time(&*self.current_endpoint()?, true).await.map(drop),
        }
    }

    /// Connects and greets, or asks LocalAPI, within `local_timeout`; with `hear` the upstream is to answer
    /// too. The connection, if it is of further use.
    async fn greet_in_time(
        &self,
        point: &EndpointState,
        hear: bool,
    ) -> Result<Option<Stream>, UpstreamError> {
        let after = self.settings.local_timeout;
        let late = || UpstreamError::LocalTimeout { endpoint: point.endpoint.clone(), after };
        let hail = std::pin::pin!(self.connect_and_greet(point, hear));
        let heard = timeout(after, hail).await.unwrap_or_else(|_| Err(late()));
        match &heard {
            Ok(_) if hear => point.health.note_alive(),
            Ok(_) => {}
            Err(UpstreamError::LocalTimeout { .. }) => point.health.note_missed(),
            Err(UpstreamError::Full { .. }) => {}
            Err(error) => point.health.note_down(&error.to_string()),
        }
        heard
    }

    async fn connect_and_greet(
        &self,
        point: &EndpointState,
        hear: bool,
    ) -> Result<Option<Stream>, UpstreamError> {
        let stream = self.dial_place(&point.endpoint).await?;
        let mut talk = UpstreamHandshake::new(&stream, &point.endpoint);
        match self.settings.kind {
            Kind::LocalApi => {
                talk.send_bytes(&dial::status_request())
                    .await
                    .map_err(HandshakeError::into_error)?;
                talk.read_status().await.map_err(HandshakeError::into_error)?;
                Ok(None)
            }
            _ => {
                talk.send_greeting(&[]).await.map_err(HandshakeError::into_error)?;
                if hear {
                    talk.read_method().await.map_err(HandshakeError::into_error)?;
                }
                Ok(Some(stream))
            }
        }
    }
}

impl RetryPace {
    fn note_result(&mut self, good: bool) {
        let now = Instant::now();
        if good {
            *self = Self { pause: PAUSE[0], not_before: now };
        } else if now >= self.not_before {
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE[1]);
        }
    }
}
