//! Starting a process under a seccomp filter whose listener stays here, and forking off the process
//! that holds it.
#![allow(unsafe_code, reason = "fork(2), clone(2), and descriptors by their number")]

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use super::seccomp::{self, FilterInstruction, FilterListener, InstalledFilter};
use super::signals::SignalMask;

/// Why no process runs under the filter.
#[derive(Debug)]
pub enum NotStarted {
    /// The kernel, or a sandbox, takes no such filter.
    NoFilter(Errno),
    /// The program cannot be run.
    NotRun(io::Error),
    /// No process could be made, or it said nothing.
    NoProcess(io::Error),
}

/// Starts `command` under `filter` with the signals of `mask` blocked; its calls come to us.
///
/// The child shares our table of descriptors until it execs (`CLONE_FILES`, clone(2)), so that the
/// listener it makes is ours as well: handing it over would take a call that the filter catches.
///
/// # Errors
/// [`NotStarted`].
pub fn start_filtered(
    command: &mut Command,
    filter: &[FilterInstruction],
    mask: SignalMask,
) -> Result<(Pid, FilterListener), NotStarted> {
    let (read, write) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| NotStarted::NoProcess(e.into()))?;
    let (mut read, mut write) = (File::from(read), File::from(write));
    let flags = libc::CLONE_FILES | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork(2) that shares descriptors. This process has one thread
    // (the caller forked it off, see `fork`), so no lock is held by a thread the child lacks. Until
    // the child has its own descriptors or is gone we are suspended (CLONE_VFORK).
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    if pid == 0 {
        in_the_child(command, filter, mask, &mut write);
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| pid > 0) else {
        return Err(NotStarted::NoProcess(io::Error::last_os_error()));
    };
    drop(write);
    let mut said = Vec::new();
    let heard = read.read_to_end(&mut said);
    let calls = match said.get(..6).map(InstalledFilter::from_bytes) {
        // SAFETY: the child made it in the table of descriptors we shared, and has none of its own
        // left: it execed, which closed it, or is gone.
        Some(Some(installed)) => Some(unsafe { FilterListener::from_installed(installed) }),
        _ => None,
    };
    let error =
        said.last_chunk().filter(|_| said.len() % 6 == 4).map(|raw| i32::from_ne_bytes(*raw));
    let failed = match (calls, error) {
        (Some(calls), None) => return Ok((pid, calls)),
        (Some(_), Some(raw)) => NotStarted::NotRun(io::Error::from_raw_os_error(raw)),
        (None, Some(raw)) => NotStarted::NoFilter(Errno::from_raw_os_error(raw)),
        (None, None) => NotStarted::NoProcess(
            heard.err().unwrap_or_else(|| io::Error::other("it was killed before it began")),
        ),
    };
    let _gone = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    Err(failed)
}

/// Filter, exec; what came of it is written to `tell`: six bytes of the listener, four of an error.
fn in_the_child(
    command: &mut Command,
    filter: &[FilterInstruction],
    mask: SignalMask,
    tell: &mut File,
) -> ! {
    let error = match seccomp::install_filter(filter) {
        Ok(installed) => {
            let _parent_gone = tell.write_all(&installed.to_bytes());
            mask.restore();
            command.exec().raw_os_error().unwrap_or(libc::EIO)
        }
        Err(errno) => errno.raw_os_error(),
    };
    let _parent_gone = tell.write_all(&error.to_ne_bytes());
    exit_now(127)
}

impl InstalledFilter {
    fn to_bytes(self) -> [u8; 6] {
        let [a, b, c, d] = self.listener.to_ne_bytes();
        [b'L', u8::from(self.killable), a, b, c, d]
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [b'L', killable, a, b, c, d] => {
                Some(Self { listener: RawFd::from_ne_bytes([a, b, c, d]), killable: killable != 0 })
            }
            _ => None,
        }
    }
}

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSide {
    /// The old process; the new one's id.
    Parent(Pid),
    /// The new process. It must end by [`exit_now`].
    Child,
}

/// fork(2), from a process with one thread.
///
/// # Errors
/// `Unsupported` when there are more: the child would be without them and keep their locks.
/// Otherwise `EAGAIN`, `ENOMEM`.
pub fn fork() -> io::Result<ForkSide> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: there is one thread, so the child is whole.
    match unsafe { libc::fork() } {
        0 => Ok(ForkSide::Child),
        pid => match Pid::from_raw(pid).filter(|_| pid > 0) {
            Some(pid) => Ok(ForkSide::Parent(pid)),
            None => Err(io::Error::last_os_error()),
        },
    }
}

/// Ends this process at once; nothing the parent of a fork still needs is touched.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: no code of ours runs after it.
    unsafe { libc::_exit(code.into()) }
}

/// Releases what was inherited: standard input and output become `/dev/null`, standard error too
/// unless it is kept, and every other descriptor that would outlive an exec is closed. A reader at the
/// other end then sees the program's end, not ours.
///
/// # Errors
/// `EMFILE`, or no `/proc` or `/dev/null`.
pub fn release_inherited_files(keep_stderr: bool) -> io::Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    if !keep_stderr {
        rustix::stdio::dup2_stderr(&null)?;
    }
    let numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: everything this process opens is closed on exec. What is not came from outside and
        // has no owner here, so that closing it takes it from nobody.
        unsafe {
            let seen = std::os::fd::BorrowedFd::borrow_raw(number);
            if rustix::io::fcntl_getfd(seen).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
                libc::close(number);
            }
        }
    }
    Ok(())
}
