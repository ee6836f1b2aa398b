//! Whether this process runs under a `run` already.
#![forbid(unsafe_code)]

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::connect::NESTED;
use super::routing::PROBE;

/// Asks an outer supervisor, by a connection to a name nobody listens at. A variable in the environment
/// would go where the filter does not, by ssh say.
pub(super) fn is_nested() -> bool {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    // The name of an abstract address is without its zero byte.
    match (socket, SocketAddrUnix::new_abstract_name(&PROBE[1..])) {
        (Ok(socket), Ok(name)) => rustix::net::connect(&socket, &name) == Err(NESTED),
        _ => false,
    }
}
