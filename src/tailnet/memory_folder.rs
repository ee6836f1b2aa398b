//! A folder in memory for the node's identity: mounted here where this process may, and otherwise by this
//! very program, started once more in a user namespace of its own (`tailrace memory-folder`, hidden).
//!
//! A program of its own, because a process that holds a key is closed to its own user, and the kernel then
//! lets it map no user (user_namespaces(7)).
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::lifecycle::children::Children;
use crate::sys;

/// The command; hidden, for nobody else calls it.
pub const COMMAND: &str = "memory-folder";

/// For a process to start and mount it: milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes one.
pub(super) fn make_folder(children: &Arc<Children>) -> io::Result<OwnedFd> {
    sys::mount_memory_folder().or_else(|_not_here| by_another_process(children))
}

fn by_another_process(children: &Arc<Children>) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE))?;
    sys::ask_for_senders(ours.as_fd())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).env_clear().current_dir("/");
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
    // The reaper waits for it. It holds the other end, as its standard input, alone: it cannot end unseen.
    let child = children.spawn(command)?;
    let folder = sys::receive_descriptor(ours.as_fd(), child.id());
    folder.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this system lets no ordinary user mount anything in a user namespace",
        ),
        _ => error,
    })
}

/// What the hidden command does: mounts one and sends it through standard input, which is a socket.
///
/// # Errors
/// What the kernel does not allow.
pub fn serve_folder() -> io::Result<()> {
    sys::enter_user_namespace()?;
    // Only now: a process that is closed to its user may not write its own maps (user_namespaces(7)).
    sys::close_to_own_user()?;
    let folder = sys::mount_memory_folder()?;
    sys::send_descriptor(io::stdin().as_fd(), folder.as_fd())
}
