//! Chapter K: the key is seen by tailscaled and by nobody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tailrace_rig::fake_tailnet::script::{Answer, Login};
use tailrace_rig::key_search::{holds, in_files, in_memory, in_proc};
use tailrace_rig::managed_gateway::text;
use tailrace_rig::setup::json_file;
use tailrace_rig::wait::{PATIENCE, eventually, eventually_some, pause};
use tailrace_rig::{FakeTailnet, Gateway, HttpOrigin, Inbound, Origin, RawConnection, Setup};

const SECOND: Duration = Duration::from_secs(1);

/// The ways a key comes in.
#[derive(Clone, Copy, Debug)]
enum Way {
    File,
    Variable,
    VariableFile,
    Credential,
}

impl Way {
    const ALL: [Way; 4] = [Way::File, Way::Variable, Way::VariableFile, Way::Credential];

    fn apply(self, setup: &mut Setup, tailnet: &FakeTailnet) {
        setup.managed_without_key(tailnet);
        match self {
            Way::File => {
                setup.managed(tailnet);
            }
            Way::Variable => {
                setup.env("TS_AUTHKEY", tailnet.key());
            }
            Way::VariableFile => {
                setup.env("TS_AUTHKEY_FILE", tailnet.key_file());
            }
            Way::Credential => {
                let folder = tailnet.dir().join("credentials");
                std::fs::create_dir_all(&folder).unwrap();
                let file = folder.join("tailrace.authkey");
                std::fs::write(&file, tailnet.key()).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
                setup.env("CREDENTIALS_DIRECTORY", folder);
            }
        }
    }
}

#[track_caller]
fn ready(tailnet: &FakeTailnet, way: Way) -> Gateway {
    started(tailnet, |s| way.apply(s, tailnet))
}

/// The same whose tailscaled is a new node each time: every restart is a login by the key.
#[track_caller]
fn ready_to_log_in_again(tailnet: &FakeTailnet, way: Way) -> Gateway {
    started(tailnet, |s| {
        way.apply(s, tailnet);
        s.set("tailnet.state", "ephemeral");
    })
}

#[track_caller]
fn started(tailnet: &FakeTailnet, change: impl FnOnce(&mut Setup)) -> Gateway {
    let mut gateway = Gateway::start(change);
    gateway.wait_ready();
    assert_eq!(tailnet.logins(), [Some(tailnet.key())]);
    gateway
}

#[test]
fn k1_the_key_is_never_in_a_command_line() {
    for way in Way::ALL {
        let tailnet = FakeTailnet::new();
        let key = tailnet.key();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut seen = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    seen.extend(in_proc(&key, &["cmdline"]));
                }
                seen
            });
            let gateway = ready(&tailnet, way);
            over.store(true, Ordering::Relaxed);
            assert!(looking.join().unwrap().is_empty(), "{way:?}");
            drop(gateway);
        });
        let started = &tailnet.wait_start(1).process;
        assert!(started.argv.iter().all(|a| !holds(a.as_bytes(), &key)), "{:?}", started.argv);
    }
}

#[test]
fn k2_the_key_is_in_no_environment_a_second_after_the_start() {
    for way in Way::ALL {
        let tailnet = FakeTailnet::new();
        let mut gateway = ready(&tailnet, way);
        pause(SECOND);
        tailnet.assert_secret(&mut gateway);
        let given = tailnet.wait_start(1).process.environ;
        let allowed = [
            "PATH",
            "HOME",
            "TS_LOGS_DIR",
            "TS_PARENT_DEATH_FD",
            "HTTPS_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "TS_DISABLE_PORTMAPPER",
        ];
        let more: Vec<&String> =
            given.keys().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(more.is_empty(), "{way:?}: tailscaled was also given {more:?}");
        let death: u32 = given["TS_PARENT_DEATH_FD"].parse().unwrap();
        assert!(death > 2, "tailscaled takes no standard descriptor for it");
    }
}

#[test]
fn k2_tailscaled_inherits_no_descriptor_but_its_pipes_and_its_state() {
    let tailnet = FakeTailnet::new();
    let _gateway = tailnet.gateway(|_| ());
    let descriptors = tailnet.wait_start(1).process.descriptors;
    let open = |d: &String| d.starts_with("pipe:") || d == "/dev/null" || d.ends_with("/fd");
    // A folder in memory is the root of a mount that is mounted nowhere.
    let others: Vec<&String> = descriptors.iter().filter(|d| !open(d)).collect();
    assert_eq!(others, ["/"], "{descriptors:?}");
}

