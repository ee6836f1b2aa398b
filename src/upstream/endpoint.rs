//! Where the upstream is, and what is known of it there.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::health::UpstreamHealth;
use super::pool::GreetedPool;

/// Where the upstream takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Port(SocketAddr),
    /// A Unix socket.
    Socket(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// One place, from being pointed at until something else is. What was learnt and opened there is
/// of no use anywhere else.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) endpoint: Endpoint,
    pub(super) health: UpstreamHealth,
    pub(super) pool: GreetedPool,
}

impl EndpointState {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, health: UpstreamHealth::default(), pool: GreetedPool::default() }
    }
}
