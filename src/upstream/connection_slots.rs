//! How many upstream connections there may be.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::UpstreamError;

/// The bound on upstream connections, held open and in use alike.
#[derive(Debug)]
pub(super) struct ConnectionSlots(Arc<SlotCount>);

#[derive(Debug)]
struct SlotCount {
    used: AtomicU32,
    /// `u32::MAX`: no bound.
    limit: AtomicU32,
}

/// The right to one upstream connection; dropping it gives the place back.
#[derive(Debug)]
pub struct UpstreamSlot(Arc<SlotCount>);

impl ConnectionSlots {
    /// At most `limit` at once; `None`: no bound.
    pub(super) fn new(limit: Option<u32>) -> Self {
        let limit = AtomicU32::new(limit.unwrap_or(u32::MAX));
        Self(Arc::new(SlotCount { used: AtomicU32::new(0), limit }))
    }

    /// Another bound from now on. Connections over a lower one stay; none is added until they go.
    pub(super) fn set_limit(&self, limit: Option<u32>) {
        self.0.limit.store(limit.unwrap_or(u32::MAX), Relaxed);
    }

    /// One more connection.
    ///
    /// # Errors
    /// [`UpstreamError::Full`] at the bound.
    pub(super) fn take_slot(&self) -> Result<UpstreamSlot, UpstreamError> {
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
        let slots = ConnectionSlots::new(Some(1));
        let first = slots.take_slot().unwrap();
        assert!(matches!(slots.take_slot(), Err(UpstreamError::Full { .. })));
        drop(first);
        assert!(slots.take_slot().is_ok());
        assert!(ConnectionSlots::new(None).take_slot().is_ok());
    }

    #[test]
    fn another_bound_holds_at_once_and_takes_nothing_away() {
        let slots = ConnectionSlots::new(None);
        let held: Vec<_> = (0..3).map(|_| slots.take_slot().unwrap()).collect();
        slots.set_limit(Some(2));
        assert!(slots.take_slot().is_err());
        drop(held);
        let _held = [slots.take_slot().unwrap(), slots.take_slot().unwrap()];
        assert!(slots.take_slot().is_err());
        slots.set_limit(Some(3));
        assert!(slots.take_slot().is_ok());
    }
}
