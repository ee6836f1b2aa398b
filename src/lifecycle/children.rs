//! Every child process of the gateway, and what process 1 owes its orphans.
//!
//! One reaper waits for all of them: nobody else in this process may, or a status would be lost. Where
//! orphans become ours they are waited for too; elsewhere only our own children are.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::process::{self, ChildStderr, ChildStdout, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit status.
    Code(i32),
    /// By the signal of this number (signal(7)).
    Signal(i32),
}

impl Ended {
    /// The status of one that was waited for without `WUNTRACED`, so that it has ended.
    fn of(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(status.exit_status().unwrap_or_default()),
        }
    }

    /// What a shell's `$?` says of it: its status, or 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code as u8,
            Self::Signal(signal) => 128 | signal as u8,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Who has not yet been waited for, and where their end is to be told.
type KnownChildren = HashMap<Pid, watch::Sender<Option<Ended>>>;

/// The reaper, and the children it knows.
#[derive(Debug)]
pub struct Children {
    /// Held while a child is made or waited for: one that dies at once is known by then, and a
    /// command that cannot be started is waited for by `spawn` itself.
    known: Mutex<KnownChildren>,
    /// Whether orphans become our children.
    adopts: bool,
}

/// A child process. Dropping it neither ends it nor leaves a zombie.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    pid: Pid,
    ended: watch::Receiver<Option<Ended>>,
    children: Arc<Children>,
}

impl Children {
    /// Starts the reaper, inside a tokio runtime. One per process where orphans become ours.
    ///
    /// # Errors
    /// What `sigaction(2)` says.
    pub fn start() -> io::Result<Arc<Self>> {
        let mut somebody_ended = signal(SignalKind::child())?;
        let adopts = crate::sys::adopts_orphans();
        let children = Arc::new(Self { known: Mutex::default(), adopts });
        let reaper = Arc::downgrade(&children);
        tokio::spawn(async move {
            while let Some(children) = reaper.upgrade() {
                children.reap();
                drop(children);
                if somebody_ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(children)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// What `fork(2)` or `execve(2)` say.
    pub fn spawn(self: &Arc<Self>, mut command: Command) -> io::Result<Child> {
        let mut known = self.lock();
        let process = command.spawn()?;
        let pid = Pid::from_child(&process);
        let (tell, ended) = watch::channel(None);
        known.insert(pid, tell);
        Ok(Child { process, pid, ended, children: Arc::clone(self) })
    }

    /// Waits for everybody who has ended.
    fn reap(&self) {
        let mut known = self.lock();
        known.retain(|pid, tell| match rustix::process::waitpid(Some(*pid), WaitOptions::NOHANG) {
            Ok(None) => true,
            Ok(Some((_, status))) => told(tell, Ended::of(status)),
            // Waited for by somebody else in this process: its status is gone, its end is not.
            Err(error) => {
                tracing::error!(pid = pid.as_raw_nonzero(), %error, "a child's status was lost");
                told(tell, Ended::Code(-1))
            }
        });
        if self.adopts {
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                // Ours if it ended since we asked for it above.
                if let Some(tell) = known.remove(&pid) {
                    told(&tell, Ended::of(status));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, KnownChildren> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a child's end; false, as it need not be known any longer.
fn told(tell: &watch::Sender<Option<Ended>>, ended: Ended) -> bool {
    tell.send_replace(Some(ended));
    false
}

impl Child {
    /// Its process id, which is nobody else's until it was waited for.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end; at once if that has come. May be cancelled, and asked again.
    pub async fn ended(&mut self) -> Ended {
        loop {
            if let Some(ended) = *self.ended.borrow_and_update() {
                return ended;
            }
            if self.ended.changed().await.is_err() {
                // The sender stays until it has told: `children` holds it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has ended and was waited for: its id may be somebody else's by now.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let _nobody_is_waited_for = self.children.lock();
        match *self.ended.borrow() {
            None => Ok(rustix::process::kill_process(self.pid, signal)?),
            Some(_) => Err(Errno::SRCH.into()),
        }
    }

    /// Its standard output, if that was piped; once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Its standard error, if that was piped; once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.process.stderr.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn t13_each_child_s_own_status() {
        let children = Children::start().unwrap();
        let started: Vec<Child> =
            (0..40).map(|n| children.spawn(sh(&format!("exit {n}"))).unwrap()).collect();
        for (n, mut child) in (0..).zip(started) {
            assert_eq!(child.ended().await, Ended::Code(n));
            assert_eq!(child.ended().await.to_string(), format!("exit status {n}"), "again");
        }
        let mut killed = children.spawn(sh("kill -9 $$")).unwrap();
        let ended = killed.ended().await;
        assert_eq!((ended, ended.exit_code()), (Ended::Signal(9), 137));
        assert_eq!(ended.to_string(), "signal 9");
    }

    #[tokio::test]
    async fn waiting_can_be_given_up_and_taken_up_again() {
        let children = Children::start().unwrap();
        let mut command = sh("read line; exit 3");
        command.stdin(process::Stdio::piped());
        let mut child = children.spawn(command).unwrap();
        tokio::select! {
            biased;
            ended = child.ended() => panic!("{ended}"),
            () = tokio::task::yield_now() => {}
        }
        drop(child.process.stdin.take());
        assert_eq!(child.ended().await, Ended::Code(3));
    }

    #[tokio::test]
    async fn no_signal_after_the_end() {
        let children = Children::start().unwrap();
        let mut child = children.spawn(sh("exec sleep 600")).unwrap();
        child.signal(Signal::TERM).unwrap();
        assert_eq!(child.ended().await, Ended::Signal(15));
        let error = child.signal(Signal::TERM).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::SRCH.raw_os_error()));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_an_error() {
        let children = Children::start().unwrap();
        let error = children.spawn(Command::new("/nonexistent/tailscaled")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(children.lock().is_empty());
    }
}