#[test]
fn k3_a_key_on_stderr_is_made_unreadable_wherever_the_reads_end() {
    let tailnet = FakeTailnet::new();
    let mut gateway = tailnet.gateway(|s| {
        s.set("log.level", "debug");
    });
    let key = tailnet.key();
    for at in (0..key.len()).step_by(5) {
        let line = format!("KEYLINE{at} invalid key: API key {key} not valid\n");
        let (first, second) = line.split_at(line.find(&key).unwrap() + at);
        tailnet.say(&[first.as_bytes(), second.as_bytes()]);
        let marker = format!("KEYLINE{at} ");
        let kept = eventually_some(&marker, PATIENCE, || {
            gateway.log_lines().iter().find_map(|l| text(l, &marker).map(str::to_owned))
        });
        assert!(kept.contains("[redacted] not valid"), "{kept}");
    }
    // Where a line is cut, half a key is still a key.
    for before in [4000, 4060, 4080, 4090] {
        let long = format!("CUT{before}{}{key}{}\n", "x".repeat(before), "y".repeat(9000));
        tailnet.say(&[long.as_bytes()]);
        let marker = format!("CUT{before}");
        eventually(&marker, PATIENCE, || {
            gateway.log_lines().iter().any(|l| text(l, &marker).is_some())
        });
    }
    let log = gateway.log();
    assert!(!log.contains("CANARY"), "no part of it");
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn k4_a_key_the_control_server_repeats_is_in_no_answer_and_no_log() {
    let tailnet = FakeTailnet::new();
    let key = tailnet.key();
    tailnet.login(Login::Refused(format!("invalid key: API key {key} not valid")));
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    gateway.wait_not_ready("auth_failed", PATIENCE);
    let refused = gateway.ask(Inbound::Connect, "db:80").1;
    let body = &refused.http().body;
    assert!(!holds(body, &key), "{}", String::from_utf8_lossy(body));
    let message = refused.http().json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("key"), "it says what is wrong: {message}");
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn k4_commands_show_no_key() {
    for way in [Way::File, Way::Variable] {
        let tailnet = FakeTailnet::new();
        let mut gateway = ready(&tailnet, way);
        let config = gateway.setup().config();
        let config = config.to_str().unwrap();
        for command in [
            &["config", "show", "--config", config][..],
            &["config", "check", config],
            &["status", "--json", "--config", config],
            &["env", "--config", config],
        ] {
            let output = gateway.setup().run(command);
            let said = [output.stdout, output.stderr].concat();
            assert!(!holds(&said, &tailnet.key()), "{command:?} {way:?}");
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
        }
    }
}

#[test]
fn k4_no_execve_carries_the_key() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return tailrace_rig::skip("needs strace");
    }
    let tailnet = FakeTailnet::new();
    let mut setup = Setup::new();
    setup.managed(&tailnet);
    let up = setup.up();
    let trace = tailnet.dir().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-v", "-s", "65536", "-e", "trace=execve", "-o"]).arg(&trace);
    command.arg(up.get_program()).args(up.get_args()).env_clear();
    command.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let told = json_file(&setup.run_dir().join("gateway.json"));
    eventually("a login", 2 * PATIENCE, || tailnet.logins().len() == 1);
    let pid = Pid::from_raw(told["pid"].as_i64().unwrap() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    eventually("the end", 2 * PATIENCE, || child.try_wait().unwrap().is_some());
    let traced = std::fs::read(&trace).unwrap();
    // What an undumpable process hands to execve only root may read.
    if rustix::process::geteuid().is_root() {
        assert!(
            String::from_utf8_lossy(&traced).contains("--state=/proc/self/fd/"),
            "tailscaled is in it"
        );
    }
    assert!(!holds(&traced, &tailnet.key()));
}

#[test]
fn k5_a_gateway_that_had_a_key_leaves_no_core() {
    for way in Way::ALL {
        let tailnet = FakeTailnet::new();
        let mut gateway = ready(&tailnet, way);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid()));
        if let Ok(limits) = limits {
            let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
            let fields: Vec<&str> = core.split_whitespace().collect();
            assert_eq!(fields[4], "0", "{way:?}: {core}");
        }
        if !rustix::process::geteuid().is_root() {
            let core = tailnet.dir().join("core");
            let mut gcore = Command::new("gcore");
            let tried = gcore.arg("-o").arg(&core).arg(gateway.pid().to_string()).output();
            assert!(!tried.is_ok_and(|o| o.status.success()), "the same uid may not look");
            assert_eq!(in_memory(gateway.pid(), &tailnet.key()), None);
        }
        let before = names(gateway.dir());
        gateway.signal(Signal::ABORT);
        gateway.wait_exit(PATIENCE);
        assert_eq!(names(gateway.dir()), before, "{way:?}: no core in its folder");
    }
}

