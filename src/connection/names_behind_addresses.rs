//! Names behind addresses that our DNS server gave. A program that asks it and then connects by address is taken at
//! the name: policy knows names, and an address may belong to several.
//!
//! Two tables: real addresses with the name each client was last answered it for ([`DnsAnswerMap`]), and addresses of
//! `dns.synthetic`, each of which stands for one name whoever asks ([`SyntheticAddresses`]). The name is only a way to
//! read the request: it is judged as any name is, and what is dialled is what it resolves to now, never an address on
//! the strength of a remembered name (docs/requirements.md, B18).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use lru::LruCache;

use crate::expiring_cache::ExpiringCache;
use crate::policy::{LocalAddresses, SyntheticUse};
use crate::target::Name;

/// How long an answer may be held by who got it: the longest life we give, and as long again for programs that hold
/// it longer.
const ANSWER_LIFETIME: Duration = Duration::from_secs(600);
/// Answered addresses remembered; the least recently used is forgotten first.
const MAX_ANSWERS: usize = 10_000;
/// Names that have a synthetic address at most, some 20 MB of them.
const MAX_SYNTHETIC: usize = 65_536;
/// A synthetic address that nobody asked for or connected to for so long may get another name: programs hold on to
/// answers far beyond their time to live, and one that comes late must not be led to somebody else.
const REASSIGN_AFTER: Duration = Duration::from_secs(3600);

/// Who was answered. An answer names the connections of whoever got it, of nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AnsweredClient {
    /// A program of this host: it asks from loopback and connects from the address that its route picks.
    ThisHost,
    /// A client elsewhere, a container for one.
    Address(IpAddr),
}

impl AnsweredClient {
    pub(super) fn new(local_addresses: &LocalAddresses, client: IpAddr) -> Self {
        match local_addresses.is_local(client) {
            true => Self::ThisHost,
            false => Self::Address(client.to_canonical()),
        }
    }
}

/// The latest name for which each client was given each address.
#[derive(Debug)]
pub struct DnsAnswerMap(ExpiringCache<(AnsweredClient, IpAddr), Name>);

impl Default for DnsAnswerMap {
    fn default() -> Self {
        Self(ExpiringCache::new(MAX_ANSWERS))
    }
}

impl DnsAnswerMap {
    /// `client` was answered with these addresses when it asked for `name`.
    pub(super) fn remember(&self, client: AnsweredClient, name: &Name, addresses: &[IpAddr]) {
        let now = Instant::now();
        for address in addresses {
            self.0.insert((client, *address), name.clone(), ANSWER_LIFETIME, now);
        }
    }

    /// Forgets every answer: after a pause of the machine they may be older than they look.
    pub fn forget_all(&self) {
        self.0.clear();
    }

    /// The name for which `client` was last given `address`.
    pub(super) fn name_of(&self, client: AnsweredClient, address: IpAddr) -> Option<Name> {
        self.0.get(&(client, address), Instant::now()).map(|(name, _)| name)
    }
}

/// Addresses that stand for names (`dns.synthetic`): two names at the same address, and addresses that several routes
/// of a tailnet share, stay apart. Nothing is ever dialled at such an address.
#[derive(Debug)]
pub struct SyntheticAddresses {
    net: Ipv4Net,
    capacity: usize,
    assignments: Mutex<SyntheticAssignments>,
}

#[derive(Debug)]
struct SyntheticAssignments {
    /// The least recently used last.
    by_name: LruCache<Name, SyntheticAssignment>,
    by_address: HashMap<Ipv4Addr, Name>,
}

#[derive(Debug, Clone, Copy)]
struct SyntheticAssignment {
    address: Ipv4Addr,
    last_used: Instant,
}

impl SyntheticAddresses {
    /// A range of which no address is assigned yet.
    pub fn new(net: Ipv4Net) -> Self {
        let assignments =
            SyntheticAssignments { by_name: LruCache::unbounded(), by_address: HashMap::new() };
        let capacity = net.hosts().count().min(MAX_SYNTHETIC);
        Self { net, capacity, assignments: Mutex::new(assignments) }
    }

    /// The range that addresses are taken from.
    pub fn net(&self) -> Ipv4Net {
        self.net
    }

    /// The address of `name`, the same as long as it is used; none: every address was used lately.
    pub(super) fn assign(&self, name: &Name, now: Instant) -> Option<Ipv4Addr> {
        let mut assignments = self.lock_assignments();
        if let Some(assignment) = assignments.by_name.get_mut(name) {
            assignment.last_used = now;
            return Some(assignment.address);
        }
        let address = match assignments.by_name.len() < self.capacity {
            true => self.net.hosts().nth(assignments.by_name.len())?,
            false => assignments.take_back(now)?,
        };
        assignments.by_name.put(name.clone(), SyntheticAssignment { address, last_used: now });
        assignments.by_address.insert(address, name.clone());
        Some(address)
    }

