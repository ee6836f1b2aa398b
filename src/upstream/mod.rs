//! The way out: from an admitted target to a connected stream.
//!
//! Either through a SOCKS5 server, with a pool of connections greeted beforehand, or by dialling
//! from this host. It asks no DNS question and knows no inbound; it dials nothing that policy has
//! not admitted.
#![forbid(unsafe_code)]

mod error;
mod exchange;
mod health;
mod keep;
mod pool;
mod race;
mod slots;
pub mod socks5;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

pub use self::error::UpstreamError;
use self::exchange::{Answer, Broken, Talk};
use self::health::Health;
use self::pool::{Greeted, Pool};
use self::slots::Slots;
pub use self::slots::UpstreamSlot;
use crate::policy::{Address, Admitted};
use crate::sys::{self, Stream};
use crate::target::{Host, Target};

/// Which way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Through the SOCKS5 server at this address.
    Socks5(SocketAddr),
    /// From this host.
    Direct,
}

/// What the room is told at the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which way out.
    pub kind: Kind,
    /// For the far side to be connected: one deadline over dial, greeting, request and reply.
    pub connect_timeout: Duration,
    /// For the upstream itself to take a connection.
    pub local_timeout: Duration,
    /// Connections held open and greeted; 0: none. Means nothing with [`Kind::Direct`].
    pub pool: u32,
    /// Most upstream connections at once, those of the pool too; `None`: no bound.
    pub max_connections: Option<u32>,
    /// `SO_MARK` on our dials.
    pub mark: Option<u32>,
}

/// Where to.
#[derive(Debug)]
pub enum Destination {
    /// Passed on as asked for: the upstream resolves the name.
    Name(Admitted<Target>),
    /// One of these addresses, the first that answers.
    Addresses(Vec<Admitted<Address>>),
}

/// A connection to the target.
#[derive(Debug)]
pub struct Connected {
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
    settings: Settings,
    slots: Slots,
    pool: Pool,
    health: Health,
}

impl Kind {
    /// The access log's `upstream`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Socks5(_) => "socks5",
            Self::Direct => "direct",
        }
    }
}

