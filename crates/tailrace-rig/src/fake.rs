//! A fake tailscaled: a process the gateway starts and supervises, driven by a test.
//!
//! The rig's `FakeTailnet` links to the program that runs [`main`], listens on a socket beside the link, and says what
//! the tailnet is like and what goes wrong; see [`script`]. What it does by itself it does as
//! tailscaled does in the version it is given, 1.98.9 or 1.102.3, faults included.
#![allow(clippy::print_stdout, reason = "a program, which talks by printing")]

mod backend;
mod bus;
mod control;
mod describe;
mod dialect;
mod localapi;
mod node;
mod notify;
mod peers;
mod relay;
mod route;
pub mod script;
mod socks;
mod stderr;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use backend::Backend;
use control::Control;
use node::{Nodes, Store};
use script::{Event, Numbered, Order, Script, Start};
use stderr::{fatal, log};

/// Every flag this tailscaled knows and takes a value for.
const FLAGS: [&str; 6] = ["tun", "state", "socket", "socks5-server", "statedir", "port"];

/// The command line.
#[derive(Default)]
struct Flags {
    version: bool,
    state: String,
    socket: PathBuf,
    socks5: Option<String>,
}

/// The program: its arguments and environment are those of a tailscaled.
pub fn main() {
    let (control, script, orders) = Control::connect();
    let flags = flags(&script);
    if flags.version {
        let v = &script.version;
        println!("{v}\n  long version: {v}\n  go version: go1.26.8");
        return;
    }
    raise_limit(&script);
    watch_parent();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(flags, control, script, orders));
    std::process::exit(0);
}

/// Go's flag package: one or two dashes, `=` or the next argument.
fn flags(script: &Script) -> Flags {
    let mut flags = Flags::default();
    let mut arguments = std::env::args().skip(1);
    let unknown = match &script.start {
        Start::UnknownFlag(flag) => Some(flag.trim_start_matches('-').to_owned()),
        _ => None,
    };
    while let Some(argument) = arguments.next() {
        let argument = argument.trim_start_matches('-');
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument, None),
        };
        let known = FLAGS.contains(&name) || ["no-logs-no-support", "version"].contains(&name);
        if !known || unknown.as_deref() == Some(name) {
            let said = format!("flag provided but not defined: -{name}\nUsage of tailscaled:\n");
            let _ = std::io::stderr().write_all(said.as_bytes());
            std::process::exit(2);
        }
        let mut value = || value.clone().or_else(|| arguments.next()).unwrap_or_default();
        match name {
            "version" => flags.version = true,
            "state" => flags.state = value(),
            "socket" => flags.socket = value().into(),
            "socks5-server" => flags.socks5 = Some(value()).filter(|v| !v.is_empty()),
            "tun" | "statedir" | "port" => drop(value()),
            _ => {}
        }
    }
    flags
}

