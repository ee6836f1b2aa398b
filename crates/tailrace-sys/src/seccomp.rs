//! seccomp(2): a filter over system calls, and the calls it hands to somebody else to answer
//! (seccomp_unotify(2)).
#![allow(unsafe_code, reason = "seccomp(2) and its ioctls have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// One instruction of a filter, in classic BPF (linux/filter.h).
pub type FilterInstruction = libc::sock_filter;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (linux/seccomp.h, Linux 6.6): caller and answerer share a CPU.
const SYNC_WAKE_UP: u64 = 1;

/// A filter in force on the calling thread, as it can be told to another process with the same table
/// of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstalledFilter {
    /// The listener's number, closed on exec.
    pub listener: RawFd,
    /// Once received, a call waits through every signal but a fatal one (Linux 5.19).
    pub killable: bool,
}

/// Sets no_new_privs (prctl(2)) and puts `filter` over the calling thread and all it will start.
///
/// # Errors
/// `EBUSY` where a listener is in force already, `EINVAL` or `ENOSYS` where there is no seccomp user
/// notification, `EACCES` or `EPERM` where a sandbox forbids it.
pub(super) fn install_filter(filter: &[FilterInstruction]) -> Result<InstalledFilter, Errno> {
    rustix::thread::set_no_new_privs(true)?;
    let (listen, killable) =
        (libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    match set_filter(filter, listen | killable) {
        Ok(listener) => Ok(InstalledFilter { listener, killable: true }),
        // Kernels before 5.19 do not know the second flag.
        Err(Errno::INVAL) => {
            set_filter(filter, listen).map(|listener| InstalledFilter { listener, killable: false })
        }
        Err(errno) => Err(errno),
    }
}

fn set_filter(filter: &[FilterInstruction], flags: libc::c_ulong) -> Result<RawFd, Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let operation = libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: the kernel copies `program` and the instructions it points to, which outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(last_errno)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A system call somebody waits in.
#[derive(Debug, Clone, Copy)]
pub struct CallNotification {
    /// Its name towards the kernel, never used twice.
    pub id: u64,
    /// The calling thread, as this process's pid namespace numbers it.
    pub pid: u32,
    /// The system call's number.
    pub number: i64,
    /// Its arguments, as they lie in the registers.
    pub arguments: [u64; 6],
}

/// The listener: where calls come in and answers go out. Any thread may answer.
#[derive(Debug)]
pub struct FilterListener {
    listener: OwnedFd,
    /// Whether a received call waits through signals, as in [`InstalledFilter::killable`].
    pub killable: bool,
}

impl FilterListener {
    /// Takes the listener over.
    ///
    /// # Safety
    /// `installed.listener` is an open listener that nobody else owns.
    pub(super) unsafe fn from_installed(installed: InstalledFilter) -> Self {
        // SAFETY: the caller's promise.
        let listener = unsafe { OwnedFd::from_raw_fd(installed.listener) };
        // Refused before Linux 6.6, where it is merely slower.
        // SAFETY: this ioctl takes its flags by value.
        let _slower = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP as libc::c_ulong,
            )
        };
        Self { listener, killable: installed.killable }
    }

    /// Waits for the next call; `None` once nobody is left under the filter.
    ///
    /// # Errors
    /// What `poll(2)` and the ioctl say. A caller that was killed meanwhile is no error.
    pub fn next_call(&self) -> io::Result<Option<CallNotification>> {
        loop {
            let mut waiting = [PollFd::new(&self.listener, PollFlags::IN)];
            match rustix::event::poll(&mut waiting, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            let seen = waiting[0].revents();
            if seen.contains(PollFlags::IN) {
                match self.receive_call() {
                    Err(Errno::INTR | Errno::NOENT) => continue,
                    call => return Ok(Some(call?)),
                }
            }
            if seen.intersects(PollFlags::HUP | PollFlags::ERR) {
                return Ok(None);
            }
        }
    }

    fn receive_call(&self) -> Result<CallNotification, Errno> {
        // SAFETY: plain numbers, for which zero is a value; the kernel wants them zeroed.
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut told)?;
        let number = told.data.nr.into();
        Ok(CallNotification { id: told.id, pid: told.pid, number, arguments: told.data.args })
    }

    /// Whether the caller still waits in this very call: what was read from its memory is its own.
    pub fn still_waits(&self, id: u64) -> bool {
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut { id }).is_ok()
    }

    /// Makes the call return this; false when the caller no longer waits.
    pub fn return_result(&self, id: u64, result: Result<i64, Errno>) -> bool {
        let (val, error) = match result {
            Ok(value) => (value, 0),
            Err(errno) => (0, -errno.raw_os_error()),
        };
        self.send_response(libc::seccomp_notif_resp { id, val, error, flags: 0 })
    }

    /// Lets the kernel carry the call out as it stands; false when the caller no longer waits.
    pub fn let_pass(&self, id: u64) -> bool {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.send_response(libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
    }

    fn send_response(&self, mut answer: libc::seccomp_notif_resp) -> bool {
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer).is_ok()
    }

    /// Puts a copy of `fd` in the place of the caller's descriptor `number`.
    ///
    /// # Errors
    /// `ENOENT` when the caller no longer waits, `EBADF` for a number beyond its limits.
    pub fn put_descriptor(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        number: RawFd,
        closed_on_exec: bool,
    ) -> Result<(), Errno> {
        let mut addition = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: number.cast_unsigned(),
            newfd_flags: if closed_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut addition)
    }

    fn ioctl<T>(&self, request: libc::Ioctl, argument: &mut T) -> Result<(), Errno> {
        // SAFETY: each caller above passes the type that belongs to its request (linux/seccomp.h),
        // borrowed alone for the call.
        let done = unsafe { libc::ioctl(self.listener.as_raw_fd(), request, &raw mut *argument) };
        if done < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

impl AsFd for FilterListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
