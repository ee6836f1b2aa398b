//! The way out: from an admitted target to a connected stream.
//!
//! Through a SOCKS5 server, with a pool of connections greeted beforehand; through tailscaled's
//! LocalAPI; or by dialling from this host. It asks no DNS question and knows no inbound; it dials
//! nothing that policy has not admitted.
#![forbid(unsafe_code)]

mod connection_slots;
mod dial_by_localapi;
mod dial_by_socks5;
mod endpoint;
mod error;
mod handshake;
mod happy_eyeballs;
mod health;
mod pool;
mod pool_keeper;
pub mod socks5;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use self::connection_slots::ConnectionSlots;
pub use self::connection_slots::UpstreamSlot;
pub use self::endpoint::Endpoint;
use self::endpoint::EndpointState;
pub use self::error::UpstreamError;
pub use self::handshake::Unparsed;
pub use crate::labels::UpstreamKind as Kind;
use crate::localapi::dial;
use crate::policy::{Address, Admitted};
use crate::sys::{self, Stream};
use crate::target::{Host, Target};

/// What this module is told at the start.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Which way out.
    pub kind: Kind,
    /// For the far side to be connected: one deadline over dial, greeting, request and reply.
    pub connect_timeout: Duration,
    /// For the upstream itself to take a connection.
    pub local_timeout: Duration,
    /// Connections held open and greeted; 0: none. For the two kinds that speak SOCKS5.
    pub pool: u32,
    /// Most upstream connections at once, those of the pool too; `None`: no bound.
    pub max_connections: Option<u32>,
    /// `SO_MARK` on our dials.
    pub mark: Option<u32>,
    /// Addresses that tailscaled says are not the tailnet's are dialled from this host. Only
    /// [`Kind::LocalApi`] is told of them.
    pub outside: bool,
}

/// Where to.
#[derive(Debug)]
pub enum Destination {
    /// Passed on as asked for: the upstream resolves the name.
    Name(Admitted<Target>),
    /// One of these addresses, the first that answers.
    Addresses(Vec<Admitted<Address>>),
}

impl Destination {
    /// The address asked for, the first of several; none for a name passed on.
    pub fn first_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Name(target) => ConnectGoal::Target(target.get()).first_address(),
            Self::Addresses(list) => list.first().map(|address| address.get().socket_addr()),
        }
    }
}

/// A connection to the target.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// The connection.
    pub stream: Stream,
    /// The target's first bytes, where they came together with the upstream's reply.
    pub early: Bytes,
    /// Where the upstream says its own end is.
    pub reported: Option<SocketAddr>,
    /// The target's address, where it is known here.
    pub address: Option<SocketAddr>,
    /// Its place under `max_connections`: to be held until the connection is closed.
    pub slot: UpstreamSlot,
}

/// The way out.
#[derive(Debug)]
pub struct Upstream {
    settings: UpstreamSettings,
    slots: ConnectionSlots,
    point: watch::Sender<Option<Arc<EndpointState>>>,
}

impl Upstream {
    /// The way out that `settings` describe. Opens nothing yet, and leads nowhere before
    /// [`Upstream::set_endpoint`], but for [`Kind::Direct`].
    pub fn new(settings: UpstreamSettings) -> Arc<Self> {
        let slots = ConnectionSlots::new(settings.max_connections);
        Arc::new(Self { settings, slots, point: watch::Sender::new(None) })
    }

    /// Which way out this is.
    pub fn kind(&self) -> Kind {
        self.settings.kind
    }

    /// Says where the upstream is; `None`: nowhere at the moment, and connecting fails at once. What
    /// is held open to another place is closed.
    pub fn set_endpoint(&self, endpoint: Option<Endpoint>) {
        self.point.send_if_modified(|point| {
            let moved = point.as_ref().map(|point| &point.endpoint) != endpoint.as_ref();
            if moved {
                let new = endpoint.map(|endpoint| Arc::new(EndpointState::new(endpoint)));
                if let Some(old) = std::mem::replace(point, new) {
                    old.pool.clear(); // somebody may still hold it for a while
                }
            }
            moved
        });
    }

