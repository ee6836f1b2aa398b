//! The fake tailscaled tested against itself: it does what the chapters on the tailnet rely on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tailrace_rig::fake_tailnet::script::{Answer, Bus as Fate, Login, Order, Peer, Start, State};
use tailrace_rig::ipn_bus::IpnBus;
use tailrace_rig::probes::{self, ProbedDaemon};
use tailrace_rig::running_tailscaled::{RunningTailscaled, localapi, localapi_raw};
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, eventually_some, timed};
use tailrace_rig::{ConnectionEnd, FakeTailnet, Inbound, Origin, RawConnection, client};

const SECOND: Duration = Duration::from_secs(1);

/// The fake with these further arguments, its stderr piped.
fn spawn(tailnet: &FakeTailnet, arguments: &[&str]) -> Child {
    let socket = tailnet.dir().join("s.sock");
    Command::new(tailnet.program())
        .args(["--tun=userspace-networking", "--state=mem:", "--no-logs-no-support"])
        .arg(format!("--socket={}", socket.display()))
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A fake that runs; it ends with this value.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It ends; its status and everything on stderr.
fn end(child: &mut Child) -> (std::process::ExitStatus, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap(), said)
}

fn status(socket: &Path) -> Value {
    let (code, body) = localapi(socket, "GET", "status", "");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// A tailnet whose fake runs and is Running.
fn up(tailnet: &FakeTailnet) -> RunningTailscaled {
    let fake = tailnet.run();
    eventually("Running", PATIENCE, || status(&fake.socket)["BackendState"] == "Running");
    fake
}

fn begin(tailnet: &FakeTailnet) -> Begun {
    let before = tailnet.starts().len();
    let child = Begun(spawn(tailnet, &["--socks5-server=127.0.0.1:0"]));
    tailnet.wait_start(before + 1);
    tailnet.socks_port();
    child
}

fn start(socket: &Path, key: &str) {
    let body = format!(
        r#"{{"AuthKey":"{key}","UpdatePrefs":{{"WantRunning":true,"RouteAll":true,"Hostname":"gw"}}}}"#
    );
    assert_eq!(localapi(socket, "POST", "start", &body).0, 204);
    assert_eq!(localapi(socket, "POST", "login-interactive", "").0, 204);
}

/// A stream of the bus.
struct Stream(IpnBus);

impl Stream {
    fn open(socket: &Path, mask: u64) -> Stream {
        Stream(IpnBus::open(socket, mask, PATIENCE))
    }

    fn next(&mut self) -> Value {
        self.0.next_message().unwrap()
    }

    /// The next one whose `field` says something.
    fn field(&mut self, field: &str) -> Value {
        loop {
            let mut notify = self.next();
            assert!(notify.as_object().unwrap().contains_key("State"), "{notify}");
            if !notify[field].is_null() {
                return notify[field].take();
            }
        }
    }
}

#[test]
fn it_starts_logged_out_and_logs_in_with_the_key_of_start() {
    let tailnet = FakeTailnet::new();
    let mut child = begin(&tailnet);
    let socket = tailnet.dir().join("s.sock");
    let before = status(&socket);
    assert_eq!(
        (&before["BackendState"], &before["TailscaleIPs"]),
        (&"NeedsLogin".into(), &Value::Null)
    );
    assert_eq!(localapi(&socket, "GET", "dns-config", ""), (503, "no netmap\n".to_owned()));
    let mut bus = Stream::open(&socket, 2 | 4 | 128);
    let first = bus.next();
    assert_eq!((&first["State"], &first["NetMap"]), (&2.into(), &Value::Null));
    assert_eq!(first["Prefs"]["LoggedOut"], true);
    start(&socket, "tskey-auth-1");
    assert_eq!(bus.field("LoginFinished"), json!({}));
    assert_eq!(bus.field("State"), 5);
    assert_eq!(bus.field("NetMap")["Peers"][0]["Name"], "db.lab.ts.net.");
    assert_eq!(bus.field("State"), 6);
    let after = status(&socket);
    assert_eq!(after["Self"]["DNSName"], "gw.lab.ts.net.");
    assert_eq!(after["TailscaleIPs"][0], "100.64.0.9");
    assert_eq!(after["Peer"].as_object().unwrap().len(), 1);
    assert!(!localapi(&socket, "GET", "status?peers=false", "").1.contains("db.lab"));
    assert_eq!(tailnet.logins(), [Some("tskey-auth-1".to_owned())]);
    assert_eq!(tailnet.writes(), ["start", "login-interactive"]);
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    let (code, said) = end(&mut child.0);
    assert_eq!(code.code(), Some(0));
    assert!(said.contains("SOCKS5 listening on 127.0.0.1:"), "{said}");
    assert!(said.contains("logged out ephemeral node on shutdown"), "{said}");
    eventually("the log-out is seen", PATIENCE, || tailnet.logouts() == 1);
    assert_eq!(tailnet.signals(), ["terminated"]);
}

#[test]
fn a_refused_key_is_said_again_and_again_until_the_client_is_gone() {
    let tailnet = FakeTailnet::with(|s| s.login = Login::Refused("authkey expired".to_owned()));
    let _child = begin(&tailnet);
    let socket = tailnet.dir().join("s.sock");
    let mut bus = Stream::open(&socket, 2);
    start(&socket, "tskey-auth-1");
    assert_eq!(bus.field("ErrMessage"), "authkey expired");
    assert_eq!(bus.field("ErrMessage"), "authkey expired");
    let now = status(&socket);
    assert_eq!(now["BackendState"], "NeedsLogin");
    assert_eq!(now["Health"][0], "You are logged out. The last login error was: authkey expired");
    assert_eq!(localapi(&socket, "POST", "disconnect-control", "").0, 200);
    tailnet.login(Login::Runs(Duration::ZERO));
    assert_eq!(status(&socket)["BackendState"], "NeedsLogin", "nobody tries any more");
    start(&socket, "tskey-auth-2");
    eventually("Running", PATIENCE, || status(&socket)["BackendState"] == "Running");
}

#[test]
fn every_other_end_of_a_login() {
    let cases = [
        (Login::Unreachable("dial tcp: refused".to_owned()), "NeedsLogin"),
        (Login::NeedsApproval, "NeedsMachineAuth"),
        (Login::NoRelay("no relay".to_owned()), "Starting"),
        (Login::Browse("https://login.tailscale.com/a/1".to_owned()), "NeedsLogin"),
    ];
    for (login, state) in cases {
        let tailnet = FakeTailnet::with(|s| s.login = login.clone());
        let _child = begin(&tailnet);
        let socket = tailnet.dir().join("s.sock");
        let mut bus = Stream::open(&socket, 2);
        start(&socket, "tskey-auth-1");
        match login {
            Login::Unreachable(_) => {
                let health = bus.field("Health")["Warnings"]["login-state"]["Text"].take();
                assert!(health.as_str().unwrap().ends_with("dial tcp: refused"), "{health}");
            }
            Login::NoRelay(_) => {
                assert_eq!(
                    bus.field("Health")["Warnings"]["no-derp-connection"]["Text"],
                    "no relay"
                );
            }
            Login::Browse(url) => {
                assert_eq!(bus.field("BrowseToURL"), *url);
                assert_eq!(status(&socket)["AuthURL"], *url);
            }
            _ => assert_eq!(bus.field("LoginFinished"), json!({})),
        }
        eventually(state, PATIENCE, || status(&socket)["BackendState"] == state);
        tailnet.login(Login::Runs(Duration::ZERO));
        eventually("Running", PATIENCE, || status(&socket)["BackendState"] == "Running");
    }
}

#[test]
fn the_netmap_changes_on_the_bus_and_states_flip() {
    let tailnet = FakeTailnet::new();
    let fake = up(&tailnet);
    let mut bus = Stream::open(&fake.socket, 8);
    bus.next();
    tailnet.change(|s| s.peers[0].online = false);
    assert_eq!(bus.field("NetMap")["Peers"][0]["Online"], false);
    tailnet.become_state(State::NeedsLogin);
    assert_eq!(bus.field("State"), 2);
    assert_eq!(status(&fake.socket)["Self"]["Expired"], true);
    tailnet.order(Order::Error("node registration rate limited".to_owned()));
    assert_eq!(bus.field("ErrMessage"), "node registration rate limited");
    tailnet.order(Order::EndBus);
    assert_eq!(bus.0.next_message(), None);
}

#[test]
fn localapi_refuses_strangers_and_knows_its_methods() {
    let tailnet = FakeTailnet::new();
    let fake = up(&tailnet);
    let ask = |fields: &str| {
        let request =
            format!("GET /localapi/v0/status HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        localapi_raw(&fake.socket, &request)[9..12].to_owned()
    };
    assert_eq!(ask("Host: local-tailscaled.sock\r\n"), "200");
    assert_eq!(ask("Host:\r\n"), "200");
    assert_eq!(ask("Host: localhost\r\n"), "403");
    assert_eq!(ask("Host: local-tailscaled.sock\r\nOrigin: null\r\n"), "403");
    assert_eq!(ask("Host: local-tailscaled.sock\r\nReferer: x\r\n"), "403");
    assert_eq!(ask(""), "400");
    assert_eq!(localapi(&fake.socket, "GET", "nonesuch", "").0, 404);
    assert_eq!(localapi(&fake.socket, "GET", "logout", "").0, 400);
    let masked = r#"{"ShieldsUp":true,"ShieldsUpSet":true,"CorpDNS":false}"#;
    let (code, prefs) = localapi(&fake.socket, "PATCH", "prefs", masked);
    let prefs: Value = serde_json::from_str(&prefs).unwrap();
    assert_eq!((code, &prefs["ShieldsUp"], &prefs["RouteAll"]), (200, &true.into(), &true.into()));
    tailnet.change(|s| s.refuse_prefs = Some("bad tag".to_owned()));
    let refused = localapi(&fake.socket, "POST", "check-prefs", "{}").1;
    assert_eq!(serde_json::from_str::<Value>(&refused).unwrap()["Error"], "bad tag");
    tailnet.change(|s| s.read_only = true);
    assert_eq!(localapi(&fake.socket, "POST", "logout", "").0, 403);
    assert_eq!(localapi(&fake.socket, "GET", "prefs", "").0, 200);
}

/// A `dial` by hand.
fn dial(socket: &Path, host: &str, port: u16) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: upgrade\r\n\
         Upgrade: ts-dial\r\nDial-Host: {host}\r\nDial-Port: {port}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[test]
fn dial_goes_through_says_why_not_or_hands_back() {
    let origin = Origin::echo();
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1:5432", origin.address());
    tailnet.answer("100.64.0.1:81", Answer::Refused);
    let fake = up(&tailnet);
    let mut through = dial(&fake.socket, "db", 5432);
    assert!(head(&mut through).starts_with("http/1.1 101 "));
    through.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    through.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    let mut refused = dial(&fake.socket, "100.64.0.1", 81);
    assert!(head(&mut refused).starts_with("http/1.1 502 "));
    let mut words = [0; 30];
    refused.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"dial failure: connect tcp 100.");
    assert!(head(&mut dial(&fake.socket, "no.such.name", 81)).starts_with("http/1.1 502 "));
    let outside = head(&mut dial(&fake.socket, "10.99.0.1", 80));
    assert!(outside.contains("dial-self: true") && outside.contains("dial-addr: 10.99.0.1:80"));
    tailnet.become_state(State::Stopped);
    assert!(head(&mut dial(&fake.socket, "100.64.0.1", 5432)).contains("dial-self: true"));
    let hosts: Vec<String> = tailnet.dials().into_iter().map(|d| d.host).collect();
    assert_eq!(hosts, ["db", "100.64.0.1", "no.such.name", "10.99.0.1", "100.64.0.1"]);
}

#[test]
fn socks_answers_every_failure_alike_and_leads_out_and_back_home() {
    let origin = Origin::echo();
    let tailnet = FakeTailnet::new();
    tailnet.place("10.50.0.7", origin.address());
    tailnet.answer("100.64.0.1:81", Answer::Refused);
    let fake = up(&tailnet);
    let code = |target: &str| client::ask(fake.socks, Inbound::Socks5, target).1.code();
    assert_eq!(code("10.50.0.7:80"), 0, "a subnet route");
    assert_eq!(code("100.64.0.1:81"), 1);
    assert_eq!(code("no.such.name:80"), 1);
    assert_eq!(code(&origin.address().to_string()), 0, "outside: this host's own network");
    let own = format!("100.64.0.9:{}", origin.address().port());
    assert_eq!(code(&own), 0, "its own address: this host's loopback");
    let (rep, took) = timed(|| code("100.64.0.1:82"));
    assert!(rep == 1 && took >= 5 * SECOND - SECOND / 10, "nobody home: {took:?}");
    let asked = tailnet.socks();
    assert!(asked.len() == 6 && asked.iter().all(|a| a.running), "{asked:?}");
}

#[test]
fn a_half_close_kills_the_answer_before_1_104_and_not_after() {
    for (version, answer) in [("1.98.9-ERR-BuildInfo", ""), ("1.104.0", "late answer")] {
        let origin = Origin::send_after_eof("late answer");
        let tailnet = FakeTailnet::with(|s| s.version = version.to_owned());
        tailnet.place("100.64.0.1", origin.address());
        let fake = up(&tailnet);
        let mut wire = client::open(fake.socks, Inbound::Socks5, "100.64.0.1:80");
        wire.send("question");
        wire.fin();
        let (got, end) = wire.rest();
        assert_eq!(String::from_utf8_lossy(&got), answer, "{version}");
        assert_ne!(end, ConnectionEnd::Open, "{version}");
    }
}

#[test]
fn version_flags_and_exits() {
    let tailnet =
        FakeTailnet::with(|s| s.start = Start::UnknownFlag("--no-logs-no-support".to_owned()));
    let asked = Command::new(tailnet.program()).arg("--version").output().unwrap();
    assert!(asked.stdout.starts_with(b"1.98.9-ERR-BuildInfo\n"), "{asked:?}");
    assert!(tailnet.starts().is_empty(), "a look at the version is no start");
    let (code, said) = end(&mut spawn(&tailnet, &[]));
    assert_eq!(code.code(), Some(2));
    assert!(said.starts_with("flag provided but not defined: -no-logs-no-support\n"), "{said}");
    tailnet.change(|s| s.start = Start::Exit("wgengine: watchdog timeout".to_owned(), 1));
    let (code, said) = end(&mut spawn(&tailnet, &[]));
    assert!(code.code() == Some(1) && said.contains(" wgengine: watchdog timeout\n"), "{said}");
    let started = tailnet.wait_start(2);
    assert!(started.process.argv.contains(&"--state=mem:".to_owned()));
    assert!(started.process.environ.keys().eq(["PATH"]), "{started:?}");
    tailnet.wait_end(2, PATIENCE);
    tailnet.change(|s| s.start = Start::Late(SECOND / 2));
    let (mut child, took) = timed(|| begin(&tailnet));
    assert!(took >= SECOND / 2, "{took:?}");
    tailnet.order(Order::Exit(3));
    assert_eq!(child.0.wait().unwrap().code(), Some(3));
}

#[test]
fn it_dies_with_its_parent_and_with_its_descriptors() {
    let tailnet = FakeTailnet::with(|s| s.open_files = Some(64));
    let mut child = begin(&tailnet);
    let port = tailnet.socks_port().unwrap();
    let held: Vec<TcpStream> = (0..90).filter_map(|_| TcpStream::connect(port).ok()).collect();
    assert!(held.len() > 40);
    assert_eq!(child.0.wait().unwrap().code(), Some(1), "accept without a descriptor is fatal");
    tailnet.wait_end(1, PATIENCE);
    tailnet.change(|s| s.open_files = None);
    let (pipe, mine) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut child = Command::new(tailnet.program())
        .args(["--state=mem:", "--socket"])
        .arg(tailnet.dir().join("s.sock"))
        .env("TS_PARENT_DEATH_FD", "0")
        .stdin(pipe)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    tailnet.wait_start(2);
    assert_eq!(tailnet.socks_port(), None, "none was asked for");
    assert_eq!(tailnet.running(), 1);
    drop(mine);
    let (code, took) = timed(|| child.wait().unwrap().code());
    assert_eq!(code, Some(1));
    assert_within("dying with the parent", took, SECOND);
    assert_eq!(tailnet.logouts(), 0);
}

#[test]
fn it_floods_says_pieces_and_leaves_orphans() {
    let tailnet = FakeTailnet::new();
    let mut child = begin(&tailnet);
    let mut stderr = child.0.stderr.take().unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = stderr.read(&mut chunk) {
            heard.lock().unwrap().extend_from_slice(&chunk[..n]);
        }
    });
    tailnet.order(Order::Flood("FLOOD".to_owned(), 8 << 20));
    eventually("the flood is over", PATIENCE, || tailnet.flooded() >= 8 << 20);
    tailnet.say(&[b"key tskey-auth-AB", b"CD\xff\n"]);
    let key = b"key tskey-auth-ABCD\xff\n";
    eventually("both pieces", PATIENCE, || said.lock().unwrap().ends_with(key));
    assert!(said.lock().unwrap().len() > 8 << 20);
    tailnet.order(Order::Orphans(3));
    tailnet.order(Order::Exit(0));
    child.0.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(tailnet.running(), 0);
}

