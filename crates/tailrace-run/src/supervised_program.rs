//! The process people see: it stands for the program towards its parent and its terminal, and passes
//! signals, stops and the end on.
//!
//! It is not the supervisor, which may have to outlive the program for what that leaves running.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Command;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

use super::call_counters::CallTotals;
use super::report::{self, ProgramEnd, SupervisorReport};
use super::routing::GatewayAccess;
use super::supervisor;
use tailrace_sys::filtered_process::{self, ForkSide};
use tailrace_sys::seccomp::FilterInstruction;
use tailrace_sys::signals::{self, ReceivedSignal, SignalMask, SignalReader};

/// Why no program runs under a supervisor.
#[derive(Debug)]
pub(super) enum NotSupervised {
    /// Kernel or sandbox take no filter: the shim may do.
    NoFilter(Errno),
    /// The program cannot be run, wrapped or not.
    NotRun(io::Error),
    /// This process could not make what it needs.
    NotBegun(String),
}

/// A program that runs under a supervisor.
#[derive(Debug)]
pub(super) struct SupervisedProgram {
    program: Pid,
    handle: OwnedFd,
    supervisor: OwnedFd,
    supervisor_id: Pid,
    signals: SignalReader,
    /// Whether its sockets are duplicated, or replaced.
    pub(super) duplicates: bool,
}

/// The program's end; the counts too, unless the supervisor was killed before.
pub(super) type EndAndTotals = (ProgramEnd, Option<CallTotals>);

impl SupervisedProgram {
    /// Starts the program. Signals of this process are ours to pass on from here.
    ///
    /// # Errors
    /// [`NotWrapped`]; this process is then as it was.
    pub(super) fn start(
        mut command: Command,
        filter: &[FilterInstruction],
        gateway: GatewayAccess,
    ) -> Result<Self, NotSupervised> {
        let not_begun = |error: io::Error| NotSupervised::NotBegun(error.to_string());
        let mask = signals::block_all().map_err(not_begun)?;
        let started = Self::fork_supervisor(&mut command, filter, mask, gateway);
        if started.is_err() {
            mask.restore();
        }
        started
    }

