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

use super::call_counters::CallCounters;
use super::report::{ProgramEnd, SupervisorReport};
use super::routing::GatewayAccess;
use super::socket_table::{ConnectionAttempts, SocketTable};
use super::suspended_call::{CallError, SuspendedCall};
use super::{connect, peer, receive, send};
use tailrace_sys::filtered_process::{self, NotStarted};
use tailrace_sys::seccomp::{CallNotification, FilterInstruction, FilterListener};
use tailrace_sys::signals::SignalMask;

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
pub(super) struct CallSupervisor {
    calls: FilterListener,
    lead: Mutex<()>,
    idle: AtomicUsize,
    /// Where calls are carried to.
    pub(super) gateway: GatewayAccess,
    /// What is told at the end, for `--explain`.
    pub(super) counts: CallCounters,
    /// Datagram sockets with a question on them.
    pub(super) asked: SocketTable<QuestionSocket>,
    /// Sockets that were connected to the gateway.
    pub(super) carried: SocketTable<CarriedSocket>,
    /// Connections that are being made, which an interrupted call finds again.
    pub(super) attempts: ConnectionAttempts,
}

/// A socket with a question on it.
#[derive(Debug, Clone)]
pub(super) struct QuestionSocket {
    /// Who was asked, as the program sees it.
    pub(super) nameserver: SocketAddr,
    /// Our hold on it, where a program's sockets cannot be duplicated.
    pub(super) ours: Option<Arc<OwnedFd>>,
}

/// A socket that was connected to the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct CarriedSocket {
    /// Where its program asked to go.
    pub(super) target: SocketAddr,
    /// Its local and its remote address, where it is one of ours in the place of the program's: then
    /// it cannot be duplicated, and the kernel is asked for it by these.
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
}

impl CarriedSocket {
    /// A program's own socket, to `target`; as the kernel shows a peer, without flow and scope.
    pub(super) fn to_target(target: SocketAddr) -> Self {
        Self { target: SocketAddr::new(target.ip(), target.port()), ends: None }
    }
}

/// The life of the supervising process: starts the program, tells the launcher, answers until the last
/// process under the filter is gone.
pub(super) fn run_supervisor(
    launcher: OwnedFd,
    command: &mut Command,
    filter: &[FilterInstruction],
    mask: SignalMask,
    gateway: GatewayAccess,
) -> ! {
    let code = match start_program(&launcher, command, filter, mask) {
        Ok((child, calls)) => {
            wait_for_all(&launcher, child, calls, gateway);
            0
        }
        Err(report) => {
            // Nobody to tell: the launcher was killed.
            let _gone = send_report(&launcher, &report);
            1
        }
    };
    filtered_process::exit_now(code)
}

fn start_program(
    launcher: &OwnedFd,
    command: &mut Command,
    filter: &[FilterInstruction],
    mask: SignalMask,
) -> Result<(Pid, FilterListener), SupervisorReport> {
    let not_begun = |error: io::Error| SupervisorReport::NotBegun { what: error.to_string() };
    // Orphans of the program stay below us: where Yama restricts ptrace(2), only what is below can
    // be looked into (`kernel.yama.ptrace_scope` = 1).
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| not_begun(errno.into()))?;
    let started = filtered_process::start_filtered(command, filter, mask);
    let (child, calls) = started.map_err(|not| match not {
        NotStarted::NoFilter(errno) => SupervisorReport::NoFilter { errno: errno.raw_os_error() },
        NotStarted::NotRun(error) => {
            SupervisorReport::NotRun { errno: error.raw_os_error().unwrap_or(libc::EIO) }
        }
        NotStarted::NoProcess(error) => not_begun(error),
    })?;
    let duplicates = can_duplicate(child);
    let _killed = send_report(
        launcher,
        &SupervisorReport::Started { pid: child.as_raw_nonzero().get(), duplicates },
    );
    // The launcher takes hold of the program before anybody can have waited for it.
    let _killed = rustix::net::recv(launcher, &mut [0; 1][..], RecvFlags::empty());
    let _leads = rustix::process::setsid(); // a terminal's signals are for the program alone
    let _kept = filtered_process::release_inherited_files(false);
    Ok((child, calls))
}

