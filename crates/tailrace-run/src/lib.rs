//! `tailrace run`: a program that knows no proxy, whose connections go through the gateway.
//!
//! A supervisor sees the program's `connect` by seccomp user notification (seccomp_unotify(2)),
//! connects the program's own socket to the gateway's proxy port, asks for the target there, and lets
//! `connect` return. It is a convenience and no fence: the gateway judges, as for every client
//! (docs/requirements.md, B27). Where kernel or sandbox forbid it, dynamic programs load a library that does
//! the same, and where not even that is to be had the proxy environment alone is set.
//!
//! The crate knows the gateway by its addresses and by the protocol of its proxy port ([`Gateway`]); it says what
//! it does by [`Notices`] and ends as the program ends.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod address;
mod caller;
mod connect;
mod counts;
mod dial;
mod filter;
mod known;
mod mechanism;
mod message;
mod nested;
mod peer;
mod preload;
mod program;
mod proxy_client;
mod receive;
mod report;
mod send;
mod supervised_program;
mod supervisor;
mod way;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::io::Errno;
use tailrace_sys::signals;

use self::mechanism::Mechanism;
pub use self::proxy_client::{ProxyAnswer, ProxyClient};
use self::report::Ended;
use self::supervised_program::{NotWrapped, SupervisedProgram};
pub use self::way::Gateway;

/// Gives the folder that the preloaded library is put into: one that this user alone can write to. Called where
/// the library is needed, so that none is made for nothing.
pub type PrivateFolder<'a> = dyn Fn() -> io::Result<PathBuf> + 'a;

/// A program and what it starts with.
pub struct ProgramToRun<'a> {
    /// A path, or a name to be found in `PATH`.
    pub program: OsString,
    /// What follows it.
    pub arguments: Vec<OsString>,
    /// Variables of this process that it must not get.
    pub withheld: Vec<OsString>,
    /// The variables that lead programs to the proxy, for those that heed them where nothing better is to be had.
    pub proxy_variables: Vec<(&'static str, String)>,
    /// For the preloaded library.
    pub private_folder: &'a PrivateFolder<'a>,
}

/// What a person may want to read, as it comes.
#[derive(Clone, Copy)]
pub struct Notices<'a> {
    /// Worth saying always.
    pub warn: &'a dyn Fn(&str),
    /// Worth saying when asked for.
    pub explain: &'a dyn Fn(&str),
}

/// Runs a program so that its TCP connections, and its DNS questions where the gateway has a port for
/// them, go through the gateway. Where there is no supervisor this process becomes the
/// program; else it ends as the program ends, by the same signal if by one, or returns its exit status. The
/// calling process must have one thread.
///
/// # Errors
/// The program cannot be run: what execve(2) says, and [`io::ErrorKind::NotFound`] when there is none.
pub fn run(program: &ProgramToRun<'_>, gateway: Gateway, notices: Notices<'_>) -> io::Result<u8> {
    if program::would_gain(&program.program, std::env::var_os("PATH").as_deref()) {
        (notices.warn)(&format!(
            "{} runs without its privilege: nothing gains one under run (no_new_privs)",
            program.program.display()
        ));
    }
    let explain = |mechanism: Mechanism| (notices.explain)(&mechanism.to_string());
    if nested::inside() {
        explain(Mechanism::Nested);
        return Err(become_it(command(program), program));
    }
    let why = match supervised(program, &gateway) {
        Ok(supervised_program) => {
            explain(Mechanism::Supervised { gateway, duplicates: supervised_program.duplicates });
            let (how, counts) = supervised_program.wait(notices.warn);
            if let Some(counts) = counts {
                (notices.explain)(&counts.to_string());
            }
            return Ok(end_as(how));
        }
        Err(NotWrapped::NotRun(error)) => return Err(cannot_run(program, error)),
        Err(NotWrapped::NoFilter(errno)) => mechanism::no_filter(errno),
        Err(NotWrapped::NotBegun(what)) => format!("no supervisor could be started: {what}"),
    };
    let mut command = command(program);
    let mut proxied = program.proxy_variables.clone();
    let mechanism = match preload::set(&mut command, &gateway, program.private_folder) {
        Ok(()) => {
            proxied.retain(|(name, _)| !is_for_all_protocols(name));
            Mechanism::Preload { why }
        }
        Err(nor) => Mechanism::Environment { why, nor },
    };
    command.envs(proxied);
    explain(mechanism);
    Err(become_it(command, program))
}

fn supervised(
    program: &ProgramToRun<'_>,
    gateway: &Gateway,
) -> Result<SupervisedProgram, NotWrapped> {
    if !mechanism::is_recent(rustix::system::uname().release()) {
        return Err(NotWrapped::NoFilter(Errno::NOSYS));
    }
    let filter = filter::filter(gateway.dns.is_some()).ok_or(NotWrapped::NoFilter(Errno::NOSYS))?;
    SupervisedProgram::start(command(program), &filter, gateway.clone())
}

/// Whether a variable names the proxy of protocols that have none of their own. curl would ask an HTTP
/// proxy there for `ftp://`, and the gateway is none for that, while its connections are carried anyhow.
fn is_for_all_protocols(name: &str) -> bool {
    name.eq_ignore_ascii_case("all_proxy")
}

/// The program with our environment, but for what is withheld from it, and ourselves as the proxy of all
/// protocols.
fn command(program: &ProgramToRun<'_>) -> Command {
    let mut command = Command::new(&program.program);
    command.args(&program.arguments);
    for name in &program.withheld {
        command.env_remove(name);
    }
    let for_all = program.proxy_variables.iter().filter(|(name, _)| is_for_all_protocols(name));
    for (name, ours) in for_all {
        if std::env::var_os(name).is_some_and(|value| value == ours.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

/// Becomes the program; returns only when that fails.
fn become_it(mut command: Command, program: &ProgramToRun<'_>) -> io::Error {
    cannot_run(program, command.exec())
}

/// As a shell says it: a folder of `PATH` that is closed to us makes no program of a name.
fn cannot_run(program: &ProgramToRun<'_>, error: io::Error) -> io::Error {
    let path = std::env::var_os("PATH");
    match program::found(&program.program, path.as_deref()) {
        Some(_) => error,
        None => io::ErrorKind::NotFound.into(),
    }
}

/// Ends as the program did, or says with which status to.
fn end_as(how: Ended) -> u8 {
    match how {
        Ended::Code(code) => code as u8,
        Ended::Signal(signal) => {
            signals::die_by(signal);
            128 | signal as u8
        }
    }
}
