//! `tailrace up` in the sandbox's namespace, the commands that ask it, and what its log says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tailrace_rig::built;

use crate::process::{Process, wait_for};
use crate::tailnet::Tailnet;

/// The namespace is ours alone, so ports are simply counted up.
static NEXT_PORT: AtomicU16 = AtomicU16::new(2000);

/// How a gateway is started; commands that ask for it are told the same.
#[derive(Clone)]
pub struct Launch {
    pub name: String,
    /// Its run directory.
    pub run_dir: PathBuf,
    proxy: String,
    admin: String,
    environment: BTreeMap<&'static str, OsString>,
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    pub launch: Launch,
    /// Where clients connect.
    pub proxy: String,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Launch {
    /// Settings that every gateway here has.
    pub fn new(tailnet: &Tailnet, name: &str) -> Launch {
        let port = NEXT_PORT.fetch_add(2, Ordering::Relaxed);
        let (proxy, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let run_dir = tailnet.dir.path().join(format!("run-{name}"));
        let name = name.to_owned();
        let bare = Launch { name, run_dir, proxy, admin, environment: BTreeMap::new() };
        let (proxy, admin, run_dir) =
            (bare.proxy.clone(), bare.admin.clone(), bare.run_dir.clone());
        bare.set("PATH", std::env::var_os("PATH").unwrap())
            .set("HOME", tailnet.dir.path())
            .set("TAILRACE_RUN_DIR", run_dir)
            .set("TAILRACE_LISTEN_PROXY", proxy)
            .set("TAILRACE_LISTEN_ADMIN", admin)
            .set("TAILRACE_LOG_FORMAT", "json")
    }

    /// One more variable of its environment.
    pub fn set(mut self, name: &'static str, value: impl Into<OsString>) -> Launch {
        self.environment.insert(name, value.into());
        self
    }

    /// A command of `tailrace` with these settings and nothing else in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(built::gateway());
        command.args(arguments).env_clear().envs(&self.environment);
        command
    }

    /// Runs such a command in the sandbox's namespace to its end.
    pub fn ask(&self, tailnet: &Tailnet, arguments: &[&str]) -> Said {
        let mut command = self.command(arguments);
        let output = tailnet.sandboxed.enter(|| command.stdin(Stdio::null()).output());
        let output = output.expect("tailrace");
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts it in the sandbox's namespace and waits for nothing.
    pub fn up(self, tailnet: &Tailnet) -> Gateway {
        let log = tailnet.dir.path().join(format!("gateway-{}.log", self.name));
        let title = format!("gateway {}", self.name);
        let mut command = self.command(&["up"]);
        let process = tailnet.sandboxed.enter(|| Process::start(&title, &mut command, &log));
        Gateway { process, proxy: self.proxy.clone(), launch: self }
    }
}

impl Gateway {
    /// Starts it with kind `socks5` and waits until it would carry a connection.
    pub fn start(
        tailnet: &Tailnet,
        name: &str,
        upstream: &str,
        more: &[(&'static str, &str)],
    ) -> Gateway {
        let launch = Launch::new(tailnet, name)
            .set("TAILRACE_UPSTREAM_KIND", "socks5")
            .set("TAILRACE_UPSTREAM_SOCKS5", upstream)
            .set("TAILRACE_DNS_MODE", "upstream");
        let gateway =
            more.iter().fold(launch, |launch, (name, value)| launch.set(name, value)).up(tailnet);
        gateway.wait(tailnet);
        gateway
    }

    /// Waits, by `tailrace wait`, until it would carry a connection.
    pub fn wait(&self, tailnet: &Tailnet) {
        let mut command = self.launch.command(&["wait", "--timeout", "40s"]);
        let log = tailnet.dir.path().join(format!("wait-{}.log", self.launch.name));
        let mut waiting =
            tailnet.sandboxed.enter(|| Process::start("tailrace wait", &mut command, &log));
        let ready = wait_for("tailrace wait", || match waiting.ended() {
            Some(status) => Some(status.success()),
            None => self.process.is_over().then_some(false),
        });
        assert!(ready, "it does not carry connections\n{}", waiting.tail());
    }

    /// What `tailrace status` says.
    pub fn status(&self, tailnet: &Tailnet) -> Value {
        let said = self.launch.ask(tailnet, &["status", "--json"]);
        assert_eq!(said.code, 0, "tailrace status: {said:?}");
        serde_json::from_str(&said.out).expect("status is JSON")
    }

    /// A path of the admin listener: HTTP status and body.
    pub fn admin(&self, tailnet: &Tailnet, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.launch.admin);
        let mut curl = Command::new("curl");
        curl.args(["--disable", "--silent", "--noproxy", "*", "--max-time", "10"]);
        curl.args(["--write-out", "\n%{http_code}", &url]);
        let output = tailnet.sandboxed.enter(|| curl.output()).expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("curl's code");
        (code.parse().expect("an HTTP status"), body.to_owned())
    }

    /// The value of the metric line that begins so.
    pub fn metric(&self, tailnet: &Tailnet, series: &str) -> u64 {
        let (_, text) = self.admin(tailnet, "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    /// The port clients connect to.
    pub fn port(&self) -> &str {
        self.proxy.rsplit(':').next().expect("host:port")
    }

    pub fn is_over(&self) -> bool {
        self.process.is_over()
    }

    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// How many access lines there are; a mark for [`Gateway::access_after`].
    pub fn mark(&self) -> usize {
        self.access().len()
    }

    /// The one access line written after `mark`, once it is there.
    pub fn access_after(&self, mark: usize) -> Value {
        wait_for("an access line", || {
            let lines = self.access();
            assert!(lines.len() <= mark + 1, "one target, several lines: {:?}", &lines[mark..]);
            lines.get(mark).cloned()
        })
    }

    /// Every access line so far.
    pub fn access(&self) -> Vec<Value> {
        let log = self.process.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line.get("bytes_up").is_some()).collect()
    }

    /// The SOCKS5 port of its tailscaled.
    pub fn socks(&self, tailnet: &Tailnet) -> String {
        let status = self.status(tailnet);
        status["upstream"]["address"].as_str().expect("an address").to_owned()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Has it read its settings and its key again.
    pub fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Sends SIGTERM and does not wait.
    pub fn begin_to_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Ends it with SIGTERM; it has to leave with exit code 0.
    pub fn stop(self) {
        self.begin_to_stop();
        self.ended();
    }

    /// Waits for its end after the one SIGTERM it got.
    pub fn ended(mut self) {
        let status = self.process.wait();
        assert!(status.success(), "SIGTERM ended the gateway with {status}");
    }

    pub fn evidence(&self) -> String {
        self.process.tail()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.tail());
        }
    }
}
