//! What goes on meanwhile: reloads with another policy, and tailscaled's sudden end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Dice, Mode, Shared};
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{FakeTailnet, Gateway};

/// After a life this long the next start comes after the shortest pause again (and then some).
const GOOD_LIFE: Duration = Duration::from_secs(32);

/// When tailscaled is ended.
pub(crate) struct Ends {
    next: Instant,
}

impl Ends {
    /// Once early in a stretch of that length, then now and then.
    pub(crate) fn within(length: Duration) -> Ends {
        Ends { next: Instant::now() + (length / 3).min(GOOD_LIFE) }
    }
}

/// One trouble: tailscaled's end when its time has come, else a reload.
pub(crate) fn one(
    mode: Mode,
    tailnet: &FakeTailnet,
    gateway: &mut Gateway,
    shared: &Shared,
    (ends, dice): (&mut Ends, &mut Dice),
) {
    if Instant::now() < ends.next {
        return reload(mode, gateway, dice);
    }
    end_tailscaled(tailnet, gateway, shared);
    ends.next = Instant::now() + GOOD_LIFE + Duration::from_millis(dice.up_to(20_000));
}

/// Policies that all allow what the clients exchange bytes with.
fn reload(mode: Mode, gateway: &mut Gateway, dice: &mut Dice) {
    let setup = gateway.setup();
    let suffixes = [vec![], vec![".ts.net"], vec![".ts.net", ".example.org"]];
    let suffixes = suffixes[dice.up_to(3) as usize].clone();
    let policy = match (suffixes.is_empty(), dice.up_to(3)) {
        (true, _) => "log",
        (false, 0) => "off",
        (false, _) => "enforce",
    };
    setup.set("policy.mode", policy).set("policy.allowed_host_suffixes", suffixes);
    if mode == Mode::Mixed {
        setup.set("relay.splice", dice.up_to(2) == 0);
    }
    gateway.reload();
}

/// SIGKILL; the next one is up before anything else happens.
fn end_tailscaled(tailnet: &FakeTailnet, gateway: &Gateway, shared: &Shared) {
    let starts = tailnet.starts().len();
    shared.shaken.fetch_add(1, Ordering::SeqCst);
    tailnet.kill(Signal::KILL);
    // A few short lives make the pause before the next one ten seconds.
    tailnet.wait_start_within(starts + 1, 3 * PATIENCE);
    eventually("ready after tailscaled's end", 2 * PATIENCE, || gateway.not_ready().is_none());
    shared.shaken.fetch_add(1, Ordering::SeqCst);
}
