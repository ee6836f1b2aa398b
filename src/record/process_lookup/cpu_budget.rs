//! How much naming callers may cost: a share of one processor, and a burst of it at once.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// One part in this many of one processor's time.
const SHARE: u32 = 25;
/// What may be spent at once after a quiet time.
const BURST: Duration = Duration::from_millis(25);

/// Processor time that may be spent. It may fall below zero, and is then waited for.
#[derive(Debug)]
pub(super) struct CpuBudget {
    credit: Duration,
    debt: Duration,
    counted: Instant,
}

impl CpuBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { credit: BURST, debt: Duration::ZERO, counted: now }
    }

    /// Takes down what was spent until `now`.
    pub(super) fn charge_work(&mut self, spent: Duration, now: Instant) {
        self.refill(now);
        self.debt += spent.saturating_sub(self.credit);
        self.credit = self.credit.saturating_sub(spent);
    }

    /// How long to wait until something may be spent again.
    pub(super) fn wait_time(&mut self, now: Instant) -> Duration {
        self.refill(now);
        self.debt * SHARE
    }

    fn refill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.counted) / SHARE;
        self.counted = now;
        self.credit = (self.credit + earned.saturating_sub(self.debt)).min(BURST);
        self.debt = self.debt.saturating_sub(earned);
    }
}

/// Processor time this thread has used.
pub(super) fn cpu_spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_after_it_a_share_is_spent() {
        let (begun, ms) = (Instant::now(), Duration::from_millis);
        let mut budget = CpuBudget::new(begun);
        budget.charge_work(BURST, begun);
        assert_eq!(budget.wait_time(begun), Duration::ZERO);
        budget.charge_work(ms(2), begun);
        assert_eq!(budget.wait_time(begun), ms(2) * SHARE);
        assert_eq!(budget.wait_time(begun + ms(25)), ms(25));
        assert_eq!(budget.wait_time(begun + ms(50)), Duration::ZERO);
        let mut now = begun + ms(50);
        let mut spent = Duration::ZERO;
        for _ in 0..1000 {
            budget.charge_work(ms(3), now);
            spent += ms(3);
            now += budget.wait_time(now);
        }
        assert!(spent <= (now - begun) / SHARE, "{spent:?} in {:?}", now - begun);
        // A long rest earns no more than a burst.
        let late = now + Duration::from_secs(3600);
        budget.charge_work(BURST + ms(1), late);
        assert_eq!(budget.wait_time(late), ms(1) * SHARE);
    }
}
