//! Which program a client is: in the access log, the live table and `explain`, by what `/proc` shows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tailrace_rig::Latch;
use tailrace_rig::wait::{PATIENCE, eventually, eventually_some};
use tailrace_rig::{FakeUpstream, Gateway, Inbound, Origin, RawConnection, netns, skip};

const NAME: &str = "db.corp.example";
const TARGET: &str = "db.corp.example:5432";

/// A program of somebody else's; ended by its id.
struct Started(Child);

impl Started {
    fn new(command: &mut Command) -> Started {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Started(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// When the kernel says it was started, in ticks since boot (proc(5) stat, field 22).
    fn ticks(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An HTTP origin that answers once the gate is open.
fn slow_origin(gate: &Latch) -> Origin {
    let gate = gate.clone();
    Origin::start(move |guest| {
        guest.read(&mut [0; 4096]);
        gate.wait();
        guest.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        guest.fin();
    })
}

/// curl by this path, for one page through the proxy.
fn curl(path: &Path, proxy: SocketAddr) -> Started {
    let mut command = Command::new(path);
    command.arg("-sS").arg("-x").arg(format!("http://{proxy}")).arg(format!("http://{NAME}/"));
    Started::new(command.env_clear())
}

fn rows(gateway: &Gateway) -> Vec<Value> {
    gateway.admin_get("/api/v1/connections").json().as_array().unwrap().clone()
}

/// The process of the one live connection, once it is known.
#[track_caller]
fn process_of_the_row(gateway: &Gateway) -> Value {
    eventually_some("a row with its process", PATIENCE, || {
        rows(gateway).first().map(|row| row["process"].clone()).filter(|process| !process.is_null())
    })
}

fn me(process: &Value) -> bool {
    process["pid"] == std::process::id()
}

fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[test]
fn a_live_connection_names_its_program_everywhere() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with(NAME, origin.address());
    let mut gateway = Gateway::chained(&fake);
    let script = format!(
        "import socket, sys\n\
         s = socket.create_connection(('127.0.0.1', {}))\n\
         s.sendall(b'CONNECT {NAME}:5432 HTTP/1.1\\r\\nHost: {NAME}:5432\\r\\n\\r\\n')\n\
         s.recv(100)\n\
         sys.stdin.read()",
        gateway.proxy().port()
    );
    let mut python = Started::new(Command::new("python3").args(["-c", &script]));
    let process = process_of_the_row(&gateway);
    assert_eq!(process["pid"], python.pid(), "{process}");
    let file = std::fs::read_link(format!("/proc/{}/exe", python.pid())).unwrap();
    assert_eq!(process["name"], file.file_name().unwrap().to_str().unwrap());
    let started: jiff::Timestamp = process["started"].as_str().unwrap().parse().unwrap();
    let up: f64 = std::fs::read_to_string("/proc/uptime")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let age = up - python.ticks() / 100.0;
    let told = jiff::Timestamp::now().duration_since(started).as_secs_f64();
    assert!((told - age).abs() < 1.0, "{told} {age}");

    let explained = eventually_some("the target's clients", PATIENCE, || {
        let path = format!("/api/v1/explain?target={NAME}:5432");
        let told = gateway.admin_get(&path).json()["clients"].clone();
        (told != json!([])).then_some(told)
    });
    assert_eq!(explained, json!([{"process": process, "connections": 1}]));
    let other = gateway.admin_get(&format!("/api/v1/explain?target={NAME}:5433")).json();
    assert_eq!(other["clients"], json!([]), "another port");
    let config = gateway.setup().config();
    let config = config.to_str().unwrap();
    let said = gateway.setup().run(&["explain", "--config", config, &format!("{NAME}:5432")]);
    let said = String::from_utf8(said.stdout).unwrap();
    let line =
        said.lines().find(|line| line.starts_with("used by")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("(pid {}, since ", python.pid())), "{line}");
    assert!(line.ends_with("1 connection"), "{line}");

    drop(python.0.stdin.take());
    assert_eq!(gateway.wait_for_access(1)[0]["process"], process);
}

#[test]
fn two_programs_at_once_are_told_apart_whatever_they_call_themselves() {
    let Some(file) = find("curl") else { return skip("needs curl") };
    let gate = Latch::new();
    let origin = slow_origin(&gate);
    let fake = FakeUpstream::with(NAME, origin.address());
    let gateway = Gateway::chained(&fake);
    let strange = "a \"q\" \\\n\u{1b}[2J\u{202e}é";
    let copy = gateway.dir().join(strange);
    std::fs::copy(&file, &copy).unwrap();
    let curls = [curl(&file, gateway.proxy()), curl(&copy, gateway.proxy())];
    eventually("both are known", PATIENCE, || {
        let rows = rows(&gateway);
        rows.len() == 2 && rows.iter().all(|row| !row["process"].is_null())
    });
    gate.open();
    for (curl, name) in curls.iter().zip(["curl", strange]) {
        let of = |line: &Value| line["process"]["pid"] == curl.pid();
        assert_eq!(gateway.wait_for_line(of)["process"]["name"], name);
    }
    assert!(gateway.log().bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
}

#[test]
fn a_refused_connection_s_line_waits_for_its_program_and_the_client_does_not() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    for inbound in Inbound::NAMED_TUNNELS {
        let (wire, _) = gateway.ask(inbound, "evil.example:80");
        let line = gateway.wait_for_line(|line| line["client"] == wire.local().to_string());
        assert!(me(&line["process"]), "{inbound:?}: {line}");
        assert_eq!(line["outcome"], "denied");
    }
    gateway.settle_with(&fake, Inbound::NAMED_TUNNELS.len() as u64, 0);
}

#[test]
fn a_client_over_ipv6_is_named() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip("needs IPv6 on loopback");
    }
    let fake = FakeUpstream::start();
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("listen.proxy", vec!["[::1]:0"]);
    });
    let _wire = gateway.dial();
    assert!(me(&process_of_the_row(&gateway)));
}

