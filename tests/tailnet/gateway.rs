//! `tailrace up` in the sandbox's namespace, and what its log says.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::process::{Process, wait_for};
use crate::tailnet::Tailnet;

/// The namespace is ours alone, so ports are simply counted up.
static NEXT_PORT: AtomicU16 = AtomicU16::new(2000);

/// A running gateway.
pub struct Gateway {
    process: Process,
    /// Where clients connect.
    pub proxy: String,
}

impl Gateway {
    /// Starts it with kind `socks5` and waits, by `tailrace wait`, until it would carry a connection.
    pub fn start(tailnet: &Tailnet, name: &str, upstream: &str, more: &[(&str, &str)]) -> Gateway {
        let port = NEXT_PORT.fetch_add(2, Ordering::Relaxed);
        let (proxy, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let run_dir = tailnet.dir.path().join(format!("run-{name}"));
        let log = tailnet.dir.path().join(format!("gateway-{name}.log"));
        let command = |subcommand: &[&str]| {
            let mut command = Command::new(binary());
            command.args(subcommand).env_clear();
            command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", tailnet.dir.path());
            command.env("TAILRACE_RUN_DIR", &run_dir);
            command.env("TAILRACE_LISTEN_PROXY", &proxy).env("TAILRACE_LISTEN_ADMIN", &admin);
            command.env("TAILRACE_UPSTREAM_KIND", "socks5");
            command.env("TAILRACE_UPSTREAM_SOCKS5", upstream).env("TAILRACE_DNS_MODE", "upstream");
            command.env("TAILRACE_LOG_FORMAT", "json");
            command.envs(more.iter().copied());
            command
        };
        let process = tailnet.sandboxed.enter(|| {
            let process = Process::start(&format!("gateway {name}"), &mut command(&["up"]), &log);
            let waited = command(&["wait", "--timeout", "20s"]).output().expect("tailrace wait");
            let said = String::from_utf8_lossy(&waited.stderr).into_owned();
            assert!(waited.status.success(), "tailrace wait: {said}\n{}", process.tail());
            process
        });
        Gateway { process, proxy }
    }

    /// The port clients connect to.
    pub fn port(&self) -> &str {
        self.proxy.rsplit(':').next().expect("host:port")
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

    /// Ends it with SIGTERM; it has to leave with exit code 0.
    pub fn stop(mut self) {
        let status = self.process.terminate();
        assert!(
            status.success(),
            "SIGTERM ended the gateway with {status}\n{}",
            self.process.tail()
        );
    }

    pub fn evidence(&self) -> String {
        self.process.tail()
    }

    fn access(&self) -> Vec<Value> {
        let log = self.process.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line.get("bytes_up").is_some()).collect()
    }
}

/// The built binary: `TAILRACE_BIN`, or the one cargo built for this test.
fn binary() -> PathBuf {
    std::env::var_os("TAILRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_tailrace").into(), PathBuf::from)
}
