//! Addresses that stand for names (`dns.synthetic`). A connection to one is a connection to the name: two names at
//! the same address, and addresses that several routes of a tailnet share, stay apart.
//!
//! Nothing is ever dialled at such an address. The name is judged and resolved as any other.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use lru::LruCache;

use super::{GatewayState, Refusal};
use crate::outcome::Outcome;
use crate::target::{Host, Name, Target};

/// Names that have an address at most, some 20 MB of them.
const MOST: usize = 65_536;
/// An address nobody asked for or connected to for so long may get another name: programs hold on to answers
/// far beyond their time to live, and one that comes late must not be led to somebody else.
const HOLD: Duration = Duration::from_secs(3600);

/// A range, and who has what of it.
#[derive(Debug)]
pub struct SyntheticAddresses {
    net: Ipv4Net,
    most: usize,
    loans: Mutex<Assignments>,
}

#[derive(Debug)]
struct Assignments {
    /// The least recently used last.
    by_name: LruCache<Name, Assignment>,
    transparent: HashMap<Ipv4Addr, Name>,
}

#[derive(Debug, Clone, Copy)]
struct Assignment {
    address: Ipv4Addr,
    used: Instant,
}

impl SyntheticAddresses {
    /// Nobody has anything yet.
    pub fn new(net: Ipv4Net) -> Self {
        let loans = Assignments { by_name: LruCache::unbounded(), transparent: HashMap::new() };
        Self { net, most: net.hosts().count().min(MOST), loans: Mutex::new(loans) }
    }

    /// The range.
    pub fn net(&self) -> Ipv4Net {
        self.net
    }

    /// The address of `name`, the same as long as it is used; none: every address was used lately.
    pub(super) fn assign(&self, name: &Name, now: Instant) -> Option<Ipv4Addr> {
        let mut loans = self.loans();
        if let Some(loan) = loans.by_name.get_mut(name) {
            loan.used = now;
            return Some(loan.address);
        }
        let address = match loans.by_name.len() < self.most {
            true => self.net.hosts().nth(loans.by_name.len())?,
            false => loans.take_back(now)?,
        };
        loans.by_name.put(name.clone(), Assignment { address, used: now });
        loans.transparent.insert(address, name.clone());
        Some(address)
    }

    /// Whose address it is now.
    fn name(&self, address: Ipv4Addr, now: Instant) -> Option<Name> {
        let mut loans = self.loans();
        let name = loans.transparent.get(&address)?.clone();
        loans.by_name.get_mut(&name)?.used = now;
        Some(name)
    }

    fn loans(&self) -> MutexGuard<'_, Assignments> {
        // Both maps are changed by calls that do not panic.
        self.loans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assignments {
    fn take_back(&mut self, now: Instant) -> Option<Ipv4Addr> {
        let (_, oldest) = self.by_name.peek_lru()?;
        if now.saturating_duration_since(oldest.used) < HOLD {
            return None;
        }
        let (_, Assignment { address, .. }) = self.by_name.pop_lru()?;
        self.transparent.remove(&address);
        Some(address)
    }
}

impl GatewayState {
    /// The name that has this address now.
    pub(super) fn name_behind_synthetic(&self, address: IpAddr) -> Option<Name> {
        let synthetic = self.synthetic.load();
        match address {
            IpAddr::V4(v4) => synthetic.as_ref()?.name(v4, Instant::now()),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether an address belongs to the range.
    pub(super) fn is_synthetic(&self, address: IpAddr) -> bool {
        let synthetic = self.synthetic.load();
        matches!((address, synthetic.as_deref()), (IpAddr::V4(v4), Some(synthetic)) if synthetic.net.contains(&v4))
    }

    /// The target as it is meant, whoever asks: the name behind an address on loan, the whole name of a
    /// bare one.
    pub(crate) fn effective_target(&self, target: Target) -> Target {
        match target.host.address().and_then(|address| self.name_behind_synthetic(address)) {
            Some(name) => Target { host: Host::Name(name), port: target.port },
            None => self.qualified(target),
        }
    }

    /// Refuses an address of the range that no name has: there is nobody behind it.
    pub(super) fn reject_unassigned_synthetic(&self, target: &Target) -> Result<(), Refusal> {
        match target.host.address().filter(|ip| self.is_synthetic(*ip)) {
            Some(ip) => {
                let message = format!(
                    "{ip} is an address that this gateway lends to names (dns.synthetic), and no name \
                     has it now: look the name up again"
                );
                Err(Refusal::new(Outcome::DnsError, message))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Name {
        Name::parse(format!("n{n}.corp.example").as_bytes()).unwrap()
    }

    fn synthetic() -> SyntheticAddresses {
        SyntheticAddresses::new("198.18.0.0/29".parse().unwrap())
    }

    #[test]
    fn a_name_keeps_its_address_and_the_address_leads_back() {
        let (synthetic, now) = (synthetic(), Instant::now());
        let first = synthetic.assign(&name(0), now).unwrap();
        let second = synthetic.assign(&name(1), now).unwrap();
        assert_ne!(first, second);
        assert_eq!(synthetic.assign(&name(0), now + HOLD), Some(first));
        assert_eq!(synthetic.name(first, now), Some(name(0)));
        assert_eq!(synthetic.name(Ipv4Addr::new(198, 18, 0, 6), now), None);
    }

    #[test]
    fn no_address_gets_another_name_while_it_is_used() {
        let (synthetic, start) = (synthetic(), Instant::now());
        let addresses: Vec<_> =
            (0..6).map(|n| synthetic.assign(&name(n), start).unwrap()).collect();
        assert!(addresses.iter().all(|address| synthetic.net().contains(address)));
        assert_eq!(synthetic.assign(&name(6), start), None, "all were used lately");
        let later = start + HOLD;
        assert_eq!(synthetic.name(addresses[0], later), Some(name(0)), "a connection is a use");
        assert_eq!(synthetic.assign(&name(6), later), Some(addresses[1]));
        assert_eq!(synthetic.name(addresses[1], later), Some(name(6)));
        assert_eq!(synthetic.assign(&name(0), later), Some(addresses[0]));
    }
}
