//! A folder in memory that has no path anywhere: a tmpfs that is mounted nowhere (fsmount(2)), reached by
//! its descriptor alone and gone with the last one.
//!
//! Mounting needs `CAP_SYS_ADMIN` in the user namespace of the mount namespace. Where this process has
//! none, a process in a user namespace of its own mounts it and hands the descriptor over (unix(7)).
//!
//! Whoever of the same user may look into that process could take the descriptor from it (pidfd_getfd(2)), so it
//! is closed to its user before it mounts anything; and what is received counts only from that process.
#![allow(unsafe_code, reason = "unshare(2) may take descriptors away from their owners")]

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::thread::UnshareFlags;

/// More than a node's identity takes, which is a few kilobytes and as much again while it is replaced.
const SIZE: &str = "4M";
const FILES: &str = "64";

/// Mounts one, for this process's effective user alone.
///
/// # Errors
/// What fsopen(2), fsconfig(2) or fsmount(2) say: `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` before
/// Linux 5.2.
pub fn mount_memory_folder() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    for (key, value) in [("size", SIZE), ("nr_inodes", FILES), ("mode", "0700")] {
        rustix::mount::fsconfig_set_string(context, key, value)?;
    }
    // What is in memory stays out of the swap area, where the kernel can promise that (Linux 6.4).
    let _older_kernels_swap = rustix::mount::fsconfig_set_flag(context, "noswap");
    rustix::mount::fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Moves this process into a user and a mount namespace of its own, in which it is the user it was and
/// has every capability. It must have one thread.
///
/// # Errors
/// What unshare(2) says, `EPERM` where the system forbids user namespaces; what writing the maps says
/// (user_namespaces(7)).
pub fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: unshare(2) is unsafe only with `CLONE_FILES`, which is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Closes this process to other programs of its user (`PR_SET_DUMPABLE`, prctl(2)), if none of them looks into
/// it already.
///
/// # Errors
/// `PermissionDenied` while it is traced (ptrace(2)); what the kernel says.
pub fn close_to_own_user() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let status = fs::read_to_string("/proc/self/status")?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    match tracer.map(str::trim) {
        Some("0") => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "this process is traced")),
    }
}

/// Has the kernel say of each message which process sent it (`SO_PASSCRED`, unix(7)): before the first is sent.
///
/// # Errors
/// What setsockopt(2) says.
pub fn ask_for_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// Sends `descriptor` through a Unix socket (`SCM_RIGHTS`).
///
/// # Errors
/// What sendmsg(2) says.
pub fn send_descriptor(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"d")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Waits for a descriptor that the process `sender` sent by [`send_descriptor`], as long as the socket's own
/// time-out allows. [`ask_for_senders`] must have been called; what others send is closed.
///
/// # Errors
/// What recvmsg(2) says; `UnexpectedEof` where the sender ended without one.
pub fn receive_descriptor(socket: BorrowedFd<'_>, sender: u32) -> io::Result<OwnedFd> {
    loop {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let (mut byte, flags) = ([0], RecvFlags::CMSG_CLOEXEC);
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        // A socket with a time-out is not asked again by itself after a signal (signal(7)).
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, bytes, &mut control, flags))?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut descriptor, mut from) = (None, None);
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptor = descriptors.next(),
                RecvAncillaryMessage::ScmCredentials(credentials) => {
                    from = u32::try_from(credentials.pid.as_raw_nonzero().get()).ok();
                }
                _ => {}
            }
        }
        if let (Some(descriptor), true) = (descriptor, from == Some(sender)) {
            return Ok(descriptor);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_travels_through_a_socket() {
        let (near, far) = UnixStream::pair().unwrap();
        ask_for_senders(far.as_fd()).unwrap();
        let us = std::process::id();
        let (mut read, write) = io::pipe().unwrap();
        send_descriptor(near.as_fd(), write.as_fd()).unwrap();
        drop(write);
        let received = receive_descriptor(far.as_fd(), us).unwrap();
        rustix::io::write(&received, b"through").unwrap();
        drop(received);
        assert_eq!(io::read_to_string(&mut read).unwrap(), "through");
        send_descriptor(near.as_fd(), read.as_fd()).unwrap();
        drop(near);
        let error = receive_descriptor(far.as_fd(), us + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "another process sent that one");
    }

    #[test]
    fn v8_a_folder_in_memory_has_no_path_and_takes_files() {
        let folder = match mount_memory_folder() {
            Ok(folder) => folder,
            // An ordinary user: the whole way is walked by `tests/node_identity.rs`.
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        };
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        fs::write(format!("{path}/one.tmp"), "identity").unwrap();
        fs::rename(format!("{path}/one.tmp"), format!("{path}/one")).unwrap();
        assert_eq!(fs::read_to_string(format!("{path}/one")).unwrap(), "identity");
        assert_eq!(fs::read_link(&path).unwrap(), std::path::Path::new("/"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("size=4096k,nr_inodes=64"), "{mounts}");
    }
}
