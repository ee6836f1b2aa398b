//! `tailrace run`: a program that knows no proxy, whose connections go through the gateway.
//!
//! A supervisor sees the program's `connect` by seccomp user notification (seccomp_unotify(2)),
//! connects the program's own socket to the gateway's proxy port, asks for the target there, and lets
//! `connect` return. It is a convenience and no fence: the gateway judges, as for every client (B27).
//! Where kernel or sandbox forbid it, dynamic programs load a shim that does the same, and where not
//! even that is to be had the proxy environment alone is set.
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
mod receive;
mod report;
mod send;
mod supervised_program;
mod supervisor;
mod way;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;

use self::mechanism::Mechanism;
use self::report::Ended;
use self::supervised_program::{NotWrapped, SupervisedProgram};
pub use self::way::Gateway;
use crate::lifecycle::command::{CommandError, CommandLine};
use crate::lifecycle::environment::{self, Variable};
use crate::sys::signals;

/// What a person may want to read, as it comes.
#[derive(Clone, Copy)]
pub struct Tell<'a> {
    /// Worth saying always.
    pub warn: &'a dyn Fn(&str),
    /// Worth saying when asked for.
    pub explain: &'a dyn Fn(&str),
}

/// Runs a program so that its TCP connections, and its DNS questions where the gateway has a port for
/// them, go through the gateway. Where there is no supervisor this process becomes the
/// program; else it ends as the program ends, by the same signal if by one. The calling process must
/// have one thread. `folder` is one of this user's own, for the shim, and is made where it is missing.
///
/// # Errors
/// [`CommandError`] when the program cannot be run.
pub fn run(
    line: &CommandLine,
    gateway: Gateway,
    folder: &Path,
    tell: Tell<'_>,
) -> Result<u8, CommandError> {
    if program::would_gain(&line.program, std::env::var_os("PATH").as_deref()) {
        (tell.warn)(&format!(
            "{} runs without its privilege: nothing gains one under run (no_new_privs)",
            line.program.display()
        ));
    }
    let explain = |mechanism: Mechanism| (tell.explain)(&mechanism.to_string());
    if nested::inside() {
        explain(Mechanism::Nested);
        return Err(become_it(command(line, &gateway), line));
    }
    let why = match supervised(line, &gateway) {
        Ok(supervised_program) => {
            explain(Mechanism::Supervised { gateway, duplicates: supervised_program.duplicates });
            let (how, counts) = supervised_program.wait(tell.warn);
            if let Some(counts) = counts {
                (tell.explain)(&counts.to_string());
            }
            return Ok(end_as(how));
        }
        Err(NotWrapped::NotRun(error)) => return Err(cannot_run(line, error)),
        Err(NotWrapped::NoFilter(errno)) => mechanism::no_filter(errno),
        Err(NotWrapped::NotBegun(what)) => format!("no supervisor could be started: {what}"),
    };
    let mut command = command(line, &gateway);
    let mut proxied = proxied(&gateway);
    let mechanism = match preload::set(&mut command, &gateway, folder) {
        Ok(()) => {
            proxied.retain(|(name, _)| !is_for_all_protocols(name));
            Mechanism::Preload { why }
        }
        Err(nor) => Mechanism::Environment { why, nor },
    };
    command.envs(proxied);
    explain(mechanism);
    Err(become_it(command, line))
}

fn supervised(line: &CommandLine, gateway: &Gateway) -> Result<SupervisedProgram, NotWrapped> {
    if !mechanism::is_recent(rustix::system::uname().release()) {
        return Err(NotWrapped::NoFilter(Errno::NOSYS));
    }
    let filter = filter::filter(gateway.dns.is_some()).ok_or(NotWrapped::NoFilter(Errno::NOSYS))?;
    SupervisedProgram::start(command(line, gateway), &filter, gateway.clone())
}

/// What a program is told of the proxy by variables.
fn proxied(gateway: &Gateway) -> Vec<Variable> {
    environment::preferred(&gateway.proxy).map(environment::proxied).unwrap_or_default()
}

/// Whether a variable names the proxy of protocols that have none of their own. curl would ask an HTTP
/// proxy there for `ftp://`, and the gateway is none for that, while its connections are carried anyhow.
fn is_for_all_protocols(name: &str) -> bool {
    name.eq_ignore_ascii_case("all_proxy")
}

/// The program with our environment, but for what is private, what leads psql elsewhere (the variables
/// of a `[[forward]]` listener), and ourselves as the proxy of all protocols.
fn command(line: &CommandLine, gateway: &Gateway) -> Command {
    let mut command = Command::new(&line.program);
    command.args(&line.arguments);
    for (name, _) in std::env::vars_os().filter(|(n, v)| environment::is_private(n, v)) {
        command.env_remove(name);
    }
    command.env_remove("PGHOSTADDR").env_remove("PGPORT");
    for (name, ours) in proxied(gateway).iter().filter(|(name, _)| is_for_all_protocols(name)) {
        if std::env::var_os(name).is_some_and(|value| value == ours.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

/// Becomes the program; returns only when that fails.
fn become_it(mut command: Command, line: &CommandLine) -> CommandError {
    cannot_run(line, command.exec())
}

/// As a shell says it: a folder of `PATH` that is closed to us makes no program of a name.
fn cannot_run(line: &CommandLine, error: io::Error) -> CommandError {
    let path = std::env::var_os("PATH");
    match program::found(&line.program, path.as_deref()) {
        Some(_) => CommandError::of(&line.program, error),
        None => CommandError::NotFound { program: line.program.clone() },
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
