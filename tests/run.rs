//! `tailrace run`: programs that know no proxy reach far hosts through the gateway. Each pitfall of
//! carrying out somebody else's `connect` has its test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "run/addresses.rs"]
mod addresses;
#[path = "run/ftp.rs"]
mod ftp;
#[path = "run/ftp_server.rs"]
mod ftp_server;
#[path = "run/nameserver.rs"]
mod nameserver;
#[path = "run/processes.rs"]
mod processes;
#[path = "run/programs.rs"]
mod programs;
#[path = "run/rungs.rs"]
mod rungs;

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use nameserver::Nameserver;
use programs::Program;
use tailrace_rig::{FakeUpstream, Gateway, Origin, UpstreamReply};

/// Where no packet of ours ever goes (RFC 5737); the fake leads it to an origin.
const FAR: &str = "198.51.100.7";
const FAR_V6: &str = "2001:db8::7";

/// An origin that echoes, a fake that leads there, a gateway in front of it.
struct Stage {
    origin: Origin,
    fake: FakeUpstream,
    gateway: Gateway,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut tailrace_rig::Setup)) -> Stage {
        let origin = Origin::echo();
        let fake = FakeUpstream::with(FAR, origin.address());
        fake.map(FAR_V6, origin.address());
        let gateway = Gateway::start(|s| {
            s.upstream(fake.address());
            change(s);
        });
        Stage { origin, fake, gateway }
    }

    /// `tailrace run` and its arguments, ready to start.
    fn command(&mut self, before: &[&str], arguments: &[&str]) -> Command {
        let config = self.gateway.setup().config();
        let run = self.gateway.setup().command(&["run", "--config"]);
        let mut command = match before {
            [] => return finish(run, &config, arguments),
            [first, ..] => Command::new(first),
        };
        command.args(&before[1..]).arg(run.get_program()).args(run.get_args());
        command.env_clear().current_dir(self.gateway.dir());
        for (name, value) in run.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        finish(command, &config, arguments)
    }

    fn run(&mut self, arguments: &[&str]) -> Output {
        self.command(&[], arguments).output().unwrap()
    }

    /// Runs a probe that must end well; what it printed.
    #[track_caller]
    fn probe(&mut self, program: Program, words: &[&str]) -> Option<String> {
        self.probe_under(&[], program, words)
    }

    #[track_caller]
    fn probe_under(&mut self, before: &[&str], program: Program, words: &[&str]) -> Option<String> {
        let path = program.path()?.to_str().unwrap();
        let arguments = [&["--", path], words].concat();
        let output = self.command(before, &arguments).output().unwrap();
        let said = text(&output.stdout);
        assert!(output.status.success(), "{program:?} {words:?}: {output:?}");
        assert!(said.ends_with("ok\n"), "{program:?} {words:?}: {said}");
        Some(said)
    }
}

