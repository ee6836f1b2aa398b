//! What policy says, and the permission only it can give.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

/// What the allow-lists do. `deny_nets` and loops hold in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// Say what enforcement would have done.
    Log,
    /// Refuse what they do not allow.
    Enforce,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Carried.
    Allow,
    /// Carried, but enforcement would refuse it.
    WouldDeny,
    /// Refused.
    Deny,
}

/// A verdict of the rules, and the rule behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// The mode in force.
    pub mode: Mode,
    /// What was decided.
    pub verdict: Verdict,
    /// The rule that decided, as written; `None` when no rule spoke.
    pub rule: Option<String>,
}

/// Why a target is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is this gateway itself.
    Loop,
    /// A rule forbids it, or none allows it.
    Denied,
    /// The address may be reached, but not the server that TLS asks for there.
    ServerName,
    /// It is an address of `dns.synthetic` that no name has: there is nobody behind it.
    UnassignedSynthetic {
        /// The address.
        address: IpAddr,
    },
    /// Nothing in the tailnet covers the address, and no other may be dialled (`upstream.outside_tailnet`).
    OutsideTailnet {
        /// The address.
        address: IpAddr,
    },
}

/// Where an address leads by way of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To a peer of the tailnet, or to a network that a peer routes.
    Tailnet,
    /// Out of the tailnet: tailscaled dials it from this host's network.
    Outside,
    /// Out of this host's network, without any upstream.
    Direct,
}

impl Route {
    /// The `route` of the access log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tailnet => "tailnet",
            Self::Outside => "outside",
            Self::Direct => "direct",
        }
    }
}

/// Something policy has admitted. Nobody else can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted<T>(T);

/// An address to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The host's address.
    pub ip: IpAddr,
    /// The TCP port.
    pub port: NonZeroU16,
}

impl Mode {
    /// The metric's `mode`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Log => "log",
            Self::Enforce => "enforce",
        }
    }
}

impl Verdict {
    /// The metric's `verdict`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::WouldDeny => "would_deny",
            Self::Deny => "deny",
        }
    }
}

impl<T> Admitted<T> {
    pub(super) fn new(value: T) -> Self {
        Self(value)
    }

    /// What was admitted.
    pub fn get(&self) -> &T {
        &self.0
    }
}

impl Address {
    /// Ready to dial.
    pub fn socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.get())
    }
}