#[test]
fn b28_a_redirected_client_is_named() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = FakeUpstream::with("203.0.113.9", origin.address());
        netns::add_route("203.0.113.0/24");
        let gateway = Gateway::chained(&fake);
        netns::redirect("203.0.113.0/24", gateway.proxy().port());
        let mut wire = RawConnection::dial("203.0.113.9:8080".parse().unwrap());
        wire.send("hello");
        wire.expect("hello");
        assert!(me(&process_of_the_row(&gateway)));
        wire.fin();
        let line = gateway.wait_for_access(1)[0].clone();
        assert_eq!(line["inbound"], "transparent");
        assert!(me(&line["process"]), "{line}");
    });
}

/// The names of the gateway's threads.
fn threads(gateway: &Gateway) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap().flatten();
    let name = |task: std::fs::DirEntry| {
        Some(std::fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned())
    };
    tasks.filter_map(name).collect()
}

#[test]
fn switched_off_nobody_looks_and_nobody_is_named() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with(NAME, origin.address());
    for on in [true, false] {
        let gateway = Gateway::start(|s| {
            s.upstream(fake.address()).set("record.process", on);
        });
        let lookers = threads(&gateway).iter().filter(|name| *name == "callers").count();
        assert_eq!(lookers, usize::from(on), "the one thread that asks netlink and reads /proc");
        let mut wire = gateway.open(Inbound::Socks5, TARGET);
        wire.send("hello");
        wire.expect("hello");
        if on {
            assert!(me(&process_of_the_row(&gateway)));
        } else {
            assert_eq!(rows(&gateway)[0]["process"], Value::Null);
        }
        wire.fin();
        let line = gateway.wait_for_access(1)[0].clone();
        assert_eq!(line["process"].is_null(), !on, "{line}");
    }
}

/// Starts the gateway as the user nobody, by a copy of the binary where that user can reach it.
const AS_NOBODY: &str = "cp \"$0\" ./gateway && chown -R 65534:65534 . && exec setpriv --reuid=65534 \
                         --regid=65534 --clear-groups --inh-caps=-all ./gateway \"$@\"";

#[test]
fn a_program_of_another_user_stays_unknown() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to be another user");
    }
    let fake = FakeUpstream::start();
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).prelude(AS_NOBODY).enforce(&["corp.example"]);
    });
    for _ in 0..3 {
        let (_wire, _) = gateway.ask(Inbound::Socks5, "evil.example:80");
    }
    let lines = gateway.wait_for_access(3);
    assert!(lines.iter().all(|line| line["process"].is_null()), "{lines:?}");
    // One of its own user is found all the same.
    let script = format!(
        "import socket, sys; s = socket.create_connection(('127.0.0.1', {})); sys.stdin.read()",
        gateway.proxy().port()
    );
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let mut command = Command::new("setpriv");
    command.args(user).args(["python3", "-c", &script]).env("PATH", "/usr/bin:/bin");
    let same = Started::new(&mut command);
    assert_eq!(process_of_the_row(&gateway)["pid"], same.pid());
}

#[test]
fn the_program_under_run_is_named_and_not_its_supervisor() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("198.51.100.7", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let config = gateway.setup().config();
    let script = "import os, socket, sys\n\
                  s = socket.create_connection(('198.51.100.7', 80), 20)\n\
                  print(os.getpid(), flush=True)\n\
                  sys.stdin.read()";
    let mut command = gateway.setup().command(&["run", "--config"]);
    command.arg(config).args(["--", "python3", "-c", script]);
    let mut run = Started::new(command.env("TMPDIR", gateway.dir()));
    let mut pid = Vec::new();
    let mut out = run.0.stdout.take().unwrap();
    while pid.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "run ended: {}", gateway.log());
        pid.extend(byte);
    }
    let pid: u32 = String::from_utf8(pid).unwrap().trim().parse().unwrap();
    eventually("the program is named", PATIENCE, || process_of_the_row(&gateway)["pid"] == pid);
    drop(run.0.stdin.take());
    let line = gateway.wait_for_access(1)[0].clone();
    assert_eq!(line["process"]["pid"], pid, "{line}");
}

#[test]
fn a_thousand_quick_connections_are_ours_or_unknown_and_each_has_its_line() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with(NAME, origin.address());
    let mut gateway = Gateway::chained(&fake);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let mut wire = gateway.open(Inbound::Socks5, TARGET);
                    wire.send("x");
                    wire.expect("x");
                }
            });
        }
    });
    let lines = gateway.wait_for_access(1000);
    let named = lines.iter().filter(|line| !line["process"].is_null());
    let (ours, others): (Vec<&Value>, Vec<&Value>) = named.partition(|line| me(&line["process"]));
    assert_eq!(others, Vec::<&Value>::new());
    println!("{} of {} named", ours.len(), lines.len());
    gateway.settle_and_check(1000);
    // Afterwards a client is named as before.
    let _wire = gateway.dial();
    assert!(me(&process_of_the_row(&gateway)));
}
