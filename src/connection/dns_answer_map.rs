//! Addresses we gave for a name. A program that asks our DNS server and then connects by address is
//! taken at the name: policy knows names, and an address may belong to several.
//!
//! An answer names the connections of whoever got it, of nobody else. The name is only a way to read the
//! request: it is judged as any name is, and what is dialled is what it resolves to now, never an address
//! on the strength of a remembered name (docs/requirements.md, B18).
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::GatewayState;
use crate::expiring_cache::ExpiringCache;
use crate::policy::{LocalAddresses, Verdict};
use crate::target::{Host, Name, Target};

/// How long an answer may be held by who got it: the longest life we give, and as long again for
/// programs that hold it longer.
const LATELY: Duration = Duration::from_secs(600);
/// Addresses remembered; the least recently used is forgotten first.
const MOST: usize = 10_000;

/// Who was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A program of this host: it asks from loopback and connects from the address that its route picks.
    ThisHost,
    /// A client elsewhere, a container for one.
    Address(IpAddr),
}

impl Asker {
    pub(super) fn new(own: &LocalAddresses, client: IpAddr) -> Self {
        match own.holds(client) {
            true => Self::ThisHost,
            false => Self::Address(client.to_canonical()),
        }
    }
}

/// The latest name each address was given for.
#[derive(Debug)]
pub struct DnsAnswerMap(ExpiringCache<(Asker, IpAddr), Name>);

impl Default for DnsAnswerMap {
    fn default() -> Self {
        Self(ExpiringCache::new(MOST))
    }
}

impl DnsAnswerMap {
    /// `name` was answered with these.
    pub(super) fn remember(&self, asker: Asker, name: &Name, addresses: &[IpAddr]) {
        let now = Instant::now();
        for address in addresses {
            self.0.insert((asker, *address), name.clone(), LATELY, now);
        }
    }

    /// Forgets every answer.
    pub fn forget(&self) {
        self.0.clear();
    }

    fn name(&self, asker: Asker, address: IpAddr) -> Option<Name> {
        self.0.get(&(asker, address), Instant::now()).map(|(name, _)| name)
    }
}

impl GatewayState {
    /// The named target behind an address that we gave to this client for a name lately, if policy
    /// allows that name.
    pub(super) fn target_by_dns_answer(&self, client: IpAddr, target: &Target) -> Option<Target> {
        let address = target.host.address()?;
        if let Some(name) = self.name_behind_synthetic(address) {
            return Some(Target { host: Host::Name(name), port: target.port });
        }
        let own = self.own.load();
        let name = self.dns_answers.name(Asker::new(&own, client), address)?;
        let named = Target { host: Host::Name(name), port: target.port };
        let (decision, judged) = self.policy.load().judge_host(&own, &named);
        let allowed = judged.is_ok() && decision.verdict == Verdict::Allow;
        allowed.then_some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_connections_of_whoever_got_it() {
        let own =
            LocalAddresses { addresses: vec![[10, 99, 0, 1].into()], ..LocalAddresses::default() };
        let asker = |text: &str| Asker::new(&own, text.parse().unwrap());
        let (name, address) = (Name::parse(b"db.corp.example").unwrap(), [10, 50, 0, 7].into());
        let dns_answers = DnsAnswerMap::default();
        dns_answers.remember(asker("127.0.0.1"), &name, &[address]);
        for here in ["127.0.0.1", "::1", "10.99.0.1", "::ffff:10.99.0.1"] {
            assert_eq!(dns_answers.name(asker(here), address), Some(name.clone()), "{here}");
        }
        assert_eq!(dns_answers.name(asker("10.0.0.5"), address), None);
        dns_answers.remember(asker("10.0.0.5"), &name, &[address]);
        assert_eq!(dns_answers.name(asker("10.0.0.5"), address), Some(name));
        assert_eq!(dns_answers.name(asker("10.0.0.6"), address), None);
    }
}
