//! Waiting for a condition with a deadline. The only place in the tests that may let time pass.
//!
//! A test never sleeps for luck: it names what it waits for, and fails with that name. Where time
//! itself is the subject (a client that pauses), `pause` says so.

use std::time::{Duration, Instant};

/// How long anything that should happen "soon" may take before a test calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Polls until `condition` holds; panics with `what` when `limit` has passed.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, limit, || condition().then_some(()));
}

/// Polls until `look` finds something and returns it; panics with `what` at the deadline.
#[track_caller]
pub fn eventually_some<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    eventually_every(Duration::from_millis(2), what, limit, look)
}

/// The same at another pace, for what costs more to look at.
#[track_caller]
pub fn eventually_every<T>(
    pace: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        pause(pace);
    }
}

/// Polls until `condition` holds; false when `limit` has passed. For tests that say more about why.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        pause(Duration::from_millis(2));
    }
    true
}

/// Lets time pass because the scenario asks for it, never to hope that something is done by then.
pub fn pause(length: Duration) {
    let end = Instant::now() + length;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// The bound a test judges by: a second or less counts five times (noisy, shared cores).
pub fn bound(limit: Duration) -> Duration {
    if limit <= Duration::from_secs(1) { limit * 5 } else { limit }
}

/// Runs `act` and returns its result and how long it took.
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = act();
    (result, start.elapsed())
}

/// Asserts that `took` keeps the (widened, see [`bound`]) `limit`.
#[track_caller]
pub fn assert_within(what: &str, took: Duration, limit: Duration) {
    assert!(
        took <= bound(limit),
        "{what} took {took:?}, allowed {limit:?} (judged at {:?})",
        bound(limit)
    );
}
