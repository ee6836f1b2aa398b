//! The program `up -- CMD` runs: what it starts with, the signals it gets, and its end.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use super::children::{Child, Children};
use super::environment::{self, Variable};
use super::program;
use crate::sys::{self, Preparation};

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// A path, or a name to be found in `PATH`.
    pub program: OsString,
    /// The arguments after it, passed on as they are.
    pub arguments: Vec<OsString>,
}

/// Why the program cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The system found no such file (ENOENT), at that path or in `PATH`.
    #[error("{}: there is no such program: check its name and PATH", program.display())]
    NotFound {
        /// As it was given.
        program: OsString,
    },
    /// It is there, and cannot be run.
    #[error("{}: cannot be run: {source}", program.display())]
    NotRun {
        /// As it was given.
        program: OsString,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CommandError {
    /// What starting `program` failed with.
    pub fn of(program: &OsStr, source: io::Error) -> Self {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { program },
            _ => Self::NotRun { program, source },
        }
    }

    /// The exit code of a shell that finds the same (POSIX, Shell Command Language 2.8.2).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotRun { .. } => 126,
        }
    }
}

/// The program while it runs, and its end.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts it in our process group, with these variables set, nothing private of ours among the
    /// others, and the soft limit on open files that we were started with.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn start(
        children: &Arc<Children>,
        line: &CommandLine,
        variables: Vec<Variable>,
        open_files: u64,
    ) -> Result<Self, CommandError> {
        let failed = |source| CommandError::of(&line.program, source);
        // A directory of PATH that is closed to us makes execvp(3) say EACCES for what is nowhere.
        if let Err(error) = program::find(Path::new(&line.program))
            && error.kind() == io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let mut command = Command::new(&line.program);
        command.args(&line.arguments);
        for (name, _) in std::env::vars_os().filter(|(n, v)| environment::is_private(n, v)) {
            command.env_remove(name);
        }
        command.envs(variables);
        let limits = Preparation { open_files: Some(open_files), ..Preparation::default() };
        sys::prepare(&mut command, limits).map_err(failed)?;
        let child = children.spawn(command).map_err(failed)?;
        Ok(Self { child })
    }

    /// Waits for its end, for our own exit code: its status, or 128 and its signal's number.
    pub async fn ended(&mut self) -> u8 {
        self.child.ended().await.exit_code()
    }

    /// Passes a signal of ours on, unless the terminal has already sent it to both of us.
    pub fn forward(&self, signal: Signal) {
        let of_terminals = [Signal::INT, Signal::QUIT, Signal::WINCH].contains(&signal);
        if of_terminals && in_the_foreground() {
            return;
        }
        if let Err(error) = self.child.signal(signal) {
            tracing::debug!(%error, ?signal, "CMD did not take a signal");
        }
    }
}

/// Whether our process group, which is CMD's too, is the one our terminal sends its signals to.
fn in_the_foreground() -> bool {
    let ours = rustix::process::getpgrp();
    rustix::termios::tcgetpgrp(rustix::stdio::stdin()).is_ok_and(|group| group == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ends(script: &str) -> u8 {
        let children = Children::start().unwrap();
        let line =
            CommandLine { program: "sh".into(), arguments: vec!["-c".into(), script.into()] };
        let variables = vec![("CANARY", "4321".to_owned())];
        Running::start(&children, &line, variables, 99).unwrap().ended().await
    }

    #[tokio::test]
    async fn it_ends_as_it_ends_and_starts_with_variables_and_limit() {
        assert_eq!(ends("exit 42").await, 42);
        assert_eq!(ends("kill -TERM $$").await, 143);
        assert_eq!(ends("test $CANARY = 4321").await, 0);
        assert_eq!(ends("test $(ulimit -S -n) = 99").await, 0);
    }

    #[tokio::test]
    async fn what_cannot_be_run_ends_126_or_127_as_in_a_shell() {
        let children = Children::start().unwrap();
        for (program, code) in [("/nonexistent/x", 127), ("no-such-program", 127), ("/etc", 126)] {
            let line = CommandLine { program: program.into(), arguments: Vec::new() };
            let error = Running::start(&children, &line, Vec::new(), 99).unwrap_err();
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(program));
        }
    }

    #[tokio::test]
    async fn signals_reach_it() {
        let children = Children::start().unwrap();
        let script = "trap 'exit 7' USR1; kill -USR1 $$; sleep 600";
        let line =
            CommandLine { program: "sh".into(), arguments: vec!["-c".into(), script.into()] };
        let mut running = Running::start(&children, &line, Vec::new(), 99).unwrap();
        assert_eq!(running.ended().await, 7);
        let line = CommandLine { program: "sleep".into(), arguments: vec!["600".into()] };
        let mut running = Running::start(&children, &line, Vec::new(), 99).unwrap();
        running.forward(Signal::TERM);
        assert_eq!(running.ended().await, 143);
        running.forward(Signal::TERM);
    }
}
