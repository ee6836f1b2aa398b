//! Which sockets are closing is not told here.

use std::io;
use std::net::SocketAddr;

use super::Owner;

/// Only Linux tells.
///
/// # Errors
/// Always `Unsupported`.
pub fn closing_sockets(_remote: SocketAddr) -> io::Result<Vec<Owner>> {
    Err(io::ErrorKind::Unsupported.into())
}
