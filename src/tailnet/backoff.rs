//! When a tailscaled that ended is started again.
#![forbid(unsafe_code)]

use std::time::Duration;

/// The first pause, and the longest (docs/requirements.md, T1).
const PAUSE: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];
/// A life shorter than this is none.
const SHORT: Duration = Duration::from_secs(1);
/// So many short lives in a row are a crash loop (T4).
const LOOP: u32 = 5;
/// The pause in a crash loop.
const LOOP_PAUSE: Duration = Duration::from_secs(60);
/// After a life as long as this, the first pause counts again.
const GOOD: Duration = Duration::from_secs(30);

/// How often it ended lately.
#[derive(Debug)]
pub(super) struct RestartBackoff {
    pause: Duration,
    short_lives: u32,
}

impl RestartBackoff {
    pub(super) fn new() -> Self {
        Self { pause: PAUSE[0], short_lives: 0 }
    }

    /// How long to wait after a life of `lived`; `chance` spreads it by up to a fifth, so that many
    /// gateways do not start theirs together.
    pub(super) fn delay_after(&mut self, lived: Duration, random: u64) -> Duration {
        self.short_lives = if lived < SHORT { self.short_lives + 1 } else { 0 };
        if lived >= GOOD {
            self.pause = PAUSE[0];
        }
        if self.is_loop() {
            return LOOP_PAUSE;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE[1]);
        pause + pause * u32::try_from(random % 200).unwrap_or(0) / 1000
    }

    /// Whether it ends as soon as it starts.
    pub(super) fn is_loop(&self) -> bool {
        self.short_lives >= LOOP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t1_pauses_double_to_ten_seconds() {
        let mut backoff = RestartBackoff::new();
        let lived = Duration::from_secs(2);
        let pauses: Vec<u128> = (0..8).map(|_| backoff.delay_after(lived, 0).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(backoff.delay_after(GOOD, 199).as_millis(), 299);
    }

    #[test]
    fn t4_five_short_lives_are_a_loop_until_a_longer_one() {
        let mut backoff = RestartBackoff::new();
        let pauses: Vec<bool> = (0..6)
            .map(|_| backoff.delay_after(Duration::from_millis(10), 7) == LOOP_PAUSE)
            .collect();
        assert_eq!(pauses, [false, false, false, false, true, true]);
        assert!(backoff.is_loop());
        backoff.delay_after(Duration::from_secs(5), 0);
        assert!(!backoff.is_loop());
    }
}
