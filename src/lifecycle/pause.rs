//! Notices that this process, or the whole machine, did not run for a while: a sandbox that was paused, a
//! machine that was suspended or started from a snapshot.
//!
//! Two clocks tell. A stopped process (SIGSTOP, a frozen cgroup) finds its monotonic clock far ahead of the
//! tick it waited for. A suspended or restored machine finds its monotonic clock where it was
//! (clock_gettime(2), `CLOCK_MONOTONIC` does not count suspend) and the wall clock far ahead of it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at the clocks.
const TICK: Duration = Duration::from_secs(1);
/// Less is a busy machine, or a clock that is set right.
const LEAST: Duration = Duration::from_secs(3);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// How much time was lost since `before`, if any: more than `expected` and [`LEAST`] went by on
    /// either clock. A wall clock that was set back says nothing.
    fn lost_since(self, before: Self, expected: Duration) -> Option<Duration> {
        let stopped = self.monotonic.saturating_duration_since(before.monotonic);
        let slept = self.wall.duration_since(before.wall).unwrap_or_default();
        let lost = stopped.max(slept).saturating_sub(expected);
        (lost >= LEAST).then_some(lost)
    }
}

/// Looks at the clocks every second, for ever; `lost` is called with how much time was lost.
pub async fn watch_for_pauses(mut lost: impl FnMut(Duration)) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Clocks::read();
    loop {
        tick.tick().await;
        let now = Clocks::read();
        if let Some(time) = now.lost_since(before, TICK) {
            lost(time);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v9_time_is_lost_on_either_clock() {
        let before = Clocks::read();
        let after = |monotonic: u64, wall: i64| {
            let shifted = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 { before.wall - shifted } else { before.wall + shifted };
            let now = Clocks { monotonic: before.monotonic + Duration::from_secs(monotonic), wall };
            now.lost_since(before, TICK).map(|lost| lost.as_secs())
        };
        assert_eq!(after(1, 1), None);
        assert_eq!(after(3, 3), None, "a busy machine");
        assert_eq!(after(91, 91), Some(90), "stopped");
        assert_eq!(after(1, 91), Some(90), "suspended, or restored from a snapshot");
        assert_eq!(after(1, -3600), None, "set back");
        assert_eq!(after(91, -3600), Some(90));
    }
}