impl Upstream {
    /// The way out that `settings` describe. Opens nothing yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        let health = match settings.kind {
            Kind::Socks5(_) => Health::default(),
            Kind::Direct => Health::always_up(),
        };
        let slots = Slots::new(settings.max_connections);
        Arc::new(Self { settings, slots, pool: Pool::default(), health })
    }

    /// Which way out this is.
    pub fn kind(&self) -> Kind {
        self.settings.kind
    }

    /// Whether a connection would be carried, as far as is known. Nothing is known until
    /// [`Upstream::keep_pool`] or a connection has tried.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Pooled connections: held, and being opened.
    pub fn pool_counts(&self) -> (usize, usize) {
        self.pool.counts()
    }

    /// Connects to the target. Dropping the future closes whatever was being opened.
    ///
    /// # Errors
    /// [`UpstreamError`], at the latest after `connect_timeout`.
    pub async fn connect(&self, to: Destination) -> Result<Connected, UpstreamError> {
        match to {
            Destination::Name(target) => self.connect_to(Goal::Target(target.get())).await,
            Destination::Addresses(list) => {
                let list: Vec<_> = list.iter().map(|one| one.get().socket_addr()).collect();
                self.connect_to(Goal::Addresses(&list)).await
            }
        }
    }

    async fn connect_to(&self, goal: Goal<'_>) -> Result<Connected, UpstreamError> {
        let after = self.settings.connect_timeout;
        let attempt = async {
            match (self.settings.kind, goal) {
                (Kind::Direct, Goal::Addresses(list)) => self.direct(list).await,
                (Kind::Direct, Goal::Target(target)) => {
                    let address = literal(target).ok_or(UpstreamError::NoAddress)?;
                    self.direct(&[address]).await
                }
                (Kind::Socks5(upstream), Goal::Target(target)) => {
                    self.socks5(upstream, literal(target), &socks5::request(target)).await
                }
                (Kind::Socks5(upstream), Goal::Addresses(list)) => {
                    let one = |address| self.socks5_to_address(upstream, address);
                    race::race(list, one).await
                }
            }
        };
        let result = timeout(after, attempt).await;
        if result.is_err() && self.settings.kind != Kind::Direct {
            self.health.miss();
        }
        result.unwrap_or(Err(UpstreamError::Timeout { after }))
    }

    async fn direct(&self, addresses: &[SocketAddr]) -> Result<Connected, UpstreamError> {
        let slot = self.slots.take()?;
        let mark = self.settings.mark;
        let (stream, address) = race::race(addresses, |address| async move {
            let dialled = sys::dial(address, mark).await;
            let stream = dialled.map_err(|source| UpstreamError::of_far_dial(address, source))?;
            Ok((stream, address))
        })
        .await?;
        let (early, reported) = (Bytes::new(), stream.local_addr().ok());
        Ok(Connected { stream, early, reported, address: Some(address), slot })
    }

    async fn socks5_to_address(
        &self,
        upstream: SocketAddr,
        address: SocketAddr,
    ) -> Result<Connected, UpstreamError> {
        let request = socks5::request_address(address);
        self.socks5(upstream, Some(address), &request).await
    }

    /// Asks over a pooled connection, and over a fresh one if there is none or it turns out dead.
    async fn socks5(
        &self,
        upstream: SocketAddr,
        address: Option<SocketAddr>,
        request: &[u8],
    ) -> Result<Connected, UpstreamError> {
        let pooled = (self.settings.pool > 0).then(|| self.pool.take(Instant::now())).flatten();
        let slot = match pooled {
            None => self.slots.take()?,
            Some(Greeted { stream, slot, .. }) => {
                match self.ask(&stream, upstream, request).await {
                    Ok(answer) => return Ok(connected(stream, answer, address, slot)),
                    Err(Broken::Said(error)) => return Err(error),
                    Err(Broken::Silent(_it_was_dead)) => slot,
                }
            }
        };
        let stream = self.dial_upstream(upstream).await?;
        let asked = self.greet_and_ask(&stream, upstream, request).await;
        let answer = asked.map_err(Broken::into_error)?;
        Ok(connected(stream, answer, address, slot))
    }

    async fn ask(
        &self,
        stream: &Stream,
        upstream: SocketAddr,
        request: &[u8],
    ) -> Result<Answer, Broken> {
        let mut talk = Talk::new(stream, upstream);
        talk.send(request).await?;
        talk.reply().await
    }

    async fn greet_and_ask(
        &self,
        stream: &Stream,
        upstream: SocketAddr,
        request: &[u8],
    ) -> Result<Answer, Broken> {
        let mut talk = Talk::new(stream, upstream);
        talk.greet(request).await?;
        talk.method().await?;
        self.health.alive();
        talk.reply().await
    }

    async fn dial_upstream(&self, address: SocketAddr) -> Result<Stream, UpstreamError> {
        let after = self.settings.local_timeout;
        match timeout(after, sys::dial(address, self.settings.mark)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => {
                let error = UpstreamError::of_local_dial(address, source);
                if matches!(error, UpstreamError::Down { .. }) {
                    self.health.down(&error.to_string());
                }
                Err(error)
            }
            Err(_elapsed) => {
                self.health.miss();
                Err(UpstreamError::LocalTimeout { address, after })
            }
        }
    }
}

/// What is to be connected, once admitted.
#[derive(Clone, Copy)]
enum Goal<'a> {
    Target(&'a Target),
    Addresses(&'a [SocketAddr]),
}

fn literal(target: &Target) -> Option<SocketAddr> {
    match target.host {
        Host::Address(ip) => Some(SocketAddr::new(ip, target.port.get())),
        Host::Name(_) => None,
    }
}

fn connected(
    stream: Stream,
    answer: Answer,
    address: Option<SocketAddr>,
    slot: UpstreamSlot,
) -> Connected {
    let Answer { reported, early } = answer;
    Connected { stream, early, reported, address, slot }
}

#[cfg(test)]
mod tests;
