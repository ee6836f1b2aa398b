//! What a version of tailscaled speaks, as far as versions differ: ipn/backend.go and ipn/ipnlocal of v1.98.9
//! and v1.102.3. Of what is newer only this much is known: 1.104.7 takes neither `RATE_LIMIT` nor `NETMAP`.

/// Bits of `watch-ipn-bus?mask=` (`ipn.NotifyWatchOpt`). `HEALTH` alone sends nothing at first.
pub(super) const STATE: u64 = 1 << 1;
pub(super) const PREFS: u64 = 1 << 2;
pub(super) const NETMAP: u64 = 1 << 3;
const DRIVE_SHARES: u64 = 1 << 5;
pub(super) const HEALTH: u64 = 1 << 7;
const RATE_LIMIT: u64 = 1 << 8;
const EXIT_NODE: u64 = 1 << 10;
const CLIENT_VERSION: u64 = 1 << 11;
pub(super) const PEER_CHANGES: u64 = 1 << 12;
const NO_NETMAP: u64 = 1 << 13;
pub(super) const STATUS: u64 = 1 << 14;
pub(super) const PEER_PATCHES: u64 = 1 << 15;
const IN_PROCESS: u64 = 1 << 16;
pub(super) const POLICY: u64 = 1 << 17;
const WIREGUARD: u64 = 1 << 18;

/// Those that may not stand beside `RATE_LIMIT`, with the names of their String method.
const DELTAS: [(u64, &str); 4] = [
    (PEER_CHANGES, "ipn.NotifyPeerChanges"),
    (NO_NETMAP, "ipn.NotifyNoNetMap"),
    (STATUS, "ipn.NotifyInitialStatus"),
    (PEER_PATCHES, "ipn.NotifyPeerPatches"),
];

/// Read from a version's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dialect(u32, u32, u32);

impl Dialect {
    /// `1.98.9-ERR-BuildInfo` is 1.98.9.
    pub(super) fn of(version: &str) -> Dialect {
        let numbers = version.trim_start_matches('v').split(['.', '-']);
        let mut numbers = numbers.map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Dialect(next(), next(), next())
    }

    /// Whether its SOCKS5 port passes a FIN on (tailscale/tailscale#21359).
    pub(super) fn keeps_half_close(self) -> bool {
        self >= Dialect(1, 104, 0)
    }

    /// Whether the bus tells of peers by `PeersChanged` and its like, and closes on a watcher that lags.
    pub(super) fn has_deltas(self) -> bool {
        self >= Dialect(1, 102, 0)
    }

    /// What it has against a mask (`ipn.ValidateNotifyWatchOpt`, `serveWatchIPNBus`).
    pub(super) fn refuses(self, mask: u64) -> Option<String> {
        if self >= Dialect(1, 104, 7) && mask & (RATE_LIMIT | NETMAP) != 0 {
            // Its words are not known here.
            return Some("unsupported IPN bus subscription bits".to_owned());
        }
        if !self.has_deltas() {
            return None;
        }
        if mask & IN_PROCESS != 0 {
            let only =
                "NotifyInProcessNoDisconnect is only valid for in-process IPN bus subscribers";
            return Some(only.to_owned());
        }
        let bad = DELTAS.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name);
        let bad: Vec<&str> = bad.collect();
        if mask & RATE_LIMIT == 0 || bad.is_empty() {
            return None;
        }
        let said = "NotifyRateLimit is incompatible with new-style IPN bus subscription bits";
        Some(match bad.len() {
            1 => format!("{said} {}", bad[0]),
            _ => format!("{said} ({})", bad.join(" | ")),
        })
    }

    /// Whether a watcher with this mask is told something first (`initialBits`).
    pub(super) fn greets(self, mask: u64) -> bool {
        let old = STATE | PREFS | NETMAP | DRIVE_SHARES | EXIT_NODE | CLIENT_VERSION;
        let new = if self.has_deltas() { STATUS | POLICY | WIREGUARD } else { 0 };
        mask & (old | new) != 0
    }
}
