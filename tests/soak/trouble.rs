//! What goes on meanwhile: reloads with another policy, and tailscaled's sudden end.

use std::sync::atomic::Ordering;

use rustix::process::Signal;

use super::rig::wait::{PATIENCE, eventually};
use super::rig::{Gateway, Managed};
use super::{Dice, Mode, Shared};

/// One trouble of the dice's choice.
pub(crate) fn one(
    mode: Mode,
    tailnet: &Managed,
    gateway: &mut Gateway,
    shared: &Shared,
    dice: &mut Dice,
) {
    match dice.up_to(10) {
        0 => end_tailscaled(tailnet, gateway, shared),
        _ => reload(mode, gateway, dice),
    }
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
fn end_tailscaled(tailnet: &Managed, gateway: &Gateway, shared: &Shared) {
    let starts = tailnet.starts().len();
    shared.shaken.fetch_add(1, Ordering::SeqCst);
    tailnet.kill(Signal::KILL);
    tailnet.wait_start(starts + 1);
    eventually("ready after tailscaled's end", 2 * PATIENCE, || gateway.not_ready().is_none());
    shared.shaken.fetch_add(1, Ordering::SeqCst);
}