/// Go raises the soft limit to the hard one; a test may want a low one instead.
fn raise_limit(script: &Script) {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = match script.open_files {
        Some(limit) => Rlimit { current: Some(limit), maximum: Some(limit) },
        None => Rlimit { current: hard, maximum: hard },
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// `TS_PARENT_DEATH_FD`: exit 1 when that pipe can be read or is closed (tailscaled.go).
fn watch_parent() {
    let Some(fd) = std::env::var("TS_PARENT_DEATH_FD").ok().and_then(|n| n.parse::<u32>().ok())
    else {
        return;
    };
    // The same pipe by its name: taking a number for a descriptor would need `unsafe`.
    let path = format!("/proc/self/fd/{fd}");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pipe = rustix::fs::open(&path, flags, Mode::empty())
        .unwrap_or_else(|e| fatal(&format!("TS_PARENT_DEATH_FD={fd} is no pipe: {e}")));
    let pipe = File::from(pipe);
    std::thread::spawn(move || {
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        while !matches!(poll(&mut fds, None), Ok(n) if n > 0) {}
        std::process::exit(1);
    });
}

async fn run(
    flags: Flags,
    control: Control,
    script: Script,
    mut orders: mpsc::UnboundedReceiver<Numbered>,
) {
    log(&format!("Program starting: v{}, Go 1.26.8: []string{{}}", script.version));
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    let state = Store::open(&flags.state)
        .unwrap_or_else(|error| fatal(&format!("getLocalBackend error: store.New: {error}")));
    let nodes = Nodes::beside(&control::folder());
    let backend = Backend::new(script, control.clone(), state, nodes);
    let serving = tokio::spawn(serve(flags, Arc::clone(&backend), control.clone()));
    let name = loop {
        tokio::select! {
            Some(order) = orders.recv() => obey(order, &backend, &control),
            _ = terminate.recv() => break "terminated",
            _ = interrupt.recv() => break "interrupt",
        }
    };
    control.tell(&Event::Signal(name.to_owned()));
    log(&format!("tailscaled got signal {name}; shutting down"));
    // The LocalAPI goes first; the handler is gone after one signal, so a second does nothing.
    serving.abort();
    backend.shut_down().await;
    log("flushing log.");
}

/// Opens what was asked for and serves it, in tailscaled's own order.
async fn serve(flags: Flags, backend: Arc<Backend>, control: Control) {
    let start = backend.look().script.start.clone();
    match start {
        Start::Normal | Start::UnknownFlag(_) => {}
        Start::Late(by) => tokio::time::sleep(by).await,
        Start::Never => std::future::pending().await,
        Start::Exit(said, code) => {
            log(&said);
            std::process::exit(code);
        }
    }
    let _ = std::fs::remove_file(&flags.socket);
    let local = UnixListener::bind(&flags.socket)
        .unwrap_or_else(|e| fatal(&format!("safesocket.Listen: {}: {e}", flags.socket.display())));
    let _ = std::fs::set_permissions(&flags.socket, std::fs::Permissions::from_mode(0o666));
    let mut socks = None;
    let claims = backend.look().script.claims;
    if let Some(stranger) = claims {
        log(&format!("SOCKS5 listening on {stranger}"));
    } else if let Some(to) = &flags.socks5 {
        let listener = TcpListener::bind(to).await;
        let listener = listener.unwrap_or_else(|e| fatal(&format!("SOCKS5 listener: {e}")));
        if to.ends_with(":0") {
            log(&format!("SOCKS5 listening on {}", socks::address(&listener)));
        }
        socks = Some(listener);
    }
    control.tell(&Event::Listening { socks: socks.as_ref().map(socks::address) });
    if let Some(listener) = socks {
        tokio::spawn(socks::serve(listener, Arc::clone(&backend)));
    }
    localapi::serve(local, backend).await;
}

fn obey(order: Numbered, backend: &Backend, control: &Control) {
    match order.order {
        Order::Script(script) => backend.script(*script),
        Order::Become(state) => backend.become_state(state),
        Order::Error(said) => backend.error(&said),
        Order::EndBus => backend.end_bus(),
        Order::Say(pieces, apart) => stderr::say(pieces, apart),
        Order::Flood(line, bytes) => stderr::flood(&line, bytes, control.clone()),
        Order::Eat(bytes) => eat(bytes),
        Order::Orphans(count) => orphans(count),
        Order::Tell => {}
        Order::Exit(code) => std::process::exit(code),
    }
    control.tell(&Event::Done(order.number));
}

/// Takes memory and touches it, on a thread of its own.
fn eat(bytes: u64) {
    std::thread::spawn(move || {
        let mut eaten: Vec<Vec<u8>> = Vec::new();
        for _ in 0..bytes >> 20 {
            eaten.push(std::hint::black_box(vec![1; 1 << 20]));
        }
        std::thread::park();
    });
}

/// Each is left by its parent at once: it is its reaper's then.
fn orphans(count: u32) {
    let script = format!("n=0; while [ $n -lt {count} ]; do (: & ) ; n=$((n + 1)); done");
    let mut shell = Command::new("sh");
    let shell = shell.arg("-c").arg(script).stdin(Stdio::null()).stderr(Stdio::null());
    let status = shell.status().unwrap();
    assert!(status.success(), "fake tailscaled: orphans: {status}");
}
