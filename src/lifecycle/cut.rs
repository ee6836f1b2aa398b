//! Ending a relay from outside: the end of a drain, or a policy that now says no.
//!
//! A cut relay ends by a reset both ways. The first reason given stands.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Why a relay is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutReason {
    /// The drain is over.
    Drained,
    /// A reload of the policy refuses the target.
    Denied,
}

/// A handle to cut what waits on it.
#[derive(Debug, Default)]
pub struct Cut {
    reason: AtomicU8,
    notify: Notify,
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
        self.notify.notify_waiters();
    }

    /// The reason, once cut.
    pub fn reason(&self) -> Option<CutReason> {
        match self.reason.load(Ordering::Acquire) {
            0 => None,
            1 => Some(CutReason::Drained),
            _ => Some(CutReason::Denied),
        }
    }

    /// Waits for the cut; at once if it has happened.
    pub async fn wait(&self) -> CutReason {
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if let Some(reason) = self.reason() {
                return reason;
            }
            notified.await;
        }
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