#[test]
fn two_thousand_connections() {
    tailrace_rig::idle_tunnels::descriptors();
    let tailnet = FakeTailnet::new();
    tailnet.answer("100.64.0.1", Answer::Echo);
    let fake = up(&tailnet);
    let request = [&[5, 1, 0][..], &client::socks5_request("100.64.0.1", 80)].concat();
    let mut wires: Vec<TcpStream> = (0..2000)
        .map(|_| {
            let mut stream = TcpStream::connect(fake.socks).unwrap();
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    for wire in &mut wires {
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 12];
        wire.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..4], [5, 0, 5, 0]);
    }
    let most =
        eventually_some("all are open", PATIENCE, || Some(tailnet.open()).filter(|n| *n == 2000));
    assert_eq!(most, 2000);
    let mut last = RawConnection::dial(fake.socks);
    last.send(&request);
    last.expect([5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    last.send("x");
    last.expect("x");
}

/// The fake as the probes have it.
struct Probed<'a> {
    tailnet: &'a FakeTailnet,
    running: Option<Begun>,
}

impl ProbedDaemon for Probed<'_> {
    fn begin(&mut self, state: &str) {
        let before = self.tailnet.starts().len();
        let child = Command::new(self.tailnet.program())
            .args(["--tun=userspace-networking", "--no-logs-no-support"])
            .arg(format!("--state={state}"))
            .arg(format!("--socket={}", self.socket().display()))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(Begun(child.unwrap()));
        self.tailnet.wait_start(before + 1);
        assert_eq!(self.tailnet.socks_port(), None);
    }

    fn end(&mut self, at_once: bool) {
        let mut begun = self.running.take().unwrap();
        let signal = if at_once { Signal::KILL } else { Signal::TERM };
        kill_process(Pid::from_child(&begun.0), signal).unwrap();
        begun.0.wait().unwrap();
        self.tailnet.wait_end(self.tailnet.starts().len(), PATIENCE);
    }

    fn socket(&self) -> PathBuf {
        self.tailnet.dir().join("s.sock")
    }

    fn folder(&self) -> PathBuf {
        let folder = self.tailnet.dir().join("kept");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn options(&self) -> Value {
        json!({"AuthKey": self.tailnet.key(),
            "UpdatePrefs": {"WantRunning": true, "RouteAll": true, "Hostname": "probed"}})
    }

    fn peer_comes(&mut self) -> &'static str {
        let peer = Peer {
            name: "comer".to_owned(),
            addresses: vec!["100.64.0.3".parse().unwrap()],
            routes: Vec::new(),
            online: true,
        };
        self.tailnet.change(|s| s.peers.push(peer));
        "comer"
    }

    fn peer_sleeps(&mut self) {
        self.tailnet.change(|s| s.peers[1].online = false);
    }

    fn peer_goes(&mut self) {
        self.tailnet.change(|s| drop(s.peers.pop()));
    }
}

