//! Who comes in: listening sockets, the accept loop that never dies and never spins, and the bounds
//! on clients. It reads no byte a client sends.
#![forbid(unsafe_code)]

mod accept;
mod accept_errors;
mod limits;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use self::accept::accept_loop;
pub use self::limits::{Limits, Permit, PermitSlot};
use crate::sys::{self, Stream};
use crate::target::Target;

/// A bound, listening socket that nobody accepts from yet.
#[derive(Debug)]
pub struct Bound {
    socket: OwnedFd,
    address: SocketAddr,
    leads_to: Option<Arc<Target>>,
    /// Bound with `IP_TRANSPARENT` (ip(7)), for connections that TPROXY leads here.
    transparent: bool,
}

/// A client that came in.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, of which no byte was read.
    pub stream: Stream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Where it came in.
    pub local: SocketAddr,
    /// Where it was going, if netfilter led it here.
    pub original_dst: Option<SocketAddr>,
    /// What this listener stands for, if it is a static forward.
    pub leads_to: Option<Arc<Target>>,
    /// Its place; to be held until the connection is closed.
    pub permit: Permit,
}

impl Bound {
    /// Binds and listens; port 0 lets the kernel pick.
    ///
    /// # Errors
    /// What `bind(2)` says, its errno kept: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        let socket = sys::listen(address)?;
        let address = sys::bound_address(&socket)?;
        Ok(Self { socket, address, leads_to: None, transparent: false })
    }

    /// The same for connections that TPROXY leads here, whatever their destination.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, and what [`Bound::new`] says.
    pub fn transparent(address: SocketAddr) -> io::Result<Self> {
        let socket = sys::listen_transparent(address)?;
        let address = sys::bound_address(&socket)?;
        Ok(Self { socket, address, leads_to: None, transparent: true })
    }

    /// The same as a static forward: every client is led to `target`.
    #[must_use]
    pub fn leading_to(self, target: Target) -> Self {
        Self { leads_to: Some(Arc::new(target)), ..self }
    }

    /// The address as bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
