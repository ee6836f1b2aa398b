//! A tailnet for a gateway that manages its own tailscaled: the test's side of the fake process.
//!
//! ```text
//! let tailnet = FakeTailnet::new();
//! tailnet.place("100.64.0.1:5432", origin.address());
//! let mut gateway = Gateway::start(|s| { s.managed(&tailnet); });
//! gateway.wait_ready();
//! let wire = gateway.open(Inbound::Socks5, "db:5432");
//! tailnet.kill(Signal::KILL);
//! ```
//!
//! Every start of the fake connects here first, tells how it was started, and waits for its script.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::built;
use super::running_tailscaled::{RunningTailscaled, localapi};
use super::server::spawn;
use super::wait::{PATIENCE, eventually, eventually_some};

pub use super::fake::script;
use script::{Answer, Asked, Call, Event, Login, Numbered, Order, Process, Script, State};

/// One start of the fake.
#[derive(Clone, Debug)]
pub struct StartedProcess {
    /// Its id as this process sees it, whatever namespace it lives in.
    pub pid: u32,
    /// How it was started.
    pub process: Process,
    /// When.
    pub at: Instant,
    /// When it was gone.
    pub ended: Option<Instant>,
    /// What it told since.
    pub events: Vec<Event>,
}

struct Run {
    started: StartedProcess,
    stream: UnixStream,
    /// The latest order it has taken in.
    done: u64,
}

#[derive(Default)]
struct Hub {
    script: Script,
    runs: Vec<Run>,
    number: u64,
    stop: bool,
}

/// The tailnet. Dropping it ends every fake that still runs, by its id.
pub struct FakeTailnet {
    dir: TempDir,
    hub: Arc<Mutex<Hub>>,
    keys: Mutex<Vec<String>>,
}