/// The real one's answers are kept; `cargo test --test tailnet tailscaled_answers` holds them against it.
#[test]
fn it_answers_as_the_real_one_of_its_version_does() {
    for version in ["v1.98.9", "v1.102.3"] {
        let tailnet = FakeTailnet::with(|s| {
            s.version = format!("{}-ERR-BuildInfo", &version[1..]);
            s.whole_netmaps = true;
            s.dns["ExtraRecords"] = json!([{"Name": "a.lab.ts.net", "Value": "100.64.0.1"}]);
        });
        let report = probes::ask(&mut Probed { tailnet: &tailnet, running: None });
        probes::compare(version, "fake", &report);
    }
}

/// As the control server does it: who lingers keeps name and address.
#[test]
fn a_node_that_comes_without_its_identity_is_another_one() {
    let tailnet = FakeTailnet::new();
    let me = |fake: &RunningTailscaled| {
        eventually("Running", PATIENCE, || status(&fake.socket)["BackendState"] == "Running");
        let now = status(&fake.socket);
        (now["Self"]["DNSName"].clone(), now["TailscaleIPs"][0].clone())
    };
    let first = tailnet.run();
    assert_eq!(me(&first), (json!("host.lab.ts.net."), json!("100.64.0.9")));
    drop(first);
    let second = tailnet.run();
    assert_eq!(me(&second), (json!("host-1.lab.ts.net."), json!("100.64.0.73")));
    assert_eq!(localapi(&second.socket, "POST", "logout", "").0, 204);
    drop(second);
    let third = tailnet.run();
    assert_eq!(
        me(&third),
        (json!("host-1.lab.ts.net."), json!("100.64.0.73")),
        "it was free again"
    );
}

