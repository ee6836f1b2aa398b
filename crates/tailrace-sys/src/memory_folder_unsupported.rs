//! The twin of `memory_folder.rs` where there is no fsmount(2): nothing can be had.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Nothing is mounted here.
///
/// # Errors
/// Always `Unsupported`.
pub fn mount_memory_folder() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no user namespaces here.
///
/// # Errors
/// Always `Unsupported`.
pub fn enter_user_namespace() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody asks for it here.
///
/// # Errors
/// Always `Unsupported`.
pub fn close_to_own_user() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody sends anything here.
///
/// # Errors
/// Always `Unsupported`.
pub fn ask_for_senders(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody asks for it here.
///
/// # Errors
/// Always `Unsupported`.
pub fn send_descriptor(_socket: BorrowedFd<'_>, _descriptor: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nobody sends one here.
///
/// # Errors
/// Always `Unsupported`.
pub fn receive_descriptor(_socket: BorrowedFd<'_>, _sender: u32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}
