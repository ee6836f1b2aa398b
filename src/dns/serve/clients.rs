//! Who may ask, and how often. An open resolver is a weapon in the hands of strangers: beyond this host only
//! networks are served that no stranger's packet comes from, and each client has its measure.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// One question so often in the long run: a thousand a second.
const STEP: Duration = Duration::from_millis(1);
/// Questions at once, after a silence.
const BURST: u32 = 1000;
/// Clients whose measure is kept; the least recently heard of is forgotten first.
const MOST: usize = 4096;

/// Whether a client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAdmission {
    /// It is answered at once.
    Now,
    /// Not before so long.
    After(Duration),
    /// Never: from an address that others than neighbours have.
    Never,
}

/// What each client has left of its measure.
#[derive(Debug)]
pub(super) struct ClientLimiter {
    /// When the questions asked so far are worked off, one a [`STEP`]: the generic cell rate algorithm
    /// (ITU-T I.371).
    worked_off: Mutex<LruCache<IpAddr, Instant>>,
}

impl ClientLimiter {
    pub(super) fn new() -> Self {
        // Bounded by `wait`: `LruCache::new` would allocate room for all of them at once.
        Self { worked_off: Mutex::new(LruCache::unbounded()) }
    }

    /// Counts a question. Programs of this host are not measured: they could spin without us, and nobody can
    /// ask in their name.
    pub(super) fn admit(&self, client: IpAddr, now: Instant) -> ClientAdmission {
        let client = client.to_canonical();
        if client.is_loopback() {
            return ClientAdmission::Now;
        }
        let wait = self.wait_for_turn(client, now);
        match is_neighbour(client) {
            false => ClientAdmission::Never,
            true if wait.is_zero() => ClientAdmission::Now,
            true => ClientAdmission::After(wait),
        }
    }

    fn wait_for_turn(&self, client: IpAddr, now: Instant) -> Duration {
        // The map is whole after a panic elsewhere: nothing below the lock panics.
        let mut worked_off = self.worked_off.lock().unwrap_or_else(PoisonError::into_inner);
        let until = worked_off.get_or_insert_mut(limited_network(client), || now);
        let next = (*until).max(now) + STEP;
        let wait = next.saturating_duration_since(now + STEP * BURST);
        if wait.is_zero() {
            *until = next;
        }
        if worked_off.len() > MOST {
            worked_off.pop_lru();
        }
        wait
    }
}

/// A client of IPv6 has a whole /64 to ask from (RFC 6177).
fn limited_network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Private, shared, link-local and unique local addresses (RFC 1918, 6598, 3927, 4291, 4193).
fn is_neighbour(client: IpAddr) -> bool {
    let shared = |v4: Ipv4Addr| v4 & Ipv4Addr::new(255, 192, 0, 0) == Ipv4Addr::new(100, 64, 0, 0);
    match client {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || shared(v4),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_are_never_answered() {
        let now = Instant::now();
        let clients = ClientLimiter::new();
        for neighbour in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.7.7",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(clients.admit(ip(neighbour), now), ClientAdmission::Now, "{neighbour}");
        }
        for stranger in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert_eq!(clients.admit(ip(stranger), now), ClientAdmission::Never, "{stranger}");
        }
    }

    #[test]
    fn a_client_has_its_measure_and_others_have_theirs() {
        let start = Instant::now();
        let clients = ClientLimiter::new();
        let client = ip("10.0.0.1");
        for _ in 0..BURST {
            assert_eq!(clients.admit(client, start), ClientAdmission::Now);
        }
        assert_eq!(clients.admit(client, start), ClientAdmission::After(STEP));
        assert_eq!(clients.admit(ip("10.0.0.2"), start), ClientAdmission::Now);
        let later = start + STEP * 3;
        for _ in 0..3 {
            assert_eq!(clients.admit(client, later), ClientAdmission::Now);
        }
        assert_eq!(clients.admit(client, later), ClientAdmission::After(STEP));
        for _ in 0..2 * BURST {
            assert_eq!(clients.admit(ip("127.0.0.1"), start), ClientAdmission::Now);
        }
    }

    #[test]
    fn r17_a_client_cannot_fill_the_table_with_addresses_of_its_own() {
        let now = Instant::now();
        let clients = ClientLimiter::new();
        for host in 0..2 * BURST {
            let _counted = clients.admit(ip(&format!("fd00::{host:x}")), now);
        }
        assert!(
            matches!(clients.admit(ip("fd00::ffff"), now), ClientAdmission::After(_)),
            "one /64"
        );
        for net in 0..u32::try_from(2 * MOST).unwrap() {
            let _counted = clients.admit(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + net)), now);
        }
        assert_eq!(clients.worked_off.lock().unwrap().len(), MOST);
    }
}