impl FakeTailnet {
    /// Node `autoheal-…` of `lab.ts.net` with one peer `db`, 100.64.0.1, that routes 10.50.0.0/16;
    /// every login works. The key is in a file of its own, mode 0600.
    pub fn new() -> FakeTailnet {
        let dir = tempfile::Builder::new().prefix("tailrace-tailnet-").tempdir();
        let dir = dir.expect("rig: no temporary folder");
        let hub = Arc::new(Mutex::new(Hub::default()));
        let listener = UnixListener::bind(dir.path().join("control.sock")).expect("rig: control");
        let shared = Arc::clone(&hub);
        spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if shared.lock().unwrap().stop {
                    return;
                }
                let hub = Arc::clone(&shared);
                spawn(move || follow(stream, &hub));
            }
        });
        std::os::unix::fs::symlink(built::fake(), dir.path().join("tailscaled"))
            .expect("rig: link");
        let managed = FakeTailnet { dir, hub, keys: Mutex::default() };
        managed.new_key();
        managed
    }

    /// One whose script begins so.
    pub fn with(change: impl FnOnce(&mut Script)) -> FakeTailnet {
        let tailnet = FakeTailnet::new();
        tailnet.change(change);
        tailnet
    }

    /// The program to start: a link to the fake.
    pub fn program(&self) -> PathBuf {
        self.dir.path().join("tailscaled")
    }

    /// Its folder, which is not the gateway's.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file with the key.
    pub fn key_file(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    /// The key in that file. No other test has the same.
    pub fn key(&self) -> String {
        self.keys().pop().expect("rig: a key")
    }

    /// Every key that was ever in it.
    pub fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }

    /// Puts another key into the file.
    pub fn new_key(&self) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = self.dir.path().to_string_lossy();
        let noise: String = name.chars().rev().take(6).collect();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let key = format!("tskey-auth-CANARY{noise}{number}-{}Zq9", std::process::id());
        std::fs::write(self.key_file(), format!("{key}\n")).expect("rig: key file");
        std::fs::set_permissions(self.key_file(), std::fs::Permissions::from_mode(0o600))
            .expect("rig: chmod");
        self.keys.lock().unwrap().push(key.clone());
        key
    }

    /// Changes the tailnet; what runs has taken it in when this returns.
    #[track_caller]
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        let mut hub = self.hub();
        change(&mut hub.script);
        let script = Box::new(hub.script.clone());
        drop(hub);
        self.tell_all(&Order::Script(script));
    }

    /// A target, by `host:port` or `host`, is really there.
    #[track_caller]
    pub fn place(&self, target: &str, origin: SocketAddr) {
        self.change(|s| {
            s.places.insert(target.to_owned(), origin);
        });
    }

    /// A dial to this target ends so.
    #[track_caller]
    pub fn answer(&self, target: &str, answer: Answer) {
        self.change(|s| {
            s.answers.insert(target.to_owned(), answer);
        });
    }

    /// The next logins lead to this; one under way too.
    #[track_caller]
    pub fn login(&self, login: Login) {
        self.change(|s| s.login = login);
    }

    /// Has the latest process that still runs do this; it has when this returns.
    #[track_caller]
    pub fn order(&self, order: Order) {
        let run = self.living();
        let number = self.hub().send(run, order);
        self.taken_in(run, number);
    }

    /// The backend is in this state now.
    #[track_caller]
    pub fn become_state(&self, state: State) {
        self.order(Order::Become(state));
    }

    /// Writes these bytes to stderr, each piece in a write of its own.
    #[track_caller]
    pub fn say(&self, pieces: &[&[u8]]) {
        let pieces = pieces.iter().map(|p| p.to_vec()).collect();
        self.order(Order::Say(pieces, Duration::from_millis(50)));
    }

    /// Every start so far, looks at the version left out.
    pub fn starts(&self) -> Vec<StartedProcess> {
        let hub = self.hub();
        let runs = hub.runs.iter().filter(|r| !is_version(&r.started));
        runs.map(|r| r.started.clone()).collect()
    }

    /// Start number `n`, from 1, once there is one.
    #[track_caller]
    pub fn wait_start(&self, n: usize) -> StartedProcess {
        self.wait_start_within(n, PATIENCE)
    }

    /// The same, with more or less patience.
    #[track_caller]
    pub fn wait_start_within(&self, n: usize, limit: Duration) -> StartedProcess {
        let what = format!("start {n} of tailscaled");
        eventually_some(&what, limit, || self.starts().into_iter().nth(n - 1))
    }

    /// Start number `n` has ended; when.
    #[track_caller]
    pub fn wait_end(&self, n: usize, limit: Duration) -> Instant {
        let what = format!("the end of start {n} of tailscaled");
        eventually_some(&what, limit, || self.starts().get(n - 1).and_then(|s| s.ended))
    }

    /// The process that runs now, once there is one.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let run = self.living();
        self.hub().runs[run].started.pid
    }

    /// Sends the running process a signal.
    #[track_caller]
    pub fn kill(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("rig: a pid");
        kill_process(pid, signal).expect("rig: kill");
    }

    /// How many of them run.
    pub fn running(&self) -> usize {
        self.starts().iter().filter(|s| s.ended.is_none()).count()
    }

    /// What all of them told up to now, one start after the other.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        self.tell_all(&Order::Tell);
        self.starts().into_iter().flat_map(|s| s.events).collect()
    }

    /// LocalAPI calls in order.
    pub fn calls(&self) -> Vec<Call> {
        let call = |e| if let Event::Api(call) = e { Some(call) } else { None };
        self.events().into_iter().filter_map(call).collect()
    }

    /// The names of the writing calls in order: `start`, `login-interactive`, …
    pub fn writes(&self) -> Vec<String> {
        let writes = self.calls().into_iter().filter(|c| c.method != "GET");
        writes.map(|c| c.name).filter(|name| name != "dial").collect()
    }

    /// The bodies of `start`.
    pub fn start_bodies(&self) -> Vec<serde_json::Value> {
        let bodies = self.calls().into_iter().filter(|c| c.name == "start");
        bodies.map(|c| serde_json::from_str(&c.body).expect("rig: JSON")).collect()
    }

    /// The key of each attempt to log in.
    pub fn logins(&self) -> Vec<Option<String>> {
        let key = |e| if let Event::Login(key) = e { Some(key) } else { None };
        self.events().into_iter().filter_map(key).collect()
    }

    /// Targets asked of the SOCKS5 port.
    pub fn socks(&self) -> Vec<Asked> {
        let asked = |e| if let Event::Socks(asked) = e { Some(asked) } else { None };
        self.events().into_iter().filter_map(asked).collect()
    }

    /// Targets asked of LocalAPI `dial`.
    pub fn dials(&self) -> Vec<Asked> {
        let asked = |e| if let Event::Dial(asked) = e { Some(asked) } else { None };
        self.events().into_iter().filter_map(asked).collect()
    }

    /// Targets asked either way, as `host:port`.
    pub fn asked(&self) -> Vec<String> {
        let all = self.socks().into_iter().chain(self.dials());
        all.map(|a| format!("{}:{}", a.host, a.port)).collect()
    }

    /// Signals it saw.
    pub fn signals(&self) -> Vec<String> {
        let name = |e| if let Event::Signal(name) = e { Some(name) } else { None };
        self.events().into_iter().filter_map(name).collect()
    }

    /// How often a node was logged out.
    pub fn logouts(&self) -> usize {
        self.events().iter().filter(|e| matches!(e, Event::LoggedOut)).count()
    }

    /// SOCKS5 connections the latest start has open.
    pub fn open(&self) -> usize {
        self.latest(|e| if let Event::Open(n) = e { Some(*n) } else { None }).unwrap_or(0)
    }

    /// The most it ever had open.
    pub fn most_open(&self) -> usize {
        let open = |e: &Event| if let Event::Open(n) = e { Some(*n) } else { None };
        self.events().iter().filter_map(open).max().unwrap_or(0)
    }

    /// Bytes of a flood written so far.
    pub fn flooded(&self) -> u64 {
        self.latest(|e| if let Event::Flooded(n) = e { Some(*n) } else { None }).unwrap_or(0)
    }

    /// The SOCKS5 port of the latest start, once it listens; none with `localapi`.
    #[track_caller]
    pub fn socks_port(&self) -> Option<SocketAddr> {
        eventually_some("the fake listens", PATIENCE, || {
            self.latest(|e| if let Event::Listening { socks } = e { Some(*socks) } else { None })
        })
    }

    /// Starts the fake from here, logged in: for gateways that manage none.
    #[track_caller]
    pub fn run(&self) -> RunningTailscaled {
        let socket = self.dir.path().join("tailscaled.sock");
        let before = self.starts().len();
        let child = Command::new(self.program())
            .args(["--tun=userspace-networking", "--state=mem:", "--socks5-server=127.0.0.1:0"])
            .arg(format!("--socket={}", socket.display()))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rig: the fake");
        self.wait_start(before + 1);
        let socks = self.socks_port().expect("rig: a SOCKS5 port was asked for");
        let prefs = r#"{"AuthKey":"k","UpdatePrefs":{"WantRunning":true,"RouteAll":true,"Hostname":"host"}}"#;
        assert_eq!(localapi(&socket, "POST", "start", prefs).0, 204);
        assert_eq!(localapi(&socket, "POST", "login-interactive", "").0, 204);
        RunningTailscaled { child, socket, socks }
    }

    /// Sends this to all that run and are not stopped, and waits until they have taken it in.
    #[track_caller]
    fn tell_all(&self, order: &Order) {
        let mut hub = self.hub();
        let listens = |r: &Run| r.started.ended.is_none() && !is_stopped(r.started.pid);
        let living: Vec<usize> = (0..hub.runs.len()).filter(|n| listens(&hub.runs[*n])).collect();
        let sent: Vec<(usize, u64)> =
            living.into_iter().map(|n| (n, hub.send(n, order.clone()))).collect();
        drop(hub);
        sent.into_iter().for_each(|(run, number)| self.taken_in(run, number));
    }

    fn latest<T>(&self, look: impl Fn(&Event) -> Option<T>) -> Option<T> {
        self.starts().last()?.events.iter().rev().find_map(look)
    }

    #[track_caller]
    fn living(&self) -> usize {
        eventually_some("a running tailscaled", PATIENCE, || {
            let hub = self.hub();
            hub.runs.iter().rposition(|r| r.started.ended.is_none() && !is_version(&r.started))
        })
    }

    #[track_caller]
    fn taken_in(&self, run: usize, number: u64) {
        eventually(&format!("order {number} is taken in"), PATIENCE, || {
            let run = &self.hub().runs[run];
            run.started.ended.is_some() || run.done >= number
        });
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap()
    }
}