#[test]
fn the_bus_can_be_refused_narrowed_closed_and_be_missing() {
    let tailnet = FakeTailnet::new();
    let fake = up(&tailnet);
    let ask = |mask: &str| IpnBus::ask(&fake.socket, mask, PATIENCE).map(drop);
    let fate = |fate: Fate| tailnet.change(|s| s.bus = fate);
    fate(Fate::Refused(404, "gone".to_owned()));
    assert_eq!(ask("2"), Err((404, "gone".to_owned())));
    fate(Fate::Takes(2 | 128));
    assert!(ask("130").is_ok() && ask("2").is_ok() && ask("4096").is_err_and(|e| e.0 == 400));
    fate(Fate::Closes(Duration::from_millis(20)));
    let mut bus = Stream::open(&fake.socket, 2);
    bus.next();
    assert_eq!(bus.0.next_message(), None, "it closes by itself");
    fate(Fate::Normal);
    tailnet.change(|s| s.version = "1.150.0-t1".to_owned());
    for (mask, taken) in [("256", false), ("8", false), ("2", true), ("36994", true)] {
        assert_eq!(ask(mask).is_ok(), taken, "{mask}");
    }
    tailnet.change(|s| s.lacks = vec!["dns-config".to_owned(), "watch-ipn-bus".to_owned()]);
    assert_eq!(localapi(&fake.socket, "GET", "dns-config", "").0, 404);
    assert!(ask("2").is_err_and(|e| e.0 == 404));
    tailnet.change(|s| (s.lacks, s.strange) = (Vec::new(), true));
    let strange = status(&fake.socket);
    assert!(strange["Unheard"].is_object() && strange["Peer"].as_object().unwrap().len() == 1);
    assert!(strange.get("HaveNodeKey").is_none() && strange["BackendState"] == "Running");
}
