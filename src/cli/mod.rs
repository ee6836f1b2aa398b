//! The commands, one file each.
//!
//! They see settings and snapshots, never a connection; only these files print.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "commands talk to people")]

mod args;
mod config;
mod connect;
mod demo;
mod doctor;
mod env;
mod explain;
mod find;
mod generate;
mod key;
mod nft;
mod policy;
mod run;
mod status;
mod tell;
mod tunnel;
mod up;
mod wait;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::gateway::ChildCommand;
use crate::lifecycle::command::CommandLine;
use crate::lifecycle::environment::Ours;
use crate::target::Target;

use self::args::{Command, ConfigCommand, PolicyCommand, Program};

/// Exit codes (`docs/requirements.md`, Exit codes), as `sysexits.h` numbers them.
mod exit {
    /// A check failed.
    pub(super) const FAILED: u8 = 1;
    /// The command line is wrong.
    pub(super) const USAGE: u8 = 64;
    /// No gateway to talk to.
    pub(super) const NO_GATEWAY: u8 = 69;
    /// Try again: a port in use, not ready.
    pub(super) const TRY_AGAIN: u8 = 75;
    /// The configuration is wrong.
    pub(super) const CONFIG: u8 = 78;
}

/// Runs the command named by argv.
pub fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => return not_parsed(&error),
    };
    let settings = program.settings;
    if only_tells(&program.command) {
        crate::sys::sigpipe::ends_us();
    }
    match program.command {
        Command::Up { ready_timeout, command } => {
            let ours = env::ours(&settings);
            up::run(&settings, commanded(command, ready_timeout, ours).as_ref())
        }
        Command::Status { peers, json } => status::run(&settings, peers, json),
        Command::Doctor { json, target } => doctor::run(&settings, target.as_deref(), json),
        Command::Explain { json, target } => explain::run(&settings, &target, json),
        Command::Wait { timeout } => wait::run(&settings, timeout),
        Command::Connect { host, port } => connect::run(&settings, &Target { host, port }),
        Command::Run { explain, command } => run::run(&settings, explain, command),
        Command::Env { shell } => env::run(&settings, shell),
        Command::Nft { uid, undo } => nft::run(&settings, uid.filter(|_| !undo)),
        Command::Config { command: ConfigCommand::Check { file } } => config::check(settings, file),
        Command::Config { command: ConfigCommand::Show { json } } => config::show(&settings, json),
        Command::Policy { command: PolicyCommand::Test { json, hosts } } => {
            policy::test_hosts(&settings, &hosts, json)
        }
        Command::Demo { redirected } => demo::run(redirected),
        Command::MemoryFolder => match crate::tailnet::memory_folder::serve_folder() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tailrace: no folder in memory: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Completions { shell } => generate::completions(shell),
        Command::Man => generate::man(),
    }
}

/// Whether a command prints what it has to say and is done: it carries nothing and runs nothing.
fn only_tells(command: &Command) -> bool {
    use Command::{Connect, Demo, Run, Up};
    !matches!(command, Up { .. } | Connect { .. } | Demo { .. } | Run { .. })
}

fn commanded(words: Vec<OsString>, ready_timeout: Duration, ours: Ours) -> Option<ChildCommand> {
    let mut words = words.into_iter();
    let line = CommandLine { program: words.next()?, arguments: words.collect() };
    Some(ChildCommand { line, ready_timeout, ours })
}

/// Help and version are answers; everything else is a usage error, which clap would end with 2.
fn not_parsed(error: &clap::Error) -> ExitCode {
    let _closed_pipe = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(exit::USAGE),
    }
}