    /// Where the upstream is.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.point.borrow().as_ref().map(|point| point.endpoint.clone())
    }

    /// Closes what is held open: after a pause of this machine it may lead nowhere.
    pub fn close_pooled(&self) {
        if let Some(point) = self.point.borrow().as_ref() {
            point.pool.clear();
        }
    }

    /// Another bound on upstream connections from now on; `None`: none. Those over it stay.
    pub fn set_limit(&self, max_connections: Option<u32>) {
        self.slots.set_limit(max_connections);
    }

    /// Whether a connection would be carried, as far as is known. Nothing is known until
    /// [`Upstream::keep_pool`], [`Upstream::probe`] or a connection has tried.
    pub fn is_up(&self) -> bool {
        let up = || self.point.borrow().as_ref().is_some_and(|point| point.health.is_up());
        self.settings.kind == Kind::Direct || up()
    }

    /// Pooled connections: held, and being opened.
    pub fn pool_counts(&self) -> (usize, usize) {
        self.point.borrow().as_ref().map_or((0, 0), |point| point.pool.counts())
    }

    /// Connects to the target. Dropping the future closes whatever was being opened.
    ///
    /// # Errors
    /// [`UpstreamError`], at the latest after `connect_timeout`.
    pub async fn connect(&self, to: Destination) -> Result<UpstreamConnection, UpstreamError> {
        match to {
            Destination::Name(target) => self.connect_to(ConnectGoal::Target(target.get())).await,
            Destination::Addresses(list) => {
                let list: Vec<_> = list.iter().map(|one| one.get().socket_addr()).collect();
                self.connect_to(ConnectGoal::Addresses(&list)).await
            }
        }
    }

    async fn connect_to(&self, goal: ConnectGoal<'_>) -> Result<UpstreamConnection, UpstreamError> {
        let after = self.settings.connect_timeout;
        let address = goal.first_address();
        let late = || UpstreamError::Timeout { after, address };
        if self.settings.kind == Kind::Direct {
            return timeout(after, self.connect_directly(goal))
                .await
                .unwrap_or_else(|_| Err(late()));
        }
        let point = self.current_endpoint()?;
        let attempt = std::pin::pin!(async {
            match goal {
                ConnectGoal::Target(target) => self.by_way_of(&point, address, target).await,
                ConnectGoal::Addresses(list) => {
                    let one = |address| self.to_address(&point, address);
                    happy_eyeballs::race_addresses(list, after, one).await
                }
            }
        });
        let result = timeout(after, attempt).await;
        // A SOCKS5 server says no in time; LocalAPI waits for silent targets as long as we do.
        if result.is_err() && self.settings.kind != Kind::LocalApi {
            point.health.note_missed();
        }
        result.unwrap_or_else(|_| Err(late()))
    }

    async fn connect_directly(
        &self,
        goal: ConnectGoal<'_>,
    ) -> Result<UpstreamConnection, UpstreamError> {
        let literal = goal.first_address().ok_or(UpstreamError::NoAddress)?;
        let addresses = match goal {
            ConnectGoal::Addresses(list) => list,
            ConnectGoal::Target(_) => &[literal],
        };
        let slot = self.slots.take_slot()?;
        let dial = |address| async move { Ok((self.dial_far(address).await?, address)) };
        let (stream, address) =
            happy_eyeballs::race_addresses(addresses, self.settings.connect_timeout, dial).await?;
        let (early, reported) = (Bytes::new(), stream.local_addr().ok());
        Ok(UpstreamConnection { stream, early, reported, address: Some(address), slot })
    }

    async fn to_address(
        &self,
        point: &EndpointState,
        address: SocketAddr,
    ) -> Result<UpstreamConnection, UpstreamError> {
        if self.settings.kind == Kind::LocalApi {
            let request = dial::request(&address.ip(), address.port());
            return self.by_localapi(point, Some(address), &request).await;
        }
        self.by_socks5(point, Some(address), &socks5::request_address(address)).await
    }

    async fn by_way_of(
        &self,
        point: &EndpointState,
        address: Option<SocketAddr>,
        target: &Target,
    ) -> Result<UpstreamConnection, UpstreamError> {
        match (address, self.settings.kind) {
            (Some(address), _) => self.to_address(point, address).await,
            (None, Kind::LocalApi) => {
                let request = dial::request(&target.host, target.port.get());
                self.by_localapi(point, None, &request).await
            }
            (None, _) => self.by_socks5(point, None, &socks5::request(target)).await,
        }
    }

    fn current_endpoint(&self) -> Result<Arc<EndpointState>, UpstreamError> {
        self.point.borrow().clone().ok_or_else(UpstreamError::no_endpoint)
    }

    async fn dial_far(&self, address: SocketAddr) -> Result<Stream, UpstreamError> {
        let dialled = sys::dial(address, self.settings.mark).await;
        dialled.map_err(|source| UpstreamError::of_far_dial(address, source))
    }

    async fn dial_place(&self, endpoint: &Endpoint) -> Result<Stream, UpstreamError> {
        let dialled = match endpoint {
            Endpoint::Port(address) => sys::dial(*address, self.settings.mark).await,
            Endpoint::Socket(path) => sys::dial_unix(path).await,
        };
        dialled.map_err(|source| UpstreamError::of_local_dial(endpoint, source))
    }

    /// Connects to the upstream itself, in time.
    async fn dial_upstream(&self, point: &EndpointState) -> Result<Stream, UpstreamError> {
        let after = self.settings.local_timeout;
        let Ok(dialled) = timeout(after, self.dial_place(&point.endpoint)).await else {
            point.health.note_missed();
            return Err(UpstreamError::LocalTimeout { endpoint: point.endpoint.clone(), after });
        };
        dialled.inspect_err(|error| {
            if error.is_down() {
                point.health.note_down(&error.to_string());
            }
        })
    }
}

/// What is to be connected, once admitted.
#[derive(Clone, Copy)]
enum ConnectGoal<'a> {
    Target(&'a Target),
    Addresses(&'a [SocketAddr]),
}

impl ConnectGoal<'_> {
    /// Its address, or the first of several; `None` for a name.
    fn first_address(self) -> Option<SocketAddr> {
        match self {
            Self::Addresses(list) => list.first().copied(),
            Self::Target(target) => match target.host {
                Host::Address(ip) => Some(SocketAddr::new(ip, target.port.get())),
                Host::Name(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