    /// What an address stands for now. To be asked for counts as a use of it.
    pub(super) fn use_of(&self, address: IpAddr, now: Instant) -> SyntheticUse {
        match address {
            IpAddr::V4(v4) if self.net.contains(&v4) => {
                self.name_of(v4, now).map_or(SyntheticUse::Unassigned, SyntheticUse::Assigned)
            }
            IpAddr::V4(_) | IpAddr::V6(_) => SyntheticUse::NotSynthetic,
        }
    }

    fn name_of(&self, address: Ipv4Addr, now: Instant) -> Option<Name> {
        let mut assignments = self.lock_assignments();
        let name = assignments.by_address.get(&address)?.clone();
        assignments.by_name.get_mut(&name)?.last_used = now;
        Some(name)
    }

    fn lock_assignments(&self) -> MutexGuard<'_, SyntheticAssignments> {
        // Both maps are changed by calls that do not panic.
        self.assignments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SyntheticAssignments {
    fn take_back(&mut self, now: Instant) -> Option<Ipv4Addr> {
        let (_, oldest) = self.by_name.peek_lru()?;
        if now.saturating_duration_since(oldest.last_used) < REASSIGN_AFTER {
            return None;
        }
        let (_, SyntheticAssignment { address, .. }) = self.by_name.pop_lru()?;
        self.by_address.remove(&address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_connections_of_whoever_got_it() {
        let local_addresses =
            LocalAddresses { addresses: vec![[10, 99, 0, 1].into()], ..LocalAddresses::default() };
        let client = |text: &str| AnsweredClient::new(&local_addresses, text.parse().unwrap());
        let (name, address) = (Name::parse(b"db.corp.example").unwrap(), [10, 50, 0, 7].into());
        let dns_answers = DnsAnswerMap::default();
        dns_answers.remember(client("127.0.0.1"), &name, &[address]);
        for here in ["127.0.0.1", "::1", "10.99.0.1", "::ffff:10.99.0.1"] {
            assert_eq!(dns_answers.name_of(client(here), address), Some(name.clone()), "{here}");
        }
        assert_eq!(dns_answers.name_of(client("10.0.0.5"), address), None);
        dns_answers.remember(client("10.0.0.5"), &name, &[address]);
        assert_eq!(dns_answers.name_of(client("10.0.0.5"), address), Some(name));
        assert_eq!(dns_answers.name_of(client("10.0.0.6"), address), None);
    }

    fn name(n: usize) -> Name {
        Name::parse(format!("n{n}.corp.example").as_bytes()).unwrap()
    }

    fn synthetic() -> SyntheticAddresses {
        SyntheticAddresses::new("198.18.0.0/29".parse().unwrap())
    }

    fn assigned(synthetic: &SyntheticAddresses, address: Ipv4Addr, now: Instant) -> SyntheticUse {
        synthetic.use_of(address.into(), now)
    }

    #[test]
    fn a_name_keeps_its_address_and_the_address_leads_back() {
        let (synthetic, now) = (synthetic(), Instant::now());
        let first = synthetic.assign(&name(0), now).unwrap();
        let second = synthetic.assign(&name(1), now).unwrap();
        assert_ne!(first, second);
        assert_eq!(synthetic.assign(&name(0), now + REASSIGN_AFTER), Some(first));
        assert_eq!(assigned(&synthetic, first, now), SyntheticUse::Assigned(name(0)));
        let unassigned = Ipv4Addr::new(198, 18, 0, 6);
        assert_eq!(assigned(&synthetic, unassigned, now), SyntheticUse::Unassigned);
        let beside = Ipv4Addr::new(198, 18, 0, 8);
        assert_eq!(assigned(&synthetic, beside, now), SyntheticUse::NotSynthetic);
    }

    #[test]
    fn no_address_gets_another_name_while_it_is_used() {
        let (synthetic, start) = (synthetic(), Instant::now());
        let addresses: Vec<_> =
            (0..6).map(|n| synthetic.assign(&name(n), start).unwrap()).collect();
        assert!(addresses.iter().all(|address| synthetic.net().contains(address)));
        assert_eq!(synthetic.assign(&name(6), start), None, "all were used lately");
        let later = start + REASSIGN_AFTER;
        let used = assigned(&synthetic, addresses[0], later);
        assert_eq!(used, SyntheticUse::Assigned(name(0)), "a connection is a use");
        assert_eq!(synthetic.assign(&name(6), later), Some(addresses[1]));
        let used = assigned(&synthetic, addresses[1], later);
        assert_eq!(used, SyntheticUse::Assigned(name(6)));
        assert_eq!(synthetic.assign(&name(0), later), Some(addresses[0]));
    }
}