/// Whether a program's descriptors can be duplicated. Its standard input will do.
fn can_duplicate(child: Pid) -> bool {
    let copy = pidfd_open(child, PidfdFlags::empty())
        .and_then(|child| pidfd_getfd(child, 0, PidfdGetfdFlags::empty()));
    matches!(copy, Ok(_) | Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH))
}

fn send_report(launcher: &OwnedFd, report: &SupervisorReport) -> io::Result<()> {
    let text = serde_json::to_vec(report)?;
    rustix::net::send(launcher, &text, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for every process below; the program's own end is told at once.
fn wait_for_all(launcher: &OwnedFd, child: Pid, calls: FilterListener, gateway: GatewayAccess) {
    let supervisor = Arc::new(CallSupervisor::new(calls, gateway));
    Arc::clone(&supervisor).add_a_thread();
    let ended = Arc::new(AtomicBool::new(false));
    kill_with_launcher(launcher, child, Arc::clone(&ended));
    loop {
        match rustix::process::wait(WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == child => {
                let report = match status.stopping_signal() {
                    Some(_) => SupervisorReport::Stopped,
                    None => {
                        supervisor.end_report(ProgramEnd::from_status(status), nobody_is_left())
                    }
                };
                ended.fetch_or(report != SupervisorReport::Stopped, Ordering::SeqCst);
                let _killed = send_report(launcher, &report);
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
fn kill_with_launcher(launcher: &OwnedFd, child: Pid, ended: Arc<AtomicBool>) {
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

impl CallSupervisor {
    fn new(calls: FilterListener, gateway: GatewayAccess) -> Self {
        Self {
            calls,
            lead: Mutex::default(),
            idle: AtomicUsize::new(0),
            gateway,
            counts: CallCounters::default(),
            asked: SocketTable::new(MOST_KEPT),
            carried: SocketTable::new(MOST_CARRIED),
            attempts: ConnectionAttempts::default(),
        }
    }

    fn end_report(&self, how: ProgramEnd, alone: bool) -> SupervisorReport {
        SupervisorReport::Ended { how, counts: self.counts.current_totals(), alone }
    }

    /// One more thread to wait for calls. Where none can be had, those there do what they can.
    fn add_a_thread(self: Arc<Self>) {
        self.idle.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&self);
        let started = thread::Builder::new().stack_size(STACK).spawn(move || shared.serve_calls());
        if started.is_err() {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn serve_calls(self: Arc<Self>) {
        while let Some(call) = self.next_call() {
            if self.idle.fetch_sub(1, Ordering::SeqCst) == 1 {
                Arc::clone(&self).add_a_thread();
            }
            self.handle_call(call);
            if self.idle.fetch_add(1, Ordering::SeqCst) >= MOST_IDLE {
                self.idle.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }

    fn next_call(&self) -> Option<CallNotification> {
        let _lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        self.calls.next_call().ok().flatten()
    }

    fn handle_call(&self, call: CallNotification) {
        let caller = SuspendedCall::new(&self.calls, call);
        let handled = match call.number {
            libc::SYS_connect => connect::handle_connect(self, &caller),
            libc::SYS_sendto => send::handle_sendto(self, &caller),
            libc::SYS_sendmsg => send::handle_sendmsg(self, &caller),
            libc::SYS_sendmmsg => send::handle_sendmmsg(self, &caller),
            libc::SYS_recvfrom => receive::handle_recvfrom(self, &caller),
            libc::SYS_recvmsg => receive::handle_recvmsg(self, &caller),
            libc::SYS_getpeername => peer::handle_getpeername(self, &caller),
            libc::SYS_getsockopt => peer::handle_peer_option(self, &caller),
            _ => {
                caller.let_pass();
                Ok(())
            }
        };
        match handled {
            Ok(()) | Err(CallError::Gone) => {}
            Err(CallError::Unreadable) => {
                self.counts.count_unreadable();
                caller.let_pass();
            }
        }
    }
}
