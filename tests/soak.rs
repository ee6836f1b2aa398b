//! A soak: random sizes, pauses, endings and resets through three gateways (copy, splice, and both in
//! turn), each with a tailscaled of its own that is killed now and then, while the policy changes by
//! reload. Every byte is compared, whole exchanges by their SHA-256 both ways; at the end
//! descriptors, tasks and memory are what they were once it was warm.
//!
//! `SOAK_SECONDS` (12) is its length: `make soak` is an hour. `SOAK_SEED` repeats a run's choices.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests fail loudly")]

#[path = "soak/exchange.rs"]
mod exchange;
#[path = "soak/far_end.rs"]
mod far_end;
#[path = "soak/trouble.rs"]
mod trouble;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tailrace_rig::resource_use::ResourceBounds;
use tailrace_rig::server::Server;
use tailrace_rig::wait::{PATIENCE, eventually, pause};
use tailrace_rig::{FakeTailnet, Gateway};

/// Clients of each gateway.
const CLIENTS: u64 = 4;

/// How a gateway moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Copy,
    Splice,
    /// Switched by every reload.
    Mixed,
}

/// xorshift64: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, who: u64) -> Dice {
        let mut dice = Dice((seed ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        for _ in 0..8 {
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn up_to(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}

/// What clients and trouble share.
#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// Odd while tailscaled is away; changed by each time it was.
    shaken: AtomicU64,
    /// Connections made to the gateway.
    asked: AtomicU64,
    /// Exchanges that were carried whole and compared.
    whole: AtomicU64,
    /// Bytes of those, both ways.
    bytes: AtomicU64,
    /// Exchanges that a tailscaled's end cut short.
    cut: AtomicU64,
}

const BOUNDS: ResourceBounds = ResourceBounds {
    quiet: PATIENCE.saturating_mul(3),
    back: PATIENCE.saturating_mul(2),
    slack: 4 << 20,
};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_and_nothing_is_left() {
    let seconds = number("SOAK_SECONDS").unwrap_or(12);
    // In the suite each run is the same; a longer one looks elsewhere each time.
    let fresh = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
    let seed = number("SOAK_SEED").unwrap_or_else(|| if seconds <= 12 { 7 } else { fresh() });
    eprintln!("soak: {seconds} s, SOAK_SEED={seed}");
    std::thread::scope(|scope| {
        for mode in [Mode::Copy, Mode::Splice, Mode::Mixed] {
            scope.spawn(move || soak(mode, Duration::from_secs(seconds), seed));
        }
    });
}

fn soak(mode: Mode, length: Duration, seed: u64) {
    let far = Server::start(far_end::serve);
    let tailnet = FakeTailnet::with(|script| script.version = "1.104.0".into());
    tailnet.place("100.64.0.1", far.address());
    let mut gateway = tailnet.gateway(|s| {
        // An hour's lines would fill the disk.
        s.set("relay.splice", mode != Mode::Copy).set("log.access", length.as_secs() <= 300);
    });
    let shared = Shared::default();
    // A part of it warms up: threads, the allocator's arenas, one tailscaled that ended.
    stretch(mode, &tailnet, &mut gateway, &shared, length / 4, seed);
    let before = gateway.resource_use(BOUNDS);
    stretch(mode, &tailnet, &mut gateway, &shared, length - length / 4, seed ^ 0x5eed);
    gateway.assert_back_to(&before, BOUNDS);
    assert!(gateway.alive(), "{mode:?}: the gateway has died");
    assert_eq!(gateway.count("internal"), 0, "{mode:?}: an internal error");
    let metrics = gateway.metrics();
    let refused = metrics.value("tailrace_config_reloads_total", &[("result", "error")]);
    assert_eq!(refused, 0.0, "{mode:?}: a reload failed");
    let asked = shared.asked.load(Ordering::Relaxed);
    eventually("each connection is counted once (I3)", PATIENCE, || {
        gateway.metrics().value("tailrace_connections_total", &[]) as u64 == asked
    });
    assert!(!gateway.log().contains("panicked"), "{mode:?}: a panic in the log");
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert!(of(&shared.whole) > 20, "{mode:?}: only {} whole exchanges", of(&shared.whole));
    eprintln!(
        "soak: {mode:?}: {asked} connections, {} whole, {} MB, {} cut by {} ends of tailscaled; before \
         {before:?}, after {:?}",
        of(&shared.whole),
        of(&shared.bytes) / 1_000_000,
        of(&shared.cut),
        of(&shared.shaken) / 2,
        gateway.resource_use(BOUNDS),
    );
}

/// Clients and trouble for so long; everything is quiet again when it ends.
fn stretch(
    mode: Mode,
    tailnet: &FakeTailnet,
    gateway: &mut Gateway,
    shared: &Shared,
    length: Duration,
    seed: u64,
) {
    shared.over.store(false, Ordering::SeqCst);
    let (proxy, end) = (gateway.proxy(), Instant::now() + length);
    std::thread::scope(|scope| {
        for who in 0..CLIENTS {
            let mut dice = Dice::new(seed, who + 10 * mode as u64);
            scope.spawn(move || {
                // A client that panics ends the whole, by `over` and the scope.
                let _guard = EndsAll(shared);
                while !shared.over.load(Ordering::SeqCst) {
                    exchange::one(proxy, shared, &mut dice, seed);
                }
            });
        }
        let (mut dice, mut ends) =
            (Dice::new(seed, 99 + mode as u64), trouble::Ends::within(length));
        let _guard = EndsAll(shared);
        while Instant::now() < end && !shared.over.load(Ordering::SeqCst) {
            trouble::one(mode, tailnet, gateway, shared, (&mut ends, &mut dice));
            pause(Duration::from_millis(50 + dice.up_to(400)));
        }
    });
    eventually("the gateway is ready again", 2 * PATIENCE, || gateway.not_ready().is_none());
}

/// Tells everybody to stop.
struct EndsAll<'a>(&'a Shared);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}
