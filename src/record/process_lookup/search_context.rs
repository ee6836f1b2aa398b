//! Looking itself: at one connection in passing, or at many together, within one budget.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PACE;
use super::cpu_budget::{self, CpuBudget};
use super::process::Process;
use super::search::{ProcessSearch, SearchResult, WantedSocket};
use crate::sys::{SocketOwner, SocketOwners};

/// How long nobody is looked at in passing after that found nobody, from the first time on.
const BLINK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Client and server of a connection, as the client sees them.
pub(super) type SocketPair = (SocketAddr, SocketAddr);

/// What a search needs and what it may cost.
pub(super) struct SearchContext {
    owners: SocketOwners,
    search: ProcessSearch,
    budget: CpuBudget,
    /// When a connection last came.
    came: Option<Instant>,
    blink: Duration,
    blink_until: Instant,
}

impl SearchContext {
    /// # Errors
    /// There is no sock_diag(7) here.
    pub(super) fn new(now: Instant) -> io::Result<Self> {
        Ok(Self {
            owners: SocketOwners::open()?,
            search: ProcessSearch::new(now),
            budget: CpuBudget::new(now),
            came: None,
            blink: BLINK.0,
            blink_until: now,
        })
    }

    /// The caller of a connection that comes now, if it is one of the last. Some 20 us, while the connection
    /// waits: less than waking the thread that looks for all others. Not for one of many: those are looked
    /// for together.
    pub(super) fn look_at_recent(
        &mut self,
        pair: SocketPair,
        now: Instant,
    ) -> Option<Arc<Process>> {
        let last = self.came.replace(now);
        let alone = last.is_none_or(|last| now.saturating_duration_since(last) >= PACE);
        if !alone || now < self.blink_until || !self.wait_time(now).is_zero() {
            return None;
        }
        let owner = self.owners.ask_owners(&[pair]).pop().flatten();
        let mut wanted = owner.and_then(|owner| wanted_socket(pair, owner))?;
        self.search.look_at_recent(&mut wanted);
        let done = Instant::now();
        self.budget.charge_work(done - now, done);
        match wanted.found {
            SearchResult::Holder(process) => {
                self.blink = BLINK.0;
                Some(process)
            }
            _ => {
                self.blink_until = done + self.blink;
                self.blink = (self.blink * 2).min(BLINK.1);
                None
            }
        }
    }

    /// Looks for all of them.
    pub(super) fn look_up(&mut self, pairs: &[SocketPair]) -> Vec<SearchResult> {
        let before = cpu_budget::cpu_spent();
        let found = self.find_holders(pairs);
        self.budget.charge_work(cpu_budget::cpu_spent().saturating_sub(before), Instant::now());
        found
    }

    /// How long to wait until somebody may be looked for again.
    pub(super) fn wait_time(&mut self, now: Instant) -> Duration {
        self.budget.wait_time(now)
    }

    fn find_holders(&mut self, pairs: &[SocketPair]) -> Vec<SearchResult> {
        let owners = self.owners.ask_owners(pairs);
        let mut places = Vec::with_capacity(pairs.len());
        let mut all = Vec::new();
        for (pair, owner) in pairs.iter().zip(owners) {
            let wanted = owner.and_then(|owner| wanted_socket(*pair, owner));
            places.push(wanted.as_ref().map(|_| all.len()));
            all.extend(wanted);
        }
        self.search.find_holders(&mut all, &mut self.owners, Instant::now());
        let found =
            |place: Option<usize>| place.map_or(SearchResult::Nobody, |at| all[at].found.clone());
        places.into_iter().map(found).collect()
    }
}

/// Without an inode it was closed already.
fn wanted_socket(pair: SocketPair, owner: SocketOwner) -> Option<WantedSocket> {
    (owner.inode != 0).then_some(WantedSocket { pair, owner, found: SearchResult::Nobody })
}

#[cfg(test)]
mod tests {
    use super::super::tests::pair;
    use super::*;

    #[test]
    fn who_called_before_is_seen_in_passing_but_not_in_a_crowd() {
        let (_listener, client) = pair();
        let pair = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut now = Instant::now();
        let mut looker = SearchContext::new(now).unwrap();
        assert_eq!(looker.look_at_recent(pair, now), None, "nobody called before");
        assert!(matches!(looker.look_up(&[pair])[..], [SearchResult::Holder(_)]));
        now += BLINK.1;
        let seen = looker.look_at_recent(pair, now).unwrap();
        assert_eq!(seen.pid, std::process::id());
        assert_eq!(looker.look_at_recent(pair, now + PACE / 2), None, "one of many");
        now += BLINK.1;
        assert!(looker.look_at_recent(pair, now).is_some());
        looker.budget.charge_work(Duration::from_secs(1), now);
        assert_eq!(looker.look_at_recent(pair, now + PACE), None, "it costs too much");
    }

    #[test]
    fn a_glance_that_finds_nobody_makes_the_next_ones_rare() {
        let (_listener, client) = pair();
        let pair = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut now = Instant::now();
        let mut looker = SearchContext::new(now).unwrap();
        for doubled in 0..3 {
            assert_eq!(looker.look_at_recent(pair, now), None);
            assert_eq!(looker.blink, BLINK.0 * (2 << doubled));
            now = looker.blink_until;
        }
    }
}
