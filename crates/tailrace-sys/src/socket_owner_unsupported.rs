//! Sockets' owners are not told here.

use std::io;
use std::net::SocketAddr;

/// The owner of a socket on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id of who made the socket.
    pub uid: u32,
    /// The socket's inode.
    pub inode: u32,
}

/// Only Linux tells.
///
/// # Errors
/// Always `Unsupported`.
pub fn socket_owner(_local: SocketAddr, _remote: SocketAddr) -> io::Result<Owner> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The same for many sockets at a time.
#[derive(Debug)]
pub struct SocketOwners(());

impl SocketOwners {
    /// Only Linux tells.
    ///
    /// # Errors
    /// Always `Unsupported`.
    pub fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// One answer for each pair.
    pub fn ask(&mut self, pairs: &[(SocketAddr, SocketAddr)]) -> Vec<Option<Owner>> {
        vec![None; pairs.len()]
    }
}
