//! How much of what a socket took has not left, or has not arrived (tcp(7), `SIOCOUTQ`).

use std::io;
use std::os::fd::AsFd;

/// Bytes the peer has not acknowledged, sent or not. Of a Unix socket none: what it took lies with
/// its peer, whatever becomes of us.
///
/// # Errors
/// What `ioctl(2)` says.
pub fn unacked(socket: &impl AsFd) -> io::Result<usize> {
    if rustix::net::sockopt::socket_domain(socket)? == rustix::net::AddressFamily::UNIX {
        return Ok(0);
    }
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411; // linux/sockios.h, the same as TIOCOUTQ
    queue_size::<SIOCOUTQ>(socket)
}

/// Bytes not yet sent: a reset throws these away.
///
/// # Errors
/// What `ioctl(2)` says.
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    const SIOCOUTQNSD: rustix::ioctl::Opcode = 0x894b; // linux/sockios.h
    queue_size::<SIOCOUTQNSD>(socket)
}

#[allow(unsafe_code)] // rustix has no safe name for these two
fn queue_size<const OPCODE: rustix::ioctl::Opcode>(socket: &impl AsFd) -> io::Result<usize> {
    use std::ffi::c_int;
    // SAFETY: both requests write one int through their argument and read nothing (tcp(7)).
    let bytes = unsafe {
        let getter = rustix::ioctl::Getter::<OPCODE, c_int>::new();
        rustix::ioctl::ioctl(socket, getter)
    }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
