//! Draining by ownership: every connection holds a [`Guard`]; the end waits for the last to drop.
#![forbid(unsafe_code)]

use std::sync::Arc;

use tokio::sync::watch;

/// How far the shutdown has come. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// New connections are accepted; no shutdown was asked for.
    Serving,
    /// No new work; what runs may finish.
    Draining,
    /// What still runs is cut.
    Forced,
}

/// The gateway's own end of the drain.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
}

/// A connection's share: while one is held, the drain waits.
#[derive(Debug)]
pub struct Guard {
    phase: watch::Receiver<Phase>,
}

impl Drain {
    /// A gateway that serves.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { phase: watch::Sender::new(Phase::Serving) })
    }

    /// A share for one connection.
    pub fn guard(&self) -> Guard {
        Guard { phase: self.phase.subscribe() }
    }

    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            *now = phase.max(*now);
            forward
        });
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Ends when no guard is held any more.
    pub async fn finished(&self) {
        self.phase.closed().await;
    }
}

impl Guard {
    /// How far the shutdown has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Ends when the shutdown has come to `phase`, or past it.
    pub async fn reached(&self, phase: Phase) {
        let mut watch = self.phase.clone();
        // The sender is gone only when the gateway is: then every phase is reached.
        let _gone = watch.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drain_waits_for_the_last_guard_and_never_goes_back() {
        let drain = Drain::new();
        let guard = drain.guard();
        drain.advance(Phase::Forced);
        drain.advance(Phase::Draining);
        guard.reached(Phase::Forced).await;
        assert_eq!(drain.phase(), Phase::Forced);
        let mut finished = Box::pin(drain.finished());
        assert!(futures_pending(&mut finished).await);
        drop(guard);
        finished.await;
    }

    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
        })
        .await
    }
}
