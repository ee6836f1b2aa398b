//! How many upstream connections there may be.
#![forbid(unsafe_code)]

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::UpstreamError;

/// The bound on upstream connections, held open and in use alike.
#[derive(Debug)]
pub(super) struct Slots(Option<Arc<Semaphore>>);

/// The right to one upstream connection; dropping it gives the place back.
#[derive(Debug)]
pub struct UpstreamSlot {
    _place: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// At most `limit` at once; `None`: no bound.
    pub(super) fn new(limit: Option<u32>) -> Self {
        Self(limit.map(|limit| Arc::new(Semaphore::new(limit as usize))))
    }

    /// One more connection.
    ///
    /// # Errors
    /// [`UpstreamError::Full`] at the bound.
    pub(super) fn take(&self) -> Result<UpstreamSlot, UpstreamError> {
        let place = self.0.as_ref().map(|places| Arc::clone(places).try_acquire_owned());
        match place.transpose() {
            Ok(place) => Ok(UpstreamSlot { _place: place }),
            Err(_none_left) => Err(UpstreamError::Full { what: "upstream.max_connections" }),
        }
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
}
