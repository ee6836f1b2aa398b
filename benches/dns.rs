//! What an answer from memory costs, beside dnsmasq and unbound: `cargo bench --bench dns`.
//!
//! All three answer the same 1,000 names, learned beforehand from the same stand-in, to dnsperf on loopback, each
//! in turn; medians of the rounds. Debian: dnsperf, dnsmasq-base, unbound. What is not installed is left out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tailrace_rig::resource_use::cpu_time;
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{FakeTailnet, Gateway};

const NAMES: usize = 1000;
const ROUNDS: usize = 5;
const SECONDS: &str = "3";

fn main() {
    if std::env::args().nth(1).as_deref() != Some("--bench") {
        return; // `cargo test` only asks whether it starts
    }
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("names");
    let lines: String = (0..NAMES).map(|n| format!("n{n}.corp.example A\n")).collect();
    std::fs::write(&names, lines).unwrap();
    let standin = standin();
    let tailnet = FakeTailnet::with(|s| {
        s.dns["Routes"]["corp.example"] = serde_json::json!([{"Addr": "100.64.0.1"}]);
    });
    tailnet.place("100.64.0.1:53", standin);
    let gateway = tailnet.gateway(|s| {
        s.set("policy.mode", "enforce").set("policy.allowed_host_suffixes", vec!["corp.example"]);
    });
    let mut servers = vec![Server::tailrace(&gateway)];
    servers.extend(Server::dnsmasq(standin));
    servers.extend(Server::unbound(standin, folder.path()));
    for server in &servers {
        server.learn(&names);
    }
    let mut figures = vec![Vec::new(); servers.len()];
    for _ in 0..ROUNDS {
        for (server, figures) in servers.iter().zip(&mut figures) {
            figures.push(server.measure(&names));
        }
    }
    println!("| server | answers/s | CPU per answer | × tailrace |\n|---|---|---|---|");
    let medians: Vec<(f64, f64)> = figures.iter().map(|of| median(of)).collect();
    for (server, (rate, cpu)) in servers.iter().zip(&medians) {
        let ratio = cpu / medians[0].1;
        println!("| {} | {rate:.0} | {:.1} µs | {ratio:.2} |", server.name, cpu * 1e6);
    }
}

/// A server under load.
struct Server {
    name: &'static str,
    at: SocketAddr,
    pid: u32,
    /// Ends with us.
    child: Option<Child>,
}

impl Server {
    fn tailrace(gateway: &Gateway) -> Self {
        Self { name: "tailrace", at: gateway.private_dns(), pid: gateway.pid(), child: None }
    }

    fn dnsmasq(standin: SocketAddr) -> Option<Self> {
        let at = free();
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--cache-size=10000"]);
        command.args(["--pid-file", "--user=root", "--dns-forward-max=2000"]);
        command.arg(format!("--port={}", at.port()));
        command.arg(format!("--server=127.0.0.1#{}", standin.port()));
        Self::start("dnsmasq", at, command)
    }

    fn unbound(standin: SocketAddr, folder: &Path) -> Option<Self> {
        let (at, file) = (free(), folder.join("unbound.conf"));
        let text = format!(
            "server:\n interface: 127.0.0.1@{}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
             pidfile: \"\"\n use-syslog: no\n directory: \"{}\"\n module-config: \"iterator\"\n \
             do-not-query-localhost: no\n num-threads: 2\n so-reuseport: yes\n\
             forward-zone:\n name: \".\"\n forward-addr: 127.0.0.1@{}\n\
             remote-control:\n control-enable: no\n",
            at.port(),
            folder.display(),
            standin.port()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(file);
        Self::start("unbound", at, command)
    }

    fn start(name: &'static str, at: SocketAddr, mut command: Command) -> Option<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        Some(Self { name, at, pid: child.id(), child: Some(child) })
    }

    /// Until it answers; then every name once, slowly.
    fn learn(&self, names: &Path) {
        eventually(self.name, PATIENCE, || self.dnsperf(names, &["-l", "1", "-Q", "500"]).0 > 0);
        let _learned = self.dnsperf(names, &["-n", "1", "-q", "20"]);
    }

    /// Answers a second, and seconds of CPU for each.
    fn measure(&self, names: &Path) -> (f64, f64) {
        let before = cpu_time(self.pid);
        let (answers, seconds) = self.dnsperf(names, &["-l", SECONDS]);
        let cpu = (cpu_time(self.pid) - before).as_secs_f64();
        (answers as f64 / seconds, cpu / answers as f64)
    }

    fn dnsperf(&self, names: &Path, arguments: &[&str]) -> (u64, f64) {
        let mut command = Command::new("dnsperf");
        command.args(["-s", "127.0.0.1", "-p", &self.at.port().to_string(), "-t", "1", "-d"]);
        let output = command
            .arg(names)
            .args(arguments)
            .output()
            .unwrap_or_else(|why| panic!("needs dnsperf: {why}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |what: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(what));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok())
        };
        (of("Queries completed:").unwrap_or(0.0) as u64, of("Run time (s):").unwrap_or(1.0))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn median(of: &[(f64, f64)]) -> (f64, f64) {
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    (middle(of.iter().map(|f| f.0).collect()), middle(of.iter().map(|f| f.1).collect()))
}

fn free() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Gives every name one address for five minutes, by UDP and TCP.
fn standin() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((length, client)) = udp.recv_from(&mut bytes) {
            let _lost = udp.send_to(&answer(&bytes[..length]), client);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || converse(stream));
        }
    });
    at
}

fn converse(mut stream: TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut bytes).ok()?;
        let answer = answer(&bytes);
        stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat()).ok()?;
    }
}

/// The question section as it came, then 10.50.0.7 for it.
fn answer(question: &[u8]) -> Vec<u8> {
    let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let a = question[end - 4..end] == [0, 1, 0, 1];
    let mut answer = question[..end].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, a.into(), 0, 0, 0, 0]);
    if a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 50, 0, 7]);
    }
    answer
}
