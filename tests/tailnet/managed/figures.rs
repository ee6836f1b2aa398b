//! `--figures`: what the gateway costs beside tailscaled alone. Printed, not judged.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::client::first_byte;
use crate::control::URL;
use crate::keys::Key;
use crate::managed::{Kind, bare};
use crate::process::{Process, wait_for};
use crate::tailnet::{Tailnet, UPSTREAM};

/// Fresh tailnets per line.
const STARTS: usize = 5;
/// Requests per line.
const REQUESTS: usize = 30;

pub fn print(tailnet: &Tailnet) -> ExitCode {
    println!("from nothing to the first byte through a fresh tailnet, median of {STARTS}:");
    row("tailscaled, `tailscale up`, curl", median(STARTS, |n| by_hand(tailnet, n)));
    for kind in Kind::ALL {
        let label = format!("`tailrace up -- curl`, kind {}", kind.label());
        row(&label, median(STARTS, |n| one_line(tailnet, kind, n)));
    }
    println!("to the first byte of svc, a connection each, median of {REQUESTS}:");
    row("tailscaled's own SOCKS5 port", median(REQUESTS, |_| ask(tailnet, UPSTREAM, "svc")));
    for (kind, pool) in Kind::ALL.into_iter().flat_map(|kind| ["0", "8"].map(|pool| (kind, pool))) {
        let name = format!("pool{pool}-{}", kind.label());
        let gateway = kind.launch(tailnet, &name).set("TAILRACE_UPSTREAM_POOL", pool).up(tailnet);
        gateway.wait(tailnet);
        let ask = |host: &str| ask(tailnet, &gateway.proxy, host);
        let label = format!("kind {}, pool {pool}", kind.label());
        row(&label, median(REQUESTS, |_| ask("svc")));
        let cached = median(REQUESTS, |_| ask("grafana.corp.example"));
        row(&format!("{label}, a split name, cached"), cached);
        let asked = median(REQUESTS, |n| ask(&format!("n{n}-{name}.many.corp.example")));
        row(&format!("{label}, a split name, asked for"), asked);
        gateway.stop();
    }
    ExitCode::SUCCESS
}

fn row(label: &str, took: Duration) {
    println!("  {label:<52} {:>9.2} ms", took.as_secs_f64() * 1000.0);
}

fn median(times: usize, take: impl FnMut(usize) -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..times).map(take).collect();
    all.sort();
    all[times / 2]
}

fn ask(tailnet: &Tailnet, socks: &str, host: &str) -> Duration {
    tailnet.sandboxed.enter(|| first_byte(socks, host)).expect("a first byte")
}

fn one_line(tailnet: &Tailnet, kind: Kind, n: usize) -> Duration {
    let key = tailnet.control.key(Key::Good);
    let launch = bare(tailnet, &format!("start{n}-{}", kind.label()))
        .set("TS_AUTHKEY", key)
        .set("TAILRACE_UPSTREAM_KIND", kind.label());
    let curl = ["up", "--", "curl", "--silent", "--fail", "http://svc:8080/hello"];
    let mut command = launch.command(&curl);
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = tailnet.sandboxed.enter(|| child.spawn()).expect("tailrace up");
    let mut first = [0];
    let out = child.stdout.as_mut().expect("piped");
    std::io::Read::read_exact(out, &mut first).expect("curl's output");
    let took = started.elapsed();
    assert!(child.wait().expect("tailrace up").success(), "tailrace up");
    took
}

/// What a person types without the gateway; the same flags for tailscaled.
fn by_hand(tailnet: &Tailnet, n: usize) -> Duration {
    let home = tailnet.dir.path().join(format!("hand{n}"));
    std::fs::create_dir(&home).expect("a folder");
    let socket = home.join("s.sock");
    let key = tailnet.control.key(Key::Good);
    let program = |name: &str| {
        let mut command = Command::new(tailnet.programs.join(name));
        command.env_clear().env("HOME", &home).env("PATH", std::env::var_os("PATH").unwrap());
        command.env("SSL_CERT_FILE", tailnet.dir.path().join("ca.pem"));
        command.arg(format!("--socket={}", socket.display()));
        command
    };
    let mut daemon = program("tailscaled");
    daemon.args(["--tun=userspace-networking", "--state=mem:", "--no-logs-no-support"]);
    daemon.args(["--socks5-server=127.0.0.1:1090", &format!("--statedir={}", home.display())]);
    let mut up = program("tailscale");
    up.args(["up", &format!("--auth-key={key}"), &format!("--login-server={URL}")]);
    up.args(["--accept-routes", "--shields-up", &format!("--hostname=hand{n}"), "--timeout=30s"]);
    let mut curl = Command::new("curl");
    curl.args(["--disable", "--silent", "--fail", "--socks5-hostname", "127.0.0.1:1090"]);
    curl.arg("http://svc:8080/hello");
    let started = Instant::now();
    let log = tailnet.dir.path().join(format!("hand{n}.log"));
    let mut running = tailnet.sandboxed.enter(|| Process::start("tailscaled", &mut daemon, &log));
    wait_for("its socket", || std::os::unix::net::UnixStream::connect(&socket).ok());
    let upped = tailnet.sandboxed.enter(|| up.output()).expect("tailscale");
    assert!(upped.status.success(), "tailscale up: {upped:?}");
    // Peers may learn of a new node later than it does of them: then the first try fails after 5 s.
    wait_for("an answer", || {
        let got = tailnet.sandboxed.enter(|| curl.output()).expect("curl");
        got.status.success().then_some(())
    });
    let took = started.elapsed();
    running.signal(rustix::process::Signal::TERM);
    running.wait();
    took
}
