//! Runs a line of shell, as a person types it, by one way into the tailnet.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::Field;
use crate::clients::table::{self, Row};
use crate::process::wait_for;
use crate::tailnet::Tailnet;

/// How a program gets to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Beside the server, without the gateway: to compare with.
    Direct,
    /// By the proxy variables of `tailrace env`.
    Proxy,
    /// By `tailrace run`.
    Run,
    /// By a `[[forward]]` and the variables for it.
    Forward,
    /// By `tailrace connect`, as a ProxyCommand.
    Connect,
    /// As typed, in a script that `tailrace up` runs.
    Up,
    /// The same with `tailrace run` before it.
    UpRun,
}

impl Way {
    pub fn label(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Proxy => "proxy setting",
            Way::Run => "run",
            Way::Forward => "forward",
            Way::Connect => "connect",
            Way::Up => "up -- CMD",
            Way::UpRun => "up -- CMD, run",
        }
    }

    /// The inbound its connections come in by.
    fn inbound(self) -> &'static str {
        match self {
            Way::Direct => "",
            Way::Proxy | Way::Connect | Way::Up => "connect",
            Way::Run | Way::UpRun => "socks5",
            Way::Forward => "forward",
        }
    }
}

/// A line of shell that prints what its server has to say.
pub struct Script<'a> {
    /// What the table calls it.
    pub program: &'a str,
    /// Prints its version.
    pub version: &'a str,
    pub line: &'a str,
    /// What it prints.
    pub expected: &'a str,
    /// The server it asks.
    pub host: &'a str,
}

/// How often each is run when the table is to be written.
const TIMES: usize = 5;
/// Seconds a line may take.
const LIMIT: &str = "50";

impl Script<'_> {
    /// Runs it by each of these ways; it has to print what it should, through the gateway.
    pub fn by(&self, tailnet: &Tailnet, ways: &[Way]) {
        let version = self.once(tailnet, Way::Direct, self.version).0;
        for &way in ways {
            let gateway = &tailnet.clients().gateway;
            let mark = gateway.mark();
            let (said, took) = self.once(tailnet, way, self.line);
            self.judge(way, &said);
            let inbound = way.inbound();
            wait_for(&format!("{} by {inbound} in the gateway's books", self.host), || {
                let over = gateway.access().into_iter().skip(mark);
                let (_, live) = gateway.admin(tailnet, "/api/v1/connections");
                let live = serde_json::from_str::<serde_json::Value>(&live).unwrap_or_default();
                let live = live["connections"].as_array().cloned().unwrap_or_default();
                let is_it = |line: &serde_json::Value| {
                    // By `run` the program has asked for the address itself.
                    let there = line["host"] == self.host || line["address"] == tailnet.svc;
                    there && line["inbound"] == inbound
                };
                over.chain(live).any(|line| is_it(&line)).then_some(())
            });
            println!("    {} by {}: {:.0} ms", self.program, way.label(), took.as_secs_f64() * 1e3);
            let extra = table::wanted().then(|| self.extra(tailnet, way));
            table::add(Row::new(self.program, Some(version.trim()), way, extra));
        }
    }

    #[track_caller]
    fn judge(&self, way: Way, said: &str) {
        assert_eq!(said, self.expected, "{} by {}", self.program, way.label());
    }

    /// Milliseconds this way takes longer, run in turns with the direct one: the load of the machine
    /// changes while it is measured.
    fn extra(&self, tailnet: &Tailnet, way: Way) -> f64 {
        let take = |way| {
            let (said, took) = self.once(tailnet, way, self.line);
            self.judge(way, &said);
            took.as_secs_f64() * 1e3
        };
        let mut all: Vec<f64> = (0..TIMES).map(|_| take(way) - take(Way::Direct)).collect();
        all.sort_by(f64::total_cmp);
        all[TIMES / 2]
    }

    /// What it prints, and how long the first byte of that took.
    fn once(&self, tailnet: &Tailnet, way: Way, line: &str) -> (String, Duration) {
        let field = tailnet.clients();
        let folder = tempfile::tempdir_in(&field.dir).expect("a folder");
        let complaints = folder.path().join(".stderr");
        let mut command = command(field, way, line);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&complaints).expect("a file"));
        let place = if way == Way::Direct { &tailnet.world } else { &tailnet.sandboxed };
        let started = Instant::now();
        let mut child = place.enter(|| command.spawn()).expect("unshare");
        let mut out = child.stdout.take().expect("piped");
        let mut said = vec![0];
        let got = out.read(&mut said).expect("its output");
        let took = started.elapsed();
        said.truncate(got);
        out.read_to_end(&mut said).expect("its output");
        let status = child.wait().expect("wait");
        let said = String::from_utf8_lossy(&said).into_owned();
        let complaints = fs::read_to_string(complaints).unwrap_or_default();
        let (program, way) = (self.program, way.label());
        assert!(status.success(), "{program} by {way}: {status}\n{said}{complaints}");
        (said, took)
    }
}

/// What comes after it knows the hosts of this file of the field's, and ends in time.
pub fn with_hosts(field: &Field, hosts: &str, seconds: &str) -> Command {
    let mount = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", mount, &field.path(hosts), "timeout", seconds]);
    command
}

/// Every way starts the same programs before the line itself, so that they cancel out.
fn command(field: &Field, way: Way, line: &str) -> Command {
    let hosts = if way == Way::Direct { "hosts-far" } else { "hosts-near" };
    let mut command = with_hosts(field, hosts, LIMIT);
    if way == Way::Run {
        command.arg(field.gateway.launch.command(&[]).get_program()).args(["run", "--"]);
    }
    command.args(["sh", "-ec", line]).env_clear();
    if !matches!(way, Way::Direct | Way::Run) {
        command.envs(field.variables.iter().cloned());
    }
    command.envs(settings(field));
    command
}

/// What every line finds in its environment: the programs, and the authority, as each wants it.
pub fn settings(field: &Field) -> Vec<(&'static str, String)> {
    let own = std::env::var("PATH").unwrap_or_default();
    let path: String = field.folders().map(|folder| format!("{}:", folder.display())).collect();
    let mut all = vec![
        ("PATH", format!("{path}{own}:/usr/sbin")),
        ("HOME", field.path("")),
        ("PROGRAMS", field.programs.to_string_lossy().into_owned()),
        ("CLIENTS", super::field::source().to_string_lossy().into_owned()),
        ("FIELD", field.dir.to_string_lossy().into_owned()),
        ("TAILRACE_RUN_DIR", field.gateway.launch.run_dir.to_string_lossy().into_owned()),
        ("KUBECONFIG", field.path("kubeconfig")),
    ];
    let authority = [
        "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
        "PGSSLROOTCERT",
    ];
    all.extend(authority.map(|name| (name, field.path("ca.pem"))));
    all
}