fn names(folder: &std::path::Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name()).collect();
    names.sort();
    names
}

#[test]
fn k6_a_key_file_others_can_read_is_warned_of_once_and_used() {
    let tailnet = FakeTailnet::new();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(tailnet.key_file(), open).unwrap();
    let mut gateway = ready(&tailnet, Way::File);
    let file = tailnet.key_file();
    let warns =
        |l: &serde_json::Value| l["level"] == "warn" && text(l, file.to_str().unwrap()).is_some();
    let warning = gateway.wait_for_log(warns);
    let lines = gateway.log_lines();
    assert_eq!(lines.iter().filter(|l| warns(l)).count(), 1, "{lines:?}");
    assert!(text(&warning, "644").is_some(), "its mode: {warning}");
    let mode = std::fs::metadata(gateway.setup().run_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "run_dir");
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn k6_a_key_file_of_ones_own_is_no_matter_and_the_key_is_written_nowhere() {
    let tailnet = FakeTailnet::new();
    let mut gateway = ready(&tailnet, Way::File);
    let file = tailnet.key_file();
    let lines = gateway.log_lines();
    let warned =
        |l: &serde_json::Value| l["level"] == "warn" && text(l, file.to_str().unwrap()).is_some();
    assert!(!lines.iter().any(warned), "{lines:?}");
    assert_eq!(in_files(gateway.dir(), &tailnet.key()), [""; 0]);
    gateway.signal(Signal::TERM);
    gateway.wait_exit(PATIENCE);
    assert_eq!(in_files(gateway.dir(), &tailnet.key()), [""; 0]);
}

#[test]
fn k7_credentials_of_clients_go_nowhere() {
    let origin = HttpOrigin::ok("fine");
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1", origin.address());
    let gateway = tailnet.gateway(|_| ());
    let mut wire = RawConnection::dial(gateway.proxy());
    // "investigation-42:PASSWORDCANARY"
    wire.send(
        "GET http://db/path?token=QUERYCANARY HTTP/1.1\r\nHost: db\r\n\
         Proxy-Authorization: Basic aW52ZXN0aWdhdGlvbi00MjpQQVNTV09SRENBTkFSWQ==\r\n\
         Cookie: session=COOKIECANARY\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(wire.read_answer().body, b"fine");
    let mut userinfo = RawConnection::dial(gateway.proxy());
    userinfo.send("GET http://user:INFOCANARY@db/ HTTP/1.1\r\nHost: db\r\n\r\n");
    assert_eq!(userinfo.read_answer().status(), 200);
    let mut socks = gateway.dial();
    socks.send([&[5, 1, 2, 1, 14][..], b"tskey-auth-BAD", &[11], b"SOCKSCANARY"].concat());
    socks.expect([5, 2, 1, 0]);
    socks.send(tailrace_rig::client::socks5_request("db", 80));
    assert_eq!(socks.socks5_reply().rep, 0);
    drop(socks);
    let lines = gateway.wait_for_access(3);
    let labels: Vec<&serde_json::Value> = lines.iter().map(|l| &l["label"]).collect();
    assert!(labels.contains(&&"investigation-42".into()) && labels.contains(&&"redacted".into()));
    let log = gateway.log();
    let leaked = ["CANARY", "aW52ZXN0", "dXNlcjpJTkZP", "tskey-auth-BAD", "/path"];
    assert!(leaked.iter().all(|word| !log.contains(word)), "{lines:?}");
    let seen = &origin.requests()[0].head;
    assert_eq!(seen.get("proxy-authorization"), None);
    assert_eq!(seen.get("cookie"), Some("session=COOKIECANARY"), "the origin's own");
    // Those of a URL are the origin's too (B6), in the field that is for them and nowhere else.
    let seen = &origin.requests()[1].head;
    assert_eq!(seen.get("authorization"), Some("Basic dXNlcjpJTkZPQ0FOQVJZ"));
    assert!(!String::from_utf8_lossy(&seen.raw).contains("CANARY"));
}

#[test]
fn k8_a_key_from_a_file_is_gone_from_memory_and_read_again_for_each_login() {
    for way in [Way::File, Way::VariableFile, Way::Credential] {
        let tailnet = FakeTailnet::new();
        let mut gateway = ready_to_log_in_again(&tailnet, way);
        pause(5 * SECOND);
        let found = in_memory(gateway.pid(), &tailnet.key());
        if rustix::process::geteuid().is_root() {
            assert_eq!(found.unwrap(), [""; 0], "{way:?}");
        }
        if matches!(way, Way::File | Way::VariableFile) {
            let second = tailnet.new_key();
            tailnet.kill(Signal::KILL);
            tailnet.wait_start(2);
            gateway.wait_ready();
            assert_eq!(tailnet.logins().last().unwrap().as_deref(), Some(second.as_str()));
        }
        tailnet.assert_secret(&mut gateway);
    }
}

#[test]
fn k8_a_key_from_the_environment_logs_in_again_and_is_in_no_environment() {
    let tailnet = FakeTailnet::new();
    let mut gateway = ready_to_log_in_again(&tailnet, Way::Variable);
    tailnet.kill(Signal::KILL);
    tailnet.wait_start(2);
    gateway.wait_ready();
    assert_eq!(tailnet.logins(), [Some(tailnet.key()), Some(tailnet.key())]);
    let environ = std::fs::read(format!("/proc/{}/environ", gateway.pid()));
    if let Ok(environ) = environ {
        assert!(!String::from_utf8_lossy(&environ).contains("TS_AUTHKEY="));
    }
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn k8_the_command_inherits_no_key() {
    let tailnet = FakeTailnet::new();
    let mut setup = Setup::new();
    setup.managed_without_key(&tailnet).env("TS_AUTHKEY", tailnet.key());
    setup.env("TS_CANARY", "x").argument("--").argument("env");
    let output = setup.fail();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{log}");
    assert!(said.contains("HTTPS_PROXY=http://127.0.0.1:"), "{said}");
    assert!(!said.lines().any(|l| l.starts_with("TS_")), "{said}");
    assert!(!holds(&output.stdout, &tailnet.key()) && !holds(&output.stderr, &tailnet.key()));
    assert_eq!(in_files(setup.dir(), &tailnet.key()), [""; 0]);
}

#[test]
fn k8_a_single_use_key_after_a_restart_says_what_is_needed() {
    let origin = Origin::echo();
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1", origin.address());
    tailnet.answer("100.64.0.1:81", Answer::Refused);
    let mut gateway = ready_to_log_in_again(&tailnet, Way::File);
    tailnet.login(Login::Refused("authkey already used".to_owned()));
    tailnet.kill(Signal::KILL);
    tailnet.wait_start(2);
    gateway.wait_not_ready("auth_failed", PATIENCE);
    let message = gateway.admin_get("/readyz").json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("used up"), "{message}");
    assert!(message.contains("restarts need a reusable key"), "{message}");
    assert_eq!(tailnet.starts().len(), 2);
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn k7_no_refusal_and_no_line_repeats_what_may_be_a_secret() {
    const SECRET: &str = "S3cr3tCanary";
    let mut gateway = Gateway::start(|s| {
        s.direct().set("log.level", "debug");
    });
    let inputs = [
        "CONNECT u:S3cr3tCanary@127.0.0.1:18080 HTTP/1.1\r\nHost: h\r\n\r\n",
        "CONNECT u:S3cr3tCanary@h HTTP/1.1\r\nHost: h\r\n\r\n",
        "CONNECT http://u:S3cr3tCanary@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://u:S3cr3tCanary/@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://u:S3cr3tCanary#@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://u:S3cr3tCanary?@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://u:S3cr3tCanary@h\\@x/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET ftp://u:S3cr3tCanary@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/?tok=S3cr3tCanary x HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/?tok=S3cr3tCanary HTTP/3\r\nHost: h\r\n\r\n",
        "GET /?tok=S3cr3tCanary HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nCookie S3cr3tCanary\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nCookie: a\r\n S3cr3tCanary\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nCookie: S3cr3tCanary\x01\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nCookie : S3cr3tCanary\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: u:S3cr3tCanary@h\r\nHost: h\r\n\r\n",
    ];
    for input in inputs {
        let mut wire = gateway.dial();
        wire.send(input);
        let (answer, _) = wire.rest();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{input:?}: {answer}");
        assert!(!answer.contains(SECRET), "{input:?}: {answer}");
    }
    let mut socks = gateway.dial();
    socks.send([&[5, 1, 0, 5, 1, 0, 3, 16][..], b"u:S3cr3tCanary@h", &[0, 80]].concat());
    socks.expect([5, 0]);
    assert_eq!(socks.socks5_reply().rep, 1);
    drop(socks);
    gateway.settle_and_check(inputs.len() as u64 + 1);
    assert!(!gateway.log().contains(SECRET), "{}", gateway.log());
}