fn finish(mut command: Command, config: &std::path::Path, arguments: &[&str]) -> Command {
    command.env("TMPDIR", config.parent().unwrap());
    command.arg(config).args(arguments);
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const BOTH: [Program; 2] = [Program::Probe, Program::Musl];

#[test]
fn b27_static_and_dynamic_programs_connect_through() {
    let mut stage = Stage::new();
    for program in BOTH {
        if stage.probe(program, &["blocking", FAR, "5432"]).is_none() {
            return;
        }
        let asked = stage.fake.requests().pop().unwrap();
        assert_eq!((asked.host.as_str(), asked.port), (FAR, 5432));
    }
    stage.probe(Program::Go, &["one", &format!("{FAR}:5432")]);
    stage.probe(Program::Go, &["one", &format!("[{FAR_V6}]:5432")]);
    let line = format!(
        "import socket; s = socket.create_connection(('{FAR}', 80), 20); s.send(b'hi'); print(s.recv(2))"
    );
    let output = stage.run(&["python3", "-c", &line]);
    assert_eq!(text(&output.stdout), "b'hi'\n", "{output:?}");
    stage.gateway.settle_and_check(5);
}

#[test]
fn b27_non_blocking_sockets_duplicates_and_epoll_stay_right() {
    let mut stage = Stage::new();
    for program in BOTH {
        for way in ["registered", "options", "flags", "again"] {
            if way == "again" {
                stage.fake.answer_in_turn([UpstreamReply::Rep(5)]);
            }
            if stage.probe(program, &[way, FAR, "5432"]).is_none() {
                return;
            }
        }
    }
}

#[test]
fn b27_every_family_of_socket_finds_the_gateway() {
    let mut stage = Stage::new();
    for address in [FAR_V6, &format!("::ffff:{FAR}")] {
        stage.probe(Program::Probe, &["blocking", address, "80"]);
        stage.probe(Program::Probe, &["registered", address, "80"]);
    }
    stage.probe(Program::Probe, &["only_v6", FAR_V6, "80"]);
    stage.probe(Program::Probe, &["bound", FAR_V6, "80"]);
    let hosts = stage.fake.hosts();
    assert_eq!(hosts, [FAR_V6, FAR_V6, FAR, FAR, FAR_V6, FAR_V6]);
}

#[test]
fn b27_refusals_are_the_errnos_programs_know() {
    let mut stage = Stage::new();
    let cases = [
        (5, libc::ECONNREFUSED),
        (4, libc::EHOSTUNREACH),
        (3, libc::ENETUNREACH),
        (6, libc::ETIMEDOUT),
    ];
    for (rep, errno) in cases {
        stage.fake.answer_for(FAR, UpstreamReply::Rep(rep));
        for program in BOTH {
            let Some(said) = stage.probe(program, &["denied", FAR, "80"]) else { return };
            assert_eq!(said, format!("errno {errno}\nok\n"), "REP {rep}");
        }
    }
}

#[test]
fn b27_what_the_policy_refuses_is_eacces_and_nothing_is_dialled() {
    let mut stage = Stage::with(|s| {
        s.enforce(&["corp.example"]);
    });
    if let Some(said) = stage.probe(Program::Probe, &["denied", FAR, "80"]) {
        assert_eq!(said, format!("errno {}\nok\n", libc::EACCES));
        assert_eq!(stage.fake.requests().len(), 0);
    }
}

#[test]
fn b27_a_slow_connection_holds_up_nobody() {
    let mut stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    stage.fake.answer_for("198.51.100.8", UpstreamReply::Silent);
    let probe = probe.to_str().unwrap();
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do {probe} blocking 198.51.100.8 80 & done; \
         {probe} blocking {FAR} 80 && kill $(jobs -p); wait; exit 0"
    );
    let mut child = stage.command(&[], &["bash", "-c", &script]).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(stage.origin.visits().len(), 1);
}

#[test]
fn b27_a_connection_that_never_comes_ends_at_the_gateway_s_limit() {
    let mut stage = Stage::with(|s| {
        s.set("upstream.connect_timeout", "300ms");
    });
    stage.fake.answer_for(FAR, UpstreamReply::Silent);
    if let Some(said) = stage.probe(Program::Probe, &["denied", FAR, "80"]) {
        assert_eq!(said, format!("errno {}\nok\n", libc::ETIMEDOUT));
    }
}