    fn fork_supervisor(
        command: &mut Command,
        filter: &[FilterInstruction],
        mask: SignalMask,
        gateway: GatewayAccess,
    ) -> Result<Self, NotSupervised> {
        let not_begun = |error: io::Error| NotSupervised::NotBegun(error.to_string());
        let signals = SignalReader::open().map_err(not_begun)?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| not_begun(errno.into()))?;
        // Should the supervisor be killed, the program becomes our child.
        let adopts = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        adopts.map_err(|errno| not_begun(errno.into()))?;
        let supervisor_id = match filtered_process::fork().map_err(not_begun)? {
            ForkSide::Child => {
                drop(ours);
                supervisor::run_supervisor(theirs, command, filter, mask, gateway)
            }
            ForkSide::Parent(supervisor) => supervisor,
        };
        drop(theirs);
        let (program, handle, duplicates) = await_start(&ours).inspect_err(|_| {
            // Whatever this process becomes next has started no child.
            reap_supervisor(supervisor_id);
            _ = rustix::process::set_child_subreaper(None);
        })?;
        Ok(Self { program, handle, supervisor: ours, supervisor_id, signals, duplicates })
    }

    /// Waits for the program's end, passing on what comes. `warn` is told what a person should know.
    pub(super) fn wait_for_end(&self, warn: &dyn Fn(&str)) -> EndAndTotals {
        // A reader at the other end of our standard output is to see the program's end of it alone.
        let _kept = filtered_process::release_inherited_files(true);
        let mut supervised = true;
        loop {
            let watched = if supervised { self.supervisor.as_fd() } else { self.handle.as_fd() };
            let (signal, told) = self.poll_events(watched);
            if signal {
                while let Some(came) = self.signals.next_signal() {
                    self.pass_on(came);
                }
            }
            match (told, supervised) {
                (false, _) => {}
                (true, true) => match receive_report(&self.supervisor) {
                    Some(SupervisorReport::Ended { how, counts, alone }) => {
                        if alone {
                            reap_supervisor(self.supervisor_id);
                        }
                        return (how, Some(counts));
                    }
                    Some(SupervisorReport::Stopped) => _ = signals::stop_self(),
                    Some(_) => {}
                    None => {
                        supervised = false;
                        warn(
                            "the supervisor was killed: what CMD connects from now on fails \
                             with ENOSYS; end it and start it again",
                        );
                    }
                },
                (true, false) => return (self.adopted_end(), None),
            }
        }
    }

    fn poll_events(&self, watched: BorrowedFd<'_>) -> (bool, bool) {
        let mut all = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(watched, PollFlags::IN),
        ];
        // Every signal is blocked, so it is not interrupted; a failure would be of memory, for now.
        let _again = rustix::event::poll(&mut all, None);
        (!all[0].revents().is_empty(), !all[1].revents().is_empty())
    }

    /// Passes a signal on, unless the terminal has sent it to the program as well.
    fn pass_on(&self, came: ReceivedSignal) {
        let ours_alone = [Signal::CHILD, Signal::PIPE].contains(&came.signal);
        let in_our_group = || {
            rustix::process::getpgid(Some(self.program))
                .is_ok_and(|group| group == rustix::process::getpgrp())
        };
        if ours_alone || came.from_the_kernel && in_our_group() {
            return;
        }
        // It may have ended.
        let _gone = pidfd_send_signal(&self.handle, came.signal);
    }

    /// The end of a program that has become our child.
    fn adopted_end(&self) -> ProgramEnd {
        match waitpid(Some(self.program), WaitOptions::empty()) {
            Ok(Some((_, status))) => ProgramEnd::from_status(status),
            // The supervisor had waited for it, and was killed before it could tell.
            _ => ProgramEnd::Code(1),
        }
    }
}

/// Waits for a supervisor that ends: left to a process 1 that waits for nobody, as in many containers, each
/// would stay as a zombie.
fn reap_supervisor(supervisor: Pid) {
    let _killed_and_waited_for = waitpid(Some(supervisor), WaitOptions::empty());
}

/// The program, once it runs: its id, a handle to it, and whether its sockets can be duplicated.
fn await_start(supervisor: &OwnedFd) -> Result<(Pid, OwnedFd, bool), NotSupervised> {
    match receive_report(supervisor) {
        Some(SupervisorReport::Started { pid, duplicates }) => {
            let handle = Pid::from_raw(pid)
                .ok_or(Errno::SRCH)
                .and_then(|program| Ok((program, pidfd_open(program, PidfdFlags::empty())?)));
            let (program, handle) = handle.map_err(|e| NotSupervised::NotBegun(e.to_string()))?;
            let _killed = rustix::net::send(supervisor, b".", SendFlags::NOSIGNAL);
            Ok((program, handle, duplicates))
        }
        Some(SupervisorReport::NoFilter { errno }) => {
            Err(NotSupervised::NoFilter(Errno::from_raw_os_error(errno)))
        }
        Some(SupervisorReport::NotRun { errno }) => {
            Err(NotSupervised::NotRun(io::Error::from_raw_os_error(errno)))
        }
        Some(SupervisorReport::NotBegun { what }) => Err(NotSupervised::NotBegun(what)),
        _ => Err(NotSupervised::NotBegun("its supervisor was killed".to_owned())),
    }
}

/// The next message; `None` when the supervisor is gone.
fn receive_report(supervisor: &OwnedFd) -> Option<SupervisorReport> {
    let mut text = [0; report::LONGEST];
    let (_, length) = rustix::net::recv(supervisor, &mut text[..], RecvFlags::empty()).ok()?;
    serde_json::from_slice(&text[..length]).ok()
}
