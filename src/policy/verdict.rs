//! What policy says, and the permission only it can give.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

pub use crate::labels::{PolicyMode as Mode, Verdict};

/// A verdict of the rules, and the rule behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// The mode in force.
    pub mode: Mode,
    /// What the rules say of a target.
    pub verdict: Verdict,
    /// The rule that decided, as written; `None` when no rule spoke.
    pub rule: Option<String>,
}

/// Why a target is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is this gateway itself.
    #[error("it is this gateway itself")]
    Loop,
    /// A rule forbids it, or none allows it.
    #[error("policy does not allow it")]
    Denied,
    /// The address may be reached, but not the server that TLS asks for there.
    #[error("policy does not allow the server that TLS asks for")]
    ServerName,
    /// It is an address of `dns.synthetic` that no name has: there is nobody behind it.
    #[error("no name has {address} of dns.synthetic")]
    UnassignedSynthetic {
        /// The address that was asked for, or found.
        address: IpAddr,
    },
    /// Nothing in the tailnet covers the address, and no other may be dialled (`upstream.outside_tailnet`).
    #[error("nothing in the tailnet covers {address}, and upstream.outside_tailnet refuses it")]
    OutsideTailnet {
        /// The address that was asked for, or found.
        address: IpAddr,
    },
}

/// Something policy has admitted. Nobody else can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted<T>(T);

/// An address to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The host's address, canonical: IPv4-mapped IPv6 is IPv4.
    pub ip: IpAddr,
    /// The TCP port, never 0.
    pub port: NonZeroU16,
}

impl<T> Admitted<T> {
    pub(super) fn new(value: T) -> Self {
        Self(value)
    }

    /// The target, name or address that was admitted.
    pub fn get(&self) -> &T {
        &self.0
    }
}

impl Address {
    /// The same as the standard library takes it, to dial it.
    pub fn socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.get())
    }
}