#[test]
fn b27_a_gateway_that_hangs_holds_a_connection_no_longer_than_its_limit() {
    let mut stage = Stage::with(|s| {
        s.set("upstream.connect_timeout", "200ms");
    });
    let Some(probe) = Program::Probe.path() else { return };
    let script = format!("echo ready; read go; {} denied {FAR} 80", probe.display());
    let mut command = stage.command(&[], &["sh", "-c", &script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    stage.gateway.signal(Signal::STOP);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    stage.gateway.signal(Signal::CONT);
    assert_eq!(text(&output.stdout), format!("errno {}\nok\n", libc::ETIMEDOUT));
}

#[test]
fn b27_other_datagrams_are_left_alone_and_counted() {
    let mut stage = Stage::new();
    let Some(probe) = Program::Probe.path() else { return };
    let _nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    let output = stage.run(&["--explain", probe.to_str().unwrap(), "datagram", FAR, "443"]);
    assert_eq!(text(&output.stdout), "ok\n", "{output:?}");
    assert!(text(&output.stderr).contains("UDP left alone 1;"), "{output:?}");
}

#[test]
fn b27_threads_and_fork_storms() {
    let mut stage = Stage::new();
    for program in BOTH {
        for way in ["threads", "forks"] {
            if stage.probe(program, &[way, FAR, "80"]).is_none() {
                return;
            }
        }
    }
    assert_eq!(stage.origin.visits().len(), 2 * 250);
    stage.gateway.settle_and_check(500);
}

#[test]
fn b27_go_s_signals_do_not_break_a_connection() {
    let mut stage = Stage::new();
    stage.fake.answer_for(
        FAR,
        UpstreamReply::Late(Duration::from_millis(20), Box::new(UpstreamReply::Connect)),
    );
    if stage.probe(Program::Go, &["many", &format!("{FAR}:80")]).is_some() {
        assert_eq!(stage.fake.requests().len(), 100);
    }
}

#[test]
fn b27_what_has_no_address_to_see_falls_back_to_connect() {
    let mut stage = Stage::new();
    stage.probe(Program::Probe, &["fallbacks", FAR, "80"]);
}

#[test]
fn b27_loopback_and_unix_sockets_stay_untouched() {
    let mut stage = Stage::new();
    let origin = stage.origin.address();
    let port = origin.port().to_string();
    for program in BOTH {
        if stage.probe(program, &["registered", "127.0.0.1", &port]).is_none() {
            return;
        }
    }
    let said = stage.probe(Program::Probe, &["local", "/run/systemd/resolve/io.systemd.Resolve"]);
    assert!(said.is_some_and(|said| said.starts_with("errno")));
    assert_eq!(stage.fake.requests().len(), 0);
}

#[test]
fn b27_questions_to_any_nameserver_are_the_gateway_s() {
    let mut stage = Stage::new();
    let nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    let mut asked = 0;
    for program in BOTH {
        for host in ["127.0.0.53", "127.0.0.11", "192.0.2.53", "2001:db8::53", "::ffff:192.0.2.53"]
        {
            let Some(said) = stage.probe(program, &["datagrams", host, "53"]) else { return };
            let line = format!("answer {FAR} from {host} port 53\n");
            assert_eq!(said, format!("{}ok\n", line.repeat(5)), "{program:?}");
            let said = stage.probe(program, &["stream_dns", host, "53"]).unwrap();
            assert_eq!(said, format!("{line}ok\n"));
            asked += 6;
        }
    }
    assert_eq!((nameserver.asked(), stage.fake.requests().len()), (asked, 0));
}

#[test]
fn b27_resolvers_of_glibc_musl_and_go_ask_the_gateway() {
    let mut stage = Stage::new();
    let nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    for program in BOTH {
        let Some(said) = stage.probe(program, &["resolve", "db.corp.example"]) else { return };
        assert_eq!(said, format!("db.corp.example is {FAR}\nok\n"));
    }
    if let Some(said) = stage.probe(Program::Go, &["resolve", "db.corp.example"]) {
        assert_eq!(said, format!("db.corp.example is [{FAR}]\nok\n"));
    }
    let resolved = "/run/systemd/resolve/io.systemd.Resolve";
    let said = stage.probe(Program::Probe, &["local", resolved]).unwrap();
    assert_eq!(said, format!("errno {}\nok\n", libc::ENOENT));
    assert!(nameserver.asked() >= 3);
    assert_eq!(stage.fake.hosts(), [FAR, FAR]);
}
