//! The process that answers for a wrapped program: who waits, who works, and when it is over.
//!
//! One thread at a time leads: it waits for a call, hands the lead on and works on that call itself, so
//! that a slow connection holds up nobody.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions, pidfd_getfd, pidfd_open,
    pidfd_send_signal,
};

use super::caller::{Caller, Closed};
use super::counts::CallCounters;
use super::known::{Attempts, Known};
use super::report::{Ended, Report};
use super::way::Gateway;
use super::{connect, peer, receive, send};
use tailrace_sys::seccomp::{Call, Calls, Instruction};
use tailrace_sys::signals::Mask;
use tailrace_sys::wrapped::{self, NotStarted};

/// Sockets that lead to the gateway and whose programs may ask where to; about 100 bytes each. The
/// oldest makes room.
const MOST_CARRIED: usize = 65_536;
/// Sockets on which questions went out: each may cost us a descriptor.
const MOST_KEPT: usize = 256;
/// Threads that wait for a call at once; more end when they have nothing to do.
const MOST_IDLE: usize = 8;
/// Enough for the longest call's work.
const STACK: usize = 256 * 1024;

/// What all its threads share.
#[derive(Debug)]
pub(super) struct Supervisor {
    calls: Calls,
    lead: Mutex<()>,
    idle: AtomicUsize,
    /// Where calls are carried to.
    pub(super) gateway: Gateway,
    /// What was done.
    pub(super) counts: CallCounters,
    /// Datagram sockets with a question on them.
    pub(super) asked: Known<Asked>,
    /// Sockets that were connected to the gateway.
    pub(super) carried: Known<Carried>,
    /// Connections being made.
    pub(super) attempts: Attempts,
}

/// A socket with a question on it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Who was asked, as the program sees it.
    pub(super) nameserver: SocketAddr,
    /// Our hold on it, where a program's sockets cannot be duplicated.
    pub(super) ours: Option<Arc<OwnedFd>>,
}

/// A socket that was connected to the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    /// Where its program asked to go.
    pub(super) target: SocketAddr,
    /// Its local and its remote address, where it is one of ours in the place of the program's: then
    /// it cannot be duplicated, and the kernel is asked for it by these.
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
}

impl Carried {
    /// A program's own socket, to `target`; as the kernel shows a peer, without flow and scope.
    pub(super) fn to(target: SocketAddr) -> Self {
        Self { target: SocketAddr::new(target.ip(), target.port()), ends: None }
    }
}

/// The life of the supervising process: starts the program, tells the launcher, answers until the last
/// process under the filter is gone.
pub(super) fn live(
    launcher: OwnedFd,
    command: &mut Command,
    filter: &[Instruction],
    mask: Mask,
    gateway: Gateway,
) -> ! {
    let code = match begin(&launcher, command, filter, mask) {
        Ok((child, calls)) => {
            wait_for_all(&launcher, child, calls, gateway);
            0
        }
        Err(report) => {
            // Nobody to tell: the launcher was killed.
            let _gone = tell(&launcher, &report);
            1
        }
    };
    wrapped::exit_now(code)
}

fn begin(
    launcher: &OwnedFd,
    command: &mut Command,
    filter: &[Instruction],
    mask: Mask,
) -> Result<(Pid, Calls), Report> {
    let not_begun = |error: io::Error| Report::NotBegun { what: error.to_string() };
    // Orphans of the program stay below us: where Yama restricts ptrace(2), only what is below can
    // be looked into (`kernel.yama.ptrace_scope` = 1).
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| not_begun(errno.into()))?;
    let started = wrapped::start(command, filter, mask);
    let (child, calls) = started.map_err(|not| match not {
        NotStarted::NoFilter(errno) => Report::NoFilter { errno: errno.raw_os_error() },
        NotStarted::NotRun(error) => {
            Report::NotRun { errno: error.raw_os_error().unwrap_or(libc::EIO) }
        }
        NotStarted::NoProcess(error) => not_begun(error),
    })?;
    let duplicates = duplicates(child);
    let _killed =
        tell(launcher, &Report::Started { pid: child.as_raw_nonzero().get(), duplicates });
    // The launcher takes hold of the program before anybody can have waited for it.
    let _killed = rustix::net::recv(launcher, &mut [0; 1][..], RecvFlags::empty());
    let _leads = rustix::process::setsid(); // a terminal's signals are for the program alone
    let _kept = wrapped::let_go(false);
    Ok((child, calls))
}

