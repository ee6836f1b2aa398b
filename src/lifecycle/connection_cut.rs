//! Ending a relay from outside: the end of a drain, or a policy that now says no.
//!
//! A cut relay ends by a reset both ways. The first reason given stands.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Why a relay is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutReason {
    /// The drain is over.
    Drained,
    /// A reload of the policy refuses the target.
    Denied,
}

/// A handle to cut the one task that waits on it.
#[derive(Debug, Default)]
pub struct Cut {
    reason: AtomicU8,
    waits: AtomicWaker, // an idle connection waits here: a list of waiters is larger
}

impl Cut {
    /// A handle nobody has used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts. Only the first call's reason counts.
    pub fn cut(&self, reason: CutReason) {
        let code = match reason {
            CutReason::Drained => 1,
            CutReason::Denied => 2,
        };
        let _first_stands =
            self.reason.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.waits.wake();
    }

    /// The reason, once cut.
    pub fn reason(&self) -> Option<CutReason> {
        match self.reason.load(Ordering::Acquire) {
            0 => None,
            1 => Some(CutReason::Drained),
            _ => Some(CutReason::Denied),
        }
    }

    /// Waits for the cut; at once if it has happened. Of several tasks that wait only the last is woken.
    pub fn wait(&self) -> impl Future<Output = CutReason> + Send {
        poll_fn(|cx| self.poll_wait(cx))
    }

    /// The same, for who polls by hand.
    pub fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<CutReason> {
        self.waits.register(cx.waker()); // first: a cut between the two finds it
        self.reason().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stands_and_late_waiters_see_it() {
        let cut = std::sync::Arc::new(Cut::new());
        let early = tokio::spawn({
            let cut = cut.clone();
            async move { cut.wait().await }
        });
        tokio::task::yield_now().await;
        cut.cut(CutReason::Denied);
        cut.cut(CutReason::Drained);
        assert_eq!(early.await.unwrap(), CutReason::Denied);
        assert_eq!(cut.wait().await, CutReason::Denied);
    }
}
