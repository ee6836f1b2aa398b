//! Addresses we gave for a name. A program that asks our DNS server and then connects by address is
//! taken at the name: policy knows names, and an address may belong to several.
//!
//! The name is only a way to read the request. It is judged as any name is, and what is dialled is what it
//! resolves to now, never an address on the strength of a remembered name (reliability.md B18).
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::House;
use crate::policy::Verdict;
use crate::target::{Host, Name, Target};

/// How long an answer may be held by who got it: the longest life we give, and as long again for
/// programs that hold it longer.
const LATELY: Duration = Duration::from_secs(600);
/// Addresses remembered; the least recently used is forgotten first.
const MOST: u64 = 10_000;

/// The latest name each address was given for.
#[derive(Debug)]
pub struct Answered(Cache<IpAddr, Name>);

impl Default for Answered {
    fn default() -> Self {
        let cache = Cache::builder()
            .max_capacity(MOST)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(LATELY);
        Self(cache.build())
    }
}

impl Answered {
    /// `name` was answered with these.
    pub(super) fn remember(&self, name: &Name, addresses: &[IpAddr]) {
        for address in addresses {
            self.0.insert(*address, name.clone());
        }
    }
}

impl House {
    /// The named target behind an address that we gave for a name lately, if policy allows that name.
    pub(super) fn by_our_answer(&self, target: &Target) -> Option<Target> {
        let name = self.answered.0.get(&target.host.address()?)?;
        let named = Target { host: Host::Name(name), port: target.port };
        let (decision, judged) = self.policy.load().judge_host(&self.own.load(), &named);
        let allowed = judged.is_ok() && decision.verdict == Verdict::Allow;
        allowed.then_some(named)
    }
}
