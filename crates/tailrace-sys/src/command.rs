//! What a program we start gets from us beyond its command line: descriptors and limits.
//!
//! The only place with code between fork(2) and execve(2).
#![allow(unsafe_code, reason = "pre_exec, and a descriptor by its number")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a child is to start with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preparation<'a> {
    /// Descriptors it inherits under the numbers they have here. They stay closed to every other
    /// child.
    pub keep: &'a [BorrowedFd<'a>],
    /// Soft limit on open files (`RLIMIT_NOFILE`); `u64::MAX` is no limit, `None` leaves ours.
    pub open_files: Option<u64>,
    /// No core file, whatever its own limits were (`RLIMIT_CORE`, soft and hard).
    pub no_core: bool,
    /// A process group of its own (`setpgid(2)`): a terminal's Ctrl-C does not reach it.
    pub own_group: bool,
}

/// Prepares `command`; what is set takes effect in the child alone, between fork and exec.
///
/// # Errors
/// `EMFILE` when a descriptor to be kept cannot be doubled. What fails in the child comes back from
/// `spawn`.
pub fn prepare(command: &mut Command, preparation: Preparation<'_>) -> io::Result<()> {
    if preparation.own_group {
        command.process_group(0);
    }
    let Preparation { keep, open_files, no_core, .. } = preparation;
    // Copies of our own: the number may belong to another file by the time of the fork.
    let doubled = |fd: &BorrowedFd<'_>| Ok((fd.try_clone_to_owned()?, fd.as_raw_fd()));
    let kept = keep.iter().map(doubled).collect::<io::Result<Vec<(OwnedFd, RawFd)>>>()?;
    let in_the_child = move || {
        for (from, number) in &kept {
            hand_over(from, *number)?;
        }
        if let Some(soft) = open_files {
            limit_open_files(soft)?;
        }
        if no_core {
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed (signal-safety(7)). The
    // closure makes dup2(2), getrlimit(2) and setrlimit(2) alone; it allocates nothing, takes no lock
    // and cannot panic.
    unsafe { command.pre_exec(in_the_child) };
    Ok(())
}

/// Puts a copy of `from` where `number` is, open across exec (`dup2(2)` clears `FD_CLOEXEC`).
fn hand_over(from: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: this runs in the child, whose table of descriptors is a copy that ends with exec; no
    // owner of `number` runs there, and `ManuallyDrop` closes nothing.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(rustix::io::dup2(from, &mut place)?)
}

fn limit_open_files(soft: u64) -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = (soft != u64::MAX).then_some(soft);
    let current = match (wanted, maximum) {
        (Some(wanted), Some(most)) => Some(wanted.min(most)),
        (wanted, most) => wanted.or(most),
    };
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use super::*;

    fn reports_errno(script: &str, preparation: Preparation<'_>) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        prepare(&mut command, preparation).unwrap();
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn r2_limits_are_the_child_s_alone() {
        let before = getrlimit(Resource::Nofile);
        let preparation =
            Preparation { open_files: Some(77), no_core: true, ..Preparation::default() };
        assert_eq!(reports_errno("ulimit -S -n; ulimit -H -c", preparation), "77\n0\n");
        assert_eq!(getrlimit(Resource::Nofile), before);
    }

    #[test]
    fn a_kept_descriptor_arrives_under_its_number_and_others_do_not() {
        let (mut read, write) = std::io::pipe().unwrap();
        let other = std::io::pipe().unwrap();
        let (kept, not) = (write.as_raw_fd(), other.1.as_raw_fd());
        let script =
            format!("test -e /proc/$$/fd/{not} && echo open; echo kept >/proc/$$/fd/{kept}");
        let keep = [write.as_fd()];
        let said = reports_errno(&script, Preparation { keep: &keep, ..Preparation::default() });
        assert_eq!(said, "");
        drop(write);
        let mut told = String::new();
        read.read_to_string(&mut told).unwrap();
        assert_eq!(told, "kept\n");
    }

    #[test]
    fn s6_a_group_of_its_own() {
        let ours = rustix::process::getpgrp().as_raw_nonzero().to_string();
        let script = "cut -d' ' -f5 /proc/$$/stat";
        assert_eq!(reports_errno(script, Preparation::default()).trim(), ours);
        let own = Preparation { own_group: true, ..Preparation::default() };
        assert_ne!(reports_errno(script, own).trim(), ours);
    }
}