impl Hub {
    fn send(&mut self, run: usize, order: Order) -> u64 {
        self.number += 1;
        let mut line = serde_json::to_vec(&Numbered { number: self.number, order }).unwrap();
        line.push(b'\n');
        // A process that has ended shows by its end.
        let _ = self.runs[run].stream.write_all(&line);
        self.number
    }
}

impl Drop for FakeTailnet {
    fn drop(&mut self) {
        let mut hub = self.hub.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        hub.stop = true;
        for run in &hub.runs {
            if std::thread::panicking() {
                let s = &run.started;
                eprintln!("--- fake {} {:?}, ended {:?}", s.pid, s.process.argv, s.ended.is_some());
                s.events.iter().for_each(|event| eprintln!("{}", shown(event)));
            }
            if let (None, Some(pid)) = (run.started.ended, Pid::from_raw(run.started.pid as i32)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        drop(hub);
        let _ = UnixStream::connect(self.dir.path().join("control.sock"));
    }
}

fn is_version(started: &StartedProcess) -> bool {
    started.process.argv.iter().any(|a| a.trim_start_matches('-') == "version")
}

/// Whether a process is stopped by a signal (proc(5), state `T`): it would not answer.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// One event, cut where it is long.
fn shown(event: &Event) -> String {
    format!("{event:?}").chars().take(300).collect()
}

/// Keeps what one process tells.
fn follow(stream: UnixStream, hub: &Mutex<Hub>) {
    let pid = rustix::net::sockopt::socket_peercred(&stream).expect("rig: peer");
    let pid = pid.pid.as_raw_nonzero().get() as u32;
    let mut lines = BufReader::new(stream.try_clone().expect("rig: clone"));
    let Some(Event::Started(process)) = read(&mut lines) else { return };
    let run = {
        let mut hub = hub.lock().unwrap();
        let (at, events) = (Instant::now(), Vec::new());
        let started = StartedProcess { pid, process, at, ended: None, events };
        hub.runs.push(Run { started, stream, done: 0 });
        let (run, script) = (hub.runs.len() - 1, Box::new(hub.script.clone()));
        hub.send(run, Order::Script(script));
        run
    };
    while let Some(event) = read(&mut lines) {
        let run = &mut hub.lock().unwrap().runs[run];
        let events = &mut run.started.events;
        match (events.last(), &event) {
            (_, Event::Done(number)) => run.done = *number,
            (Some(Event::Flooded(_)), Event::Flooded(_)) => *events.last_mut().unwrap() = event,
            _ => events.push(event),
        }
    }
    hub.lock().unwrap().runs[run].started.ended = Some(Instant::now());
}

fn read(lines: &mut impl BufRead) -> Option<Event> {
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(n) if n > 0 => serde_json::from_str(&line).ok(),
        _ => None,
    }
}
