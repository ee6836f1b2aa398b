//! `tailrace run`: a program that knows no proxy, whose connections go through the gateway.
//!
//! A supervisor sees the program's `connect` by seccomp user notification (seccomp_unotify(2)),
//! connects the program's own socket to the gateway's proxy port, asks for the target there, and lets
//! `connect` return. It is a convenience and no fence: the gateway judges, as for every client
//! (docs/requirements.md, B27). Where kernel or sandbox forbid it, dynamic programs load a library that does
//! the same, and where not even that is to be had the proxy environment alone is set.
//!
//! The crate knows the gateway by its addresses and by the protocol of its proxy port ([`GatewayAccess`]); it says what
//! it does by [`UserNotices`] and ends as the program ends.
#![forbid(unsafe_code)]

mod address;
mod call_counters;
mod connect;
mod dial;
mod executable;
mod filter;
mod mechanism;
mod message;
mod nested;
mod peer;
mod preload;
mod proxy_client;
mod receive;
mod report;
mod routing;
mod send;
mod socket_table;
mod supervised_program;
mod supervisor;
mod suspended_call;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::io::Errno;
use tailrace_sys::signals;

use self::mechanism::RunMechanism;
pub use self::proxy_client::{ProxyAnswer, ProxyClient};
use self::report::ProgramEnd;
pub use self::routing::GatewayAccess;
use self::supervised_program::{NotSupervised, SupervisedProgram};

/// Gives the folder that the preloaded library is put into: one that this user alone can write to. Called where
/// the library is needed, so that none is made for nothing.
pub type PrivateFolder<'a> = dyn Fn() -> io::Result<PathBuf> + 'a;

/// A program and what it starts with.
pub struct ProgramToRun<'a> {
    /// A path, or a name to be found in `PATH`.
    pub program: OsString,
    /// Its arguments, without its own name.
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
pub struct UserNotices<'a> {
    /// What a person has to know, whether they asked or not.
    pub warn: &'a dyn Fn(&str),
    /// How the program is run and what was carried, for those who ask for it.
    pub explain: &'a dyn Fn(&str),
}

/// Runs a program so that its TCP connections, and its DNS questions where the gateway has a port for
/// them, go through the gateway. Where there is no supervisor this process becomes the
/// program; else it ends as the program ends, by the same signal if by one, or returns its exit status. The
/// calling process must have one thread.
///
/// # Errors
/// The program cannot be run: what execve(2) says, and [`io::ErrorKind::NotFound`] when there is none.
pub fn run(
    program: &ProgramToRun<'_>,
    gateway: GatewayAccess,
    notices: UserNotices<'_>,
) -> io::Result<u8> {
    if executable::would_gain_privilege(&program.program, std::env::var_os("PATH").as_deref()) {
        (notices.warn)(&format!(
            "{} runs without its privilege: nothing gains one under run (no_new_privs)",
            program.program.display()
        ));
    }
    let explain = |mechanism: RunMechanism| (notices.explain)(&mechanism.to_string());
    if nested::is_nested() {
        explain(RunMechanism::Nested);
        return Err(exec_program(build_command(program), program));
    }
    let why = match start_supervised(program, &gateway) {
        Ok(supervised_program) => {
            explain(RunMechanism::Supervised {
                gateway,
                duplicates: supervised_program.duplicates,
            });
            let (how, counts) = supervised_program.wait_for_end(notices.warn);
            if let Some(counts) = counts {
                (notices.explain)(&counts.to_string());
            }
            return Ok(end_as(how));
        }
        Err(NotSupervised::NotRun(error)) => return Err(exec_error(program, error)),
        Err(NotSupervised::NoFilter(errno)) => mechanism::no_filter(errno),
        Err(NotSupervised::NotBegun(what)) => format!("no supervisor could be started: {what}"),
    };
    let mut command = build_command(program);
    let mut proxied = program.proxy_variables.clone();
    let mechanism = match preload::set_preload(&mut command, &gateway, program.private_folder) {
        Ok(()) => {
            proxied.retain(|(name, _)| !is_for_all_protocols(name));
            RunMechanism::Preload { why }
        }
        Err(nor) => RunMechanism::Environment { why, nor },
    };
    command.envs(proxied);
    explain(mechanism);
    Err(exec_program(command, program))
}

fn start_supervised(
    program: &ProgramToRun<'_>,
    gateway: &GatewayAccess,
) -> Result<SupervisedProgram, NotSupervised> {
    if !mechanism::is_recent(rustix::system::uname().release()) {
        return Err(NotSupervised::NoFilter(Errno::NOSYS));
    }
    let filter =
        filter::call_filter(gateway.dns.is_some()).ok_or(NotSupervised::NoFilter(Errno::NOSYS))?;
    SupervisedProgram::start(build_command(program), &filter, gateway.clone())
}

/// Whether a variable names the proxy of protocols that have none of their own. curl would ask an HTTP
/// proxy there for `ftp://`, and the gateway is none for that, while its connections are carried anyhow.
fn is_for_all_protocols(name: &str) -> bool {
    name.eq_ignore_ascii_case("all_proxy")
}

/// The program with our environment, but for what is withheld from it, and ourselves as the proxy of all
/// protocols.
fn build_command(program: &ProgramToRun<'_>) -> Command {
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
fn exec_program(mut command: Command, program: &ProgramToRun<'_>) -> io::Error {
    exec_error(program, command.exec())
}

/// As a shell says it: a folder of `PATH` that is closed to us makes no program of a name.
fn exec_error(program: &ProgramToRun<'_>, error: io::Error) -> io::Error {
    let path = std::env::var_os("PATH");
    match executable::find_in_path(&program.program, path.as_deref()) {
        Some(_) => error,
        None => io::ErrorKind::NotFound.into(),
    }
}

/// Ends as the program did, or says with which status to.
fn end_as(how: ProgramEnd) -> u8 {
    match how {
        ProgramEnd::Code(code) => code as u8,
        ProgramEnd::Signal(signal) => {
            signals::die_by(signal);
            128 | signal as u8
        }
    }
}
