//! How many upstream connections there may be.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::UpstreamError;

/// The bound on upstream connections, held open and in use alike.
#[derive(Debug)]
pub(super) struct Slots(Arc<SlotCount>);

#[derive(Debug)]
struct SlotCount {
    used: AtomicU32,
    /// `u32::MAX`: no bound.
    limit: AtomicU32,
}

/// The right to one upstream connection; dropping it gives the place back.
#[derive(Debug)]
pub struct UpstreamSlot(Arc<SlotCount>);

impl Slots {
    /// At most `limit` at once; `None`: no bound.
    pub(super) fn new(limit: Option<u32>) -> Self {
        let limit = AtomicU32::new(limit.unwrap_or(u32::MAX));
        Self(Arc::new(SlotCount { used: AtomicU32::new(0), limit }))
    }

    /// Another bound from now on. Connections over a lower one stay; none is added until they go.
    pub(super) fn bound(&self, limit: Option<u32>) {
        self.0.limit.store(limit.unwrap_or(u32::MAX), Relaxed);
    }

    /// One more connection.
    ///
    /// # Errors
    /// [`UpstreamError::Full`] at the bound.
    pub(super) fn take(&self) -> Result<UpstreamSlot, UpstreamError> {
        let limit = self.0.limit.load(Relaxed);
        let more = |used: u32| (used < limit).then(|| used + 1);
        match self.0.used.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(UpstreamSlot(Arc::clone(&self.0))),
            Err(_) => Err(UpstreamError::Full { what: "upstream.max_connections" }),
        }
    }
}

impl Drop for UpstreamSlot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let slots = Slots::new(Some(1));
        let first = slots.take().unwrap();
        assert!(matches!(slots.take(), Err(UpstreamError::Full { .. })));
        drop(first);
        assert!(slots.take().is_ok());
        assert!(Slots::new(None).take().is_ok());
    }

    #[test]
    fn another_bound_holds_at_once_and_takes_nothing_away() {
        let slots = Slots::new(None);
        let held: Vec<_> = (0..3).map(|_| slots.take().unwrap()).collect();
        slots.bound(Some(2));
        assert!(slots.take().is_err());
        drop(held);
        let _held = [slots.take().unwrap(), slots.take().unwrap()];
        assert!(slots.take().is_err());
        slots.bound(Some(3));
        assert!(slots.take().is_ok());
    }
}
