//! `tailrace doctor`, `explain` and `status`: against a running gateway, and against one that is told
//! what to answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{ClosedPort, FakeUpstream, Gateway, Origin, Setup, accepts};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command with the settings in this folder.
#[track_caller]
fn command(folder: &Path, arguments: &[&str], code: i32) -> Output {
    let mut command = Command::new(tailrace_rig::setup::binary());
    command.env_clear().args(arguments).arg("--config").arg(folder.join("config.toml"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = tailrace_rig::setup::run(command);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    output
}

/// What it prints as JSON.
#[track_caller]
fn told(folder: &Path, arguments: &[&str], code: i32) -> Value {
    let all = [arguments, &["--json"]].concat();
    serde_json::from_slice(&command(folder, &all, code).stdout).unwrap()
}

/// Each link's name, and whether it holds.
fn links(told: &Value) -> Vec<(&str, bool)> {
    let links = told.as_array().unwrap().iter();
    links.map(|link| (link["name"].as_str().unwrap(), link["ok"] == true)).collect()
}

fn direct(change: impl FnOnce(&mut Setup)) -> Gateway {
    Gateway::start(|setup| {
        setup.direct();
        change(setup);
    })
}

#[test]
fn every_link_of_a_sound_chain() {
    let gateway = direct(|_| ());
    assert_eq!(
        links(&told(gateway.dir(), &["doctor"], 0)),
        [("gateway", true), ("upstream", true)]
    );
    let origin = Origin::echo();
    let target = origin.address().to_string();
    let told = told(gateway.dir(), &["doctor", &target], 0);
    let names = ["gateway", "upstream", "dns", "policy", "route", "port", "tls"];
    assert_eq!(links(&told), names.map(|name| (name, true)));
    assert_eq!(told[6]["detail"], "not spoken there", "an echo is no TLS");
    let human = text(&command(gateway.dir(), &["doctor", &target], 0).stdout);
    assert!(human.lines().count() == 7 && human.lines().all(|l| l.starts_with("ok ")), "{human}");
    let lines = gateway.wait_for_access(2);
    assert!(lines.iter().all(|line| line["label"] == "doctor"), "{lines:?}");
}

/// `openssl s_server` of one version of TLS, with a key made for it.
struct TlsServer(Child, SocketAddr);

impl TlsServer {
    fn start(folder: &Path, version: &str) -> TlsServer {
        let address = ClosedPort::new().address();
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key \
             -out cert -subj /CN=x 2>/dev/null && \
             exec openssl s_server -accept {address} -key key -cert cert -quiet {version}"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(folder);
        let child = shell.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let server = TlsServer(child, address);
        eventually("the TLS server listens", PATIENCE, || accepts(address));
        server
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tls_is_told_of_both_its_versions() {
    if Command::new("openssl").arg("version").output().is_err() {
        return tailrace_rig::skip("no openssl here");
    }
    let gateway = direct(|_| ());
    for version in ["-tls1_2", "-tls1_3"] {
        let server = TlsServer::start(gateway.dir(), version);
        let told = told(gateway.dir(), &["doctor", &server.1.to_string()], 0);
        assert_eq!(told[6]["detail"], "a ClientHello is answered with TLS", "{version}");
    }
}

#[test]
fn the_first_broken_link_ends_the_walk() {
    let gateway = direct(|setup| {
        setup.set("policy.mode", "enforce").set("dns.timeout", "1s");
        setup.set("policy.allowed_nets", vec!["127.0.0.0/8"]);
        setup.set("policy.allowed_hosts", vec!["*.invalid"]);
    });
    let closed = ClosedPort::new().address().to_string();
    let (before, sound) = ([("gateway", true), ("upstream", true)], true);
    for (target, rest) in [
        (
            closed.as_str(),
            &[("dns", sound), ("policy", sound), ("route", sound), ("port", false)][..],
        ),
        ("db.corp.example", &[("policy", false)]),
        ("nobody.invalid:80", &[("dns", false)]),
    ] {
        let told = told(gateway.dir(), &["doctor", target], 1);
        assert_eq!(links(&told), [&before[..], rest].concat(), "{target}");
        let last = told.as_array().unwrap().last().unwrap();
        for part in ["symptom", "cause", "fix"] {
            assert!(last["advice"][part].as_str().is_some_and(|said| !said.is_empty()), "{last}");
        }
        let human = text(&command(gateway.dir(), &["doctor", target], 1).stdout);
        for part in ["symptom", "cause", "fix"] {
            assert!(human.contains(last["advice"][part].as_str().unwrap()), "{human}");
        }
    }
}

#[test]
fn an_upstream_that_is_down_is_a_broken_link() {
    let gone = ClosedPort::new();
    let gateway = Gateway::start(|setup| {
        setup.upstream(gone.address()).set("upstream.pool", 1);
    });
    let told = told(gateway.dir(), &["doctor", "db.corp.example"], 1);
    assert_eq!(links(&told), [("gateway", true), ("upstream", false)]);
    assert!(told[1]["advice"]["cause"].as_str().unwrap().contains("upstream"), "{told}");
}

#[test]
fn without_a_gateway_doctor_and_explain_end_69_and_say_what_to_do() {
    let mut setup = Setup::new();
    let closed = [ClosedPort::new(), ClosedPort::new()];
    setup.direct().set("listen.proxy", vec![closed[0].address().to_string()]);
    setup.set("listen.admin", closed[1].address().to_string());
    setup.write();
    let links = told(setup.dir(), &["doctor"], 69);
    let advice = &links[0]["advice"];
    assert_eq!(advice["symptom"], "no gateway runs");
    assert!(advice["cause"].as_str().unwrap().contains("nothing was started"), "{advice}");
    assert!(advice["fix"].as_str().unwrap().contains("tailrace up"), "{advice}");
    let explain = command(setup.dir(), &["explain", "a.example"], 69);
    assert!(text(&explain.stderr).contains("tailrace up"), "{explain:?}");
    for arguments in [&["doctor", "a..b"][..], &["doctor", "a:0"], &["explain"]] {
        command(setup.dir(), arguments, 64);
    }
    setup.raw("polcy = 1\n").write();
    for arguments in [&["doctor"][..], &["explain", "a.example"]] {
        command(setup.dir(), arguments, 78);
    }
}

#[test]
fn explain_tells_the_decision_in_its_order() {
    let gateway = direct(|setup| {
        setup.enforce(&[".localhost"]).set("policy.deny_nets", vec!["127.0.0.7/32"]);
    });
    let explained = |target: &str| told(gateway.dir(), &["explain", target], 0);
    let refused = explained("DB.corp.example.");
    assert_eq!(refused["target"], "db.corp.example:443", "canonical, and the usual port");
    assert_eq!((&refused["refused"], &refused["dns"]), (&json!(true), &Value::Null));
    assert_eq!(refused["policy"]["verdict"], "deny");
    let denied = explained("127.0.0.7:80");
    assert_eq!(denied["policy"]["rule"], "deny_net 127.0.0.7/32");
    let human = text(&command(gateway.dir(), &["explain", "db.corp.example"], 0).stdout);
    assert!(human.starts_with("target     db.corp.example:443\npolicy     deny ("), "{human}");
    assert!(human.contains("refused"), "{human}");
    let bad = command(gateway.dir(), &["explain", "a..b"], 64);
    assert!(text(&bad.stderr).contains("a..b"), "{bad:?}");
    assert_eq!(gateway.access_lines().len(), 0, "nothing was dialled");
}

#[test]
fn explain_of_a_name_that_is_passed_on_asks_nobody() {
    let fake = FakeUpstream::start();
    let gateway = Gateway::chained(&fake);
    let told = told(gateway.dir(), &["explain", "db.corp.example:5432"], 0);
    assert_eq!(told["dns"]["route"], "upstream", "{told}");
    assert_eq!((&told["addresses"], &told["fault"]), (&json!([]), &Value::Null));
    assert!(fake.hosts().is_empty());
}

/// A gateway that answers what it is told to, found like any other.
struct Told {
    setup: Setup,
}

impl Told {
    fn start(answers: &[(&'static str, Value)]) -> Told {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap();
        let answers = answers.to_vec();
        // Ends with the test's process: it serves nobody else.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&client).lines();
                let request = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let path = request.split(' ').nth(1).unwrap();
                let answer = answers.iter().find(|(known, _)| path.starts_with(known));
                let (status, body) = match answer {
                    Some((_, body)) => ("200 OK", body),
                    None => ("404 Not Found", &Value::Null),
                };
                let said = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
                (&client).write_all(said.as_bytes()).unwrap();
            }
        });
        let proxy = ClosedPort::new().address();
        let mut setup = Setup::new();
        setup.direct();
        setup.write();
        let published = json!({"pid": 1, "version": "0", "proxy": [proxy], "admin": admin});
        std::fs::create_dir(setup.run_dir()).unwrap();
        std::fs::write(setup.run_dir().join("gateway.json"), published.to_string()).unwrap();
        Told { setup }
    }
}

fn status(state: &str, fault: Value) -> Value {
    json!({
        "version": "0.1.0", "commit": "0", "target": "t", "pid": 7, "uptime_seconds": 1,
        "ready": fault.is_null(), "pending": [], "policy": {"mode": "log"},
        "listeners": {"proxy": [], "admin": "127.0.0.1:1", "dns": null, "dns_clients": null},
        "upstream": {"kind": "localapi", "address": null, "up": true,
                     "pool": {"idle": 0, "filling": 0}, "internal_port_exposed": false},
        "counters": {"targets": 0, "active": 0, "bytes_up": 0, "bytes_down": 0, "lost_bytes": 0,
                     "log_dropped": 0, "outcomes": {}},
        "tailnet": {
            "identity": "memory", "half_close": "defer", "news": {"by": "bus"},
            "managed": true, "state": state, "name": "autoheal-x.lab.ts.net",
            "addresses": ["100.64.0.9"], "tags": ["tag:box"], "key_expiry": null,
            "version": "1.98.9", "process": 123, "health": [], "restarts": 0, "fault": fault,
            "peers": [{"name": "svc.lab.ts.net", "host": "svc\u{1b}[2J", "addresses": ["100.64.0.1"],
                       "routes": ["10.50.0.0/24"], "online": true}],
        },
    })
}

#[test]
fn a_refused_key_is_the_broken_link_in_the_gateway_s_words() {
    let said = json!({"symptom": "the key is refused", "cause": "the key has expired",
                      "fix": "make a new one"});
    let gateway = Told::start(&[("/api/v1/status", status("auth_failed", said.clone()))]);
    let told = told(gateway.setup.dir(), &["doctor", "svc"], 1);
    let names = ["gateway", "binary", "process", "login", "key"];
    assert_eq!(links(&told), names.map(|name| (name, name != "key")));
    assert_eq!(told[4]["advice"], said);
    let human = text(&command(gateway.setup.dir(), &["doctor"], 1).stdout);
    let last = human.lines().rev().take(3).collect::<Vec<_>>();
    assert!(last[0].ends_with("fix: make a new one"), "{human}");
    assert!(last[1].ends_with("cause: the key has expired"), "{human}");
    assert!(
        last[2].starts_with("broken  key") && last[2].ends_with("the key is refused"),
        "{human}"
    );
}

#[test]
fn a_name_nobody_knows_and_a_resolver_that_is_not_asked() {
    let fault = json!({"symptom": "the internal name does not resolve",
                       "cause": "no DNS route covers it", "fix": "add one"});
    let explained = json!({
        "target": "x.corp.example:443", "asked": "x.corp.example:443",
        "policy": {"mode": "log", "verdict": "allow", "rule": null}, "refused": false,
        "dns": {"route": "split", "suffix": "corp.example", "nameservers": ["100.64.0.1:53"],
                "skipped": ["tls://9.9.9.9"], "addresses": [], "took_ms": 3, "error": "no answer"},
        "addresses": [], "tailnet": {"state": "running"}, "fault": fault, "clients": [],
    });
    let gateway = Told::start(&[
        ("/api/v1/status?peers=true", status("running", Value::Null)),
        ("/api/v1/explain?target=x.corp.example%3A443", explained),
    ]);
    let folder = gateway.setup.dir();
    let doctor = told(folder, &["doctor", "x.corp.example"], 1);
    let last = doctor.as_array().unwrap().last().unwrap();
    assert_eq!((&last["name"], &last["advice"]), (&json!("dns"), &fault));
    let human = text(&command(folder, &["explain", "x.corp.example:443"], 0).stdout);
    for part in ["split route of corp.example, asked 100.64.0.1:53", "tls://9.9.9.9", "running"] {
        assert!(human.contains(part), "{human}");
    }
    assert!(human.ends_with("fix        add one\n"), "{human}");
}

#[test]
fn status_shows_peers_when_asked_and_no_escape_reaches_the_terminal() {
    let gateway = Told::start(&[("/api/v1/status?peers=true", status("running", Value::Null))]);
    let human = text(&command(gateway.setup.dir(), &["status", "--peers"], 0).stdout);
    let peer = human.lines().find(|line| line.starts_with("tailnet.peers")).unwrap();
    assert!(peer.contains("svc.lab.ts.net") && peer.contains("10.50.0.0/24"), "{human}");
    assert!(!human.contains('\u{1b}') && human.contains("svc\\u{1b}[2J"), "{human}");
}
