//! What becomes of a command whose reader has left.
#![allow(unsafe_code, reason = "the disposition of a signal has no safe wrapper")]

/// From now on writing to a pipe that nobody reads ends this process, quietly, as it ends the other programs
/// of a pipeline (signal(7), `SIGPIPE`); Rust ignores that signal, and printing would panic.
pub fn ends_us() {
    // SAFETY: the default action runs no code of ours, and no other thread has been started yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
