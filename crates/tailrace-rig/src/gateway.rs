//! The gateway under test: the built binary, driven from outside.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::{self, Answer, Inbound};
use super::fake_upstream::FakeUpstream;
use super::http::HttpAnswer;
use super::metrics::Metrics;
use super::raw_connection::RawConnection;
use super::setup::{Setup, json_file};
use super::transcript;
use super::wait::{PATIENCE, eventually, eventually_some, pause};

/// A running gateway. Dropping it kills it by its id; a failing test prints what is known of it.
pub struct Gateway {
    child: Child,
    setup: Setup,
    proxy: SocketAddr,
    admin: SocketAddr,
    pub(super) baseline: usize,
}

impl Gateway {
    /// Starts one after `change` has had its say.
    #[track_caller]
    pub fn start(change: impl FnOnce(&mut Setup)) -> Gateway {
        let mut setup = Setup::new();
        change(&mut setup);
        setup.start()
    }

    /// The commonest one: chained into `fake`, no restriction.
    #[track_caller]
    pub fn chained(fake: &FakeUpstream) -> Gateway {
        Gateway::start(|s| {
            s.upstream(fake.address());
        })
    }

    #[track_caller]
    pub(super) fn launch(setup: Setup) -> Gateway {
        let log = File::create(setup.dir().join("stderr")).expect("rig: no log file");
        let out = File::create(setup.dir().join("stdout")).expect("rig: no output file");
        let mut child =
            setup.up().stdout(out).stderr(log).spawn().expect("rig: cannot start the gateway");
        let pid = child.id();
        let start = Instant::now();
        let told = loop {
            let found = std::fs::read(setup.run_dir().join("gateway.json")).ok();
            let found = found.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            if let Some(told) = found.filter(|t| t["pid"] == pid) {
                break told;
            }
            let ended = child.try_wait().expect("rig: wait");
            if ended.is_some() || start.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                report(&setup);
                panic!("the gateway did not start ({ended:?})");
            }
            pause(Duration::from_millis(2));
        };
        let address = |v: &Value| {
            v.as_str().and_then(|a| a.parse().ok()).expect("rig: an address in gateway.json")
        };
        let (proxy, admin) = (address(&told["proxy"][0]), address(&told["admin"]));
        let mut gateway = Gateway { child, setup, proxy, admin, baseline: 0 };
        // The admin thread may still be building its runtime: it is there once it has answered.
        gateway.admin_get("/healthz");
        gateway.baseline = gateway.steady_fds();
        gateway
    }

    /// The proxy port.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its settings and folders.
    pub fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// What it tells commands of itself, as they find it.
    #[track_caller]
    pub fn told(&self) -> Value {
        json_file(&self.setup.run_dir().join("gateway.json"))
    }

    /// Where its own DNS server listens, for `run`.
    #[track_caller]
    pub fn private_dns(&self) -> SocketAddr {
        self.told()["dns"].as_str().unwrap().parse().unwrap()
    }

    /// Where its one static forward listens.
    #[track_caller]
    pub fn forward(&self) -> SocketAddr {
        self.told()["forward"][0]["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// Writes the settings again and sends SIGHUP.
    pub fn reload(&mut self) {
        self.setup.write();
        self.signal(Signal::HUP);
    }

    /// Waits until this many reloads have ended so: `ok` or `error`.
    #[track_caller]
    pub fn wait_for_reloads(&self, result: &str, count: u64) {
        eventually(&format!("{count} reloads with {result}"), PATIENCE, || {
            self.metrics().value("tailrace_config_reloads_total", &[("result", result)]) as u64
                == count
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("rig: kill");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        eventually_some("the gateway has ended", limit, || {
            self.child.try_wait().expect("rig: wait")
        })
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("rig: wait").is_none()
    }

    /// Where stderr goes.
    pub fn log_path(&self) -> PathBuf {
        self.setup.dir().join("stderr")
    }

    /// Everything it wrote to stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Every whole line of the log as JSON; panics at one that is none.
    #[track_caller]
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let parse =
            |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON ({e}): {l}"));
        whole.lines().map(parse).collect()
    }

    /// The access lines so far, as their connections began: of two that end in one moment either may be first.
    #[track_caller]
    pub fn access_lines(&self) -> Vec<Value> {
        let is_access = |l: &Value| l.get("outcome").is_some() && l.get("bytes_up").is_some();
        let mut lines: Vec<Value> = self.log_lines().into_iter().filter(is_access).collect();
        lines.sort_by_key(|line| line["id"].as_str().map(str::to_owned));
        lines
    }

    /// The access lines, once there are `n`.
    #[track_caller]
    pub fn wait_for_access(&self, n: usize) -> Vec<Value> {
        eventually_some(&format!("{n} access lines"), PATIENCE, || {
            Some(self.access_lines()).filter(|l| l.len() >= n)
        })
    }

    /// The first line of any kind that `matches`: lines gather before they are written.
    #[track_caller]
    pub fn wait_for_log(&self, matches: impl Fn(&Value) -> bool) -> Value {
        eventually_some("the log line", PATIENCE, || {
            self.log_lines().into_iter().find(|l| matches(l))
        })
    }

    /// The first access line that `matches`.
    #[track_caller]
    pub fn wait_for_line(&self, matches: impl Fn(&Value) -> bool) -> Value {
        eventually_some("the access line", PATIENCE, || {
            self.access_lines().into_iter().find(|l| matches(l))
        })
    }

    /// The outcome of the last begun of `n` connections.
    #[track_caller]
    pub fn outcome(&self, n: usize) -> String {
        self.wait_for_access(n)[n - 1]["outcome"].as_str().unwrap_or_default().to_owned()
    }

    /// Asks the admin port.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> HttpAnswer {
        let mut wire = RawConnection::dial(self.admin);
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        ));
        wire.read_answer()
    }

    /// A scrape.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&String::from_utf8(self.admin_get("/metrics").body).expect("UTF-8"))
    }

    /// `tailrace_connections_total` of one outcome, over all inbounds.
    #[track_caller]
    pub fn count(&self, outcome: &str) -> u64 {
        self.metrics().value("tailrace_connections_total", &[("outcome", outcome)]) as u64
    }

    /// Asks for a target over an inbound.
    #[track_caller]
    pub fn ask(&self, inbound: Inbound, target: &str) -> (RawConnection, Answer) {
        client::ask(self.proxy, inbound, target)
    }

    /// A tunnel to a target.
    #[track_caller]
    pub fn open(&self, inbound: Inbound, target: &str) -> RawConnection {
        client::open(self.proxy, inbound, target)
    }

    /// A new connection to the proxy port that has said nothing yet.
    #[track_caller]
    pub fn dial(&self) -> RawConnection {
        RawConnection::dial(self.proxy)
    }

    /// Asks and asserts the exact refusal.
    #[track_caller]
    pub fn assert_refused(&self, inbound: Inbound, target: &str, outcome: &str) {
        super::answers::assert_refused(self.proxy, inbound, target, outcome);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(
                std::io::stderr(),
                "--- gateway {} still runs: {}",
                self.pid(),
                self.alive()
            );
            report(&self.setup);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints configuration, log and byte streams of a failing test.
fn report(setup: &Setup) {
    let log = std::fs::read(setup.dir().join("stderr")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[log.len().saturating_sub(20_000)..]).into_owned();
    let config = String::from_utf8_lossy(&setup.text()).into_owned();
    let _ = write!(
        std::io::stderr(),
        "--- configuration\n{config}--- log\n{log}--- byte streams\n{}\n---\n",
        transcript::read()
    );
}

/// Whether anything accepts on `address` now.
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}