/// Whether a program's descriptors can be duplicated. Its standard input will do.
fn duplicates(child: Pid) -> bool {
    let copy = pidfd_open(child, PidfdFlags::empty())
        .and_then(|child| pidfd_getfd(child, 0, PidfdGetfdFlags::empty()));
    matches!(copy, Ok(_) | Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH))
}

fn tell(launcher: &OwnedFd, report: &Report) -> io::Result<()> {
    let text = serde_json::to_vec(report)?;
    rustix::net::send(launcher, &text, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for every process below; the program's own end is told at once.
fn wait_for_all(launcher: &OwnedFd, child: Pid, calls: Calls, gateway: Gateway) {
    let supervisor = Arc::new(Supervisor::new(calls, gateway));
    Arc::clone(&supervisor).add_a_thread();
    let ended = Arc::new(AtomicBool::new(false));
    end_with(launcher, child, Arc::clone(&ended));
    loop {
        match rustix::process::wait(WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == child => {
                let report = match status.stopping_signal() {
                    Some(_) => Report::Stopped,
                    None => supervisor.ended(Ended::of(status), nobody_is_left()),
                };
                ended.fetch_or(report != Report::Stopped, Ordering::SeqCst);
                let _killed = tell(launcher, &report);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Whether there is no process below any more; waits for those that have ended.
fn nobody_is_left() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return false,
            Err(_none) => return true,
        }
    }
}

/// Kills the program when the launcher was killed: it stands for the program towards everybody else.
fn end_with(launcher: &OwnedFd, child: Pid, ended: Arc<AtomicBool>) {
    let child = pidfd_open(child, PidfdFlags::empty());
    let (Ok(launcher), Ok(child)) = (launcher.try_clone(), child) else {
        return;
    };
    let watch = move || {
        let _eof = rustix::net::recv(&launcher, &mut [0; 1][..], RecvFlags::empty());
        if !ended.load(Ordering::SeqCst) {
            let _gone = pidfd_send_signal(child.as_fd(), Signal::KILL);
        }
    };
    // Without this thread the program outlives the launcher.
    let _thread = thread::Builder::new().stack_size(STACK).spawn(watch);
}

impl Supervisor {
    fn new(calls: Calls, gateway: Gateway) -> Self {
        Self {
            calls,
            lead: Mutex::default(),
            idle: AtomicUsize::new(0),
            gateway,
            counts: CallCounters::default(),
            asked: Known::new(MOST_KEPT),
            carried: Known::new(MOST_CARRIED),
            attempts: Attempts::default(),
        }
    }

    fn ended(&self, how: Ended, alone: bool) -> Report {
        Report::Ended { how, counts: self.counts.total(), alone }
    }

    /// One more thread to wait for calls. Where none can be had, those there do what they can.
    fn add_a_thread(self: Arc<Self>) {
        self.idle.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&self);
        let started = thread::Builder::new().stack_size(STACK).spawn(move || shared.work());
        if started.is_err() {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn work(self: Arc<Self>) {
        while let Some(call) = self.next() {
            if self.idle.fetch_sub(1, Ordering::SeqCst) == 1 {
                Arc::clone(&self).add_a_thread();
            }
            self.handle(call);
            if self.idle.fetch_add(1, Ordering::SeqCst) >= MOST_IDLE {
                self.idle.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }

    fn next(&self) -> Option<Call> {
        let _lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        self.calls.next().ok().flatten()
    }

    fn handle(&self, call: Call) {
        let caller = Caller::new(&self.calls, call);
        let handled = match call.number {
            libc::SYS_connect => connect::connect(self, &caller),
            libc::SYS_sendto => send::sendto(self, &caller),
            libc::SYS_sendmsg => send::sendmsg(self, &caller),
            libc::SYS_sendmmsg => send::sendmmsg(self, &caller),
            libc::SYS_recvfrom => receive::recvfrom(self, &caller),
            libc::SYS_recvmsg => receive::recvmsg(self, &caller),
            libc::SYS_getpeername => peer::getpeername(self, &caller),
            libc::SYS_getsockopt => peer::peer_option(self, &caller),
            _ => {
                caller.let_pass();
                Ok(())
            }
        };
        match handled {
            Ok(()) | Err(Closed::Gone) => {}
            Err(Closed::Unreadable) => {
                self.counts.unreadable();
                caller.let_pass();
            }
        }
    }
}
