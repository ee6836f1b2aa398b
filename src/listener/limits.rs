//! How many clients there may be, in all and of one kind.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::sys;

/// Clients over a bound that may be told so at the same time; further ones wait in the backlog.
const OVERFLOW: u32 = 64;

/// The bounds and what counts against them. Shared by every listener.
#[derive(Debug)]
pub struct Limits {
    most: AtomicU32,
    per_client: AtomicU32,
    live: Mutex<LiveCounts>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct LiveCounts {
    full: u32,
    overflow: u32,
    clients: HashMap<LimitedClient, u32>,
}

/// Whom `per_client` counts: users of this host, addresses beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LimitedClient {
    User(u32),
    Address(IpAddr),
}

/// A place for one client; dropping it gives the place back.
#[derive(Debug)]
pub enum Permit {
    /// Within the bounds: its connection is served.
    Serve(PermitSlot),
    /// Over a bound: to be answered `overloaded` and closed.
    Reject(PermitSlot),
}

/// What a permit holds.
#[derive(Debug)]
pub struct PermitSlot {
    limits: Arc<Limits>,
    kind: Kind,
    client: Option<LimitedClient>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Serve,
    Reject,
    /// Beyond even those: nothing is held.
    Beyond,
}

impl Limits {
    /// At most `most` clients at once, and `per_client` of each; 0 there: no bound.
    pub fn new(most: u32, per_client: u32) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicU32::new(most),
            per_client: AtomicU32::new(per_client),
            live: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// New bounds, for clients that come from now on.
    pub fn set(&self, most: u32, per_client: u32) {
        self.most.store(most, Relaxed);
        self.per_client.store(per_client, Relaxed);
        self.freed.notify_waiters();
    }

    /// A place, waiting until there is one: a full one if possible, else one to say "no" from.
    pub(super) async fn take(self: &Arc<Self>) -> Permit {
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.try_take() {
                return permit;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let mut live = self.live();
        if live.full < self.most.load(Relaxed) {
            live.full += 1;
            return Some(Permit::Serve(self.place(Kind::Serve)));
        }
        live.try_overflow().then(|| Permit::Reject(self.place(Kind::Reject)))
    }

    fn place(self: &Arc<Self>, kind: Kind) -> PermitSlot {
        PermitSlot { limits: Arc::clone(self), kind, client: None }
    }

    fn live(&self) -> MutexGuard<'_, LiveCounts> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveCounts {
    fn try_overflow(&mut self) -> bool {
        let room = self.overflow < OVERFLOW;
        self.overflow += u32::from(room);
        room
    }

    /// Counts `client` unless it has `most` already.
    fn try_count(&mut self, client: LimitedClient, most: u32) -> bool {
        let count = self.clients.entry(client).or_default();
        let room = *count < most;
        *count += u32::from(room);
        room
    }

    fn uncount(&mut self, client: LimitedClient) {
        if let Entry::Occupied(mut entry) = self.clients.entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Permit {
    /// Whether there is room to wait for the client's request and answer it. If not, it is over
    /// `per_client` together with 64 others: close it at once.
    pub fn may_answer(&self) -> bool {
        let (Self::Serve(place) | Self::Reject(place)) = self;
        place.kind != Kind::Beyond
    }

    /// Counts the permit for its client; over `per_client` it is one to say "no" from.
    pub(super) fn of_client(self, peer: SocketAddr, server: SocketAddr) -> Self {
        match self {
            Self::Serve(mut place) => {
                let most = place.limits.per_client.load(Relaxed);
                if most == 0 {
                    return Self::Serve(place);
                }
                let client = LimitedClient::of(peer, server);
                if place.limits.live().try_count(client, most) {
                    place.client = Some(client);
                    return Self::Serve(place);
                }
                Self::Serve(place).without_room()
            }
            overflow @ Self::Reject(_) => overflow,
        }
    }

    /// The same client, to be told "no".
    pub(super) fn without_room(self) -> Self {
        let (Self::Serve(place) | Self::Reject(place)) = self;
        let limits = Arc::clone(&place.limits);
        drop(place);
        let told = limits.live().try_overflow();
        Self::Reject(limits.place(if told { Kind::Reject } else { Kind::Beyond }))
    }
}

impl Drop for PermitSlot {
    fn drop(&mut self) {
        let mut live = self.limits.live();
        match self.kind {
            Kind::Serve => live.full -= 1,
            Kind::Reject => live.overflow -= 1,
            Kind::Beyond => {}
        }
        if let Some(client) = self.client {
            live.uncount(client);
        }
        drop(live);
        self.limits.freed.notify_waiters();
    }
}

impl LimitedClient {
    /// By user for clients on this host, as far as the kernel tells, by address otherwise.
    /// `server` is where the client thinks it is connected to.
    fn of(peer: SocketAddr, server: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        let user = ip.is_loopback().then(|| sys::socket_owner(peer, server).ok()).flatten();
        user.map_or(Self::Address(ip), |owner| Self::User(owner.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: &str = "192.0.2.1:5000";
    const OTHER: &str = "192.0.2.2:5000";

    fn full(permit: &Permit) -> bool {
        matches!(permit, Permit::Serve(_))
    }

    fn of(permit: Permit, peer: &str) -> Permit {
        permit.of_client(peer.parse().unwrap(), "192.0.2.9:1055".parse().unwrap())
    }

    #[tokio::test]
    async fn over_the_bound_64_are_told_and_the_next_one_waits() {
        let limits = Limits::new(1, 0);
        let first = limits.take().await;
        assert!(full(&first));
        let mut told = Vec::new();
        for _ in 0..OVERFLOW {
            told.push(limits.take().await);
        }
        assert!(told.iter().all(|permit| !full(permit) && permit.may_answer()));
        let next = tokio::spawn({
            let limits = Arc::clone(&limits);
            async move { full(&limits.take().await) }
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop(first);
        assert!(next.await.unwrap());
    }

    #[tokio::test]
    async fn r6_one_client_is_capped_and_others_are_not() {
        let limits = Limits::new(1000, 2);
        let mut held = Vec::new();
        for at in 0..100 {
            let permit = of(limits.take().await, FAR);
            assert_eq!(full(&permit), at < 2, "{at}");
            assert_eq!(permit.may_answer(), at < 2 + OVERFLOW, "{at}");
            held.push(permit);
        }
        assert!(full(&of(limits.take().await, OTHER)));
        held.clear();
        assert!(full(&of(limits.take().await, FAR)));
        let live = limits.live();
        assert_eq!((live.clients.len(), live.full, live.overflow), (0, 0, 0));
    }

    #[tokio::test]
    async fn s7_a_reload_moves_the_bound_for_those_who_wait() {
        let limits = Limits::new(0, 0);
        assert!(!full(&limits.take().await));
        limits.set(1, 0);
        assert!(full(&limits.take().await));
    }
}
