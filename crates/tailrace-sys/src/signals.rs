//! Signals as things to read, and dying by one as another process did.
#![allow(unsafe_code, reason = "masks and signalfd(2) have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

/// `SI_KERNEL` (sigaction(2)): sent by the kernel itself, as a terminal's signals are.
const SI_KERNEL: i32 = 0x80;

/// The signals a thread had blocked.
#[derive(Clone, Copy)]
pub struct SignalMask(libc::sigset_t);

/// Blocks every signal that can be blocked, for this thread and those it starts.
///
/// # Errors
/// None the kernel is known to give.
pub fn block_all() -> io::Result<SignalMask> {
    let mut before = MaybeUninit::uninit();
    let all = full_set();
    // SAFETY: both point to signal sets of our own; the second is written.
    let done = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, before.as_mut_ptr()) };
    match done {
        // SAFETY: the call succeeded and wrote it.
        0 => Ok(SignalMask(unsafe { before.assume_init() })),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn full_set() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset(3) writes the whole set and cannot fail on a set of ours.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    }
}

impl SignalMask {
    /// Sets this thread's mask to what it was.
    pub fn restore(&self) {
        // SAFETY: a set that the kernel gave us; nothing is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Blocked signals of this process, to be read (signalfd(2)).
#[derive(Debug)]
pub struct SignalReader(OwnedFd);

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// What was sent (signal(7)), from `ssi_signo` of signalfd(2).
    pub signal: Signal,
    /// Sent by the kernel: the terminal told every process of the foreground group.
    pub from_the_kernel: bool,
}

impl SignalReader {
    /// All that [`block_all`] blocks.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn open() -> io::Result<Self> {
        let all = full_set();
        // SAFETY: a set of our own; a new descriptor comes back, which nobody else owns.
        unsafe {
            match libc::signalfd(-1, &all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                fd if fd >= 0 => Ok(Self(OwnedFd::from_raw_fd(fd))),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// The next one that has come; `None` when there is none, or for one without a name.
    pub fn next_signal(&self) -> Option<ReceivedSignal> {
        let mut told = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.0, &mut told).ok()?;
        // ssi_signo, ssi_errno, ssi_code: three 32-bit numbers at its beginning (signalfd(2)).
        let number = |at: usize| told[at..at + 4].try_into().map(i32::from_ne_bytes).ok();
        (length == told.len()).then_some(())?;
        let signal = Signal::from_named_raw(number(0)?)?;
        Some(ReceivedSignal { signal, from_the_kernel: number(8)? == SI_KERNEL })
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends this process by `signal`, without a core file, so that whoever waits for it sees that signal;
/// returns where that signal does not end a process.
pub fn die_by(signal: i32) {
    let _core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let mut only = MaybeUninit::uninit();
    // SAFETY: sets of our own, written before they are read; the default action runs no code of ours.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(only.as_mut_ptr());
        libc::sigaddset(only.as_mut_ptr(), signal);
        libc::raise(signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, only.as_ptr(), std::ptr::null_mut());
    }
}

/// Stops this process until it is continued, as its program has stopped.
///
/// # Errors
/// None the kernel is known to give.
pub fn stop_self() -> Result<(), Errno> {
    rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)
}
