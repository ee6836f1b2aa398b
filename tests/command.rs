//! `tailrace up -- CMD`: what CMD starts with, the signals it gets, how both end; and process 1's duties.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tailrace_rig::wait::{PATIENCE, eventually, eventually_some, pause};
use tailrace_rig::{ClosedPort, FakeUpstream, Setup};

/// Settings of a gateway that is ready at once.
fn chained(fake: &FakeUpstream) -> Setup {
    let mut setup = Setup::new();
    setup.upstream(fake.address());
    setup
}

/// `up` with this shell script as CMD.
fn with_script(setup: &mut Setup, script: &str) -> Command {
    for word in ["--", "sh", "-c", script] {
        setup.argument(word);
    }
    setup.up()
}

#[track_caller]
fn says(setup: &mut Setup, script: &str) -> (Option<i32>, String) {
    let output = tailrace_rig::setup::run(with_script(setup, script));
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A CMD that runs until it is told to end; it has written `file` by then.
struct Lasting {
    up: Child,
    setup: Setup,
}

impl Lasting {
    #[track_caller]
    fn start(mut setup: Setup, script: &str) -> Lasting {
        let ready = setup.dir().join("ready");
        let script = script.replace("READY", &format!("echo $$ >'{}'", ready.display()));
        let mut command = with_script(&mut setup, &script);
        let up = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lasting = Lasting { up, setup };
        eventually("CMD runs", PATIENCE, || {
            assert!(lasting.up.try_wait().unwrap().is_none(), "{:?}", lasting.rest());
            written(&ready).is_some()
        });
        lasting
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.up), signal).unwrap();
    }

    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let status = eventually_some("up ends", PATIENCE, || self.up.try_wait().unwrap());
        (status.code(), self.rest())
    }

    fn rest(&mut self) -> String {
        let (mut out, mut err) = (String::new(), String::new());
        self.up.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.up.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        out + &err
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // CMD is told by its own id: a killed `up` tells it nothing.
        let cmd = written(&self.setup.dir().join("ready"));
        if self.up.try_wait().ok().flatten().is_none() {
            cmd.and_then(Pid::from_raw).map(|cmd| kill_process(cmd, Signal::KILL));
            let _ = self.up.kill();
            let _ = self.up.wait();
        }
    }
}

/// The number in a file, once it is there.
fn written(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
}

#[test]
fn up_ends_with_its_command_and_leaves_nothing_behind() {
    let fake = FakeUpstream::start();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)] {
        let mut setup = chained(&fake);
        let port = ClosedPort::new().address();
        setup.set("listen.proxy", vec![port.to_string()]);
        assert_eq!(says(&mut setup, script), (Some(code), String::new()), "{script}");
        assert!(TcpListener::bind(port).is_ok(), "the port is free");
        assert!(!setup.run_dir().join("gateway.json").exists());
    }
}

#[test]
fn it_finds_the_proxy_and_no_secret() {
    let fake = FakeUpstream::start();
    let mut setup = chained(&fake);
    setup.env("TS_AUTHKEY", "tskey-auth-CANARY").env("TAILRACE_ID", "7");
    setup.env("OTHER", "a tskey-client-CANARY b").env("HTTPS_PROXY", "http://elsewhere:1");
    setup.soft_nofile(256);
    let (code, said) = says(&mut setup, "env; ulimit -S -n");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("CANARY") && !said.contains("TS_") && !said.contains("OTHER"), "{said}");
    assert!(!said.contains("elsewhere") && said.contains("TAILRACE_ID=7"), "{said}");
    assert!(said.contains("HTTPS_PROXY=http://127.0.0.1:") && said.contains("no_proxy="), "{said}");
    assert!(said.ends_with("\n256\n"), "the soft limit on open files: {said}");
}

#[test]
fn it_finds_us_by_settings_given_as_flags_and_postgresql_by_its_forward() {
    let fake = FakeUpstream::start();
    let mut setup = chained(&fake);
    let forward: toml::Table =
        toml::from_str("listen = \"127.0.0.1:0\"\ntarget = \"db.corp.example:5432\"").unwrap();
    setup.set("forward", vec![toml::Value::Table(forward)]);
    let elsewhere = setup.dir().join("elsewhere").display().to_string();
    setup.argument("--set").argument(&format!("run_dir={elsewhere}"));
    let binary = tailrace_rig::setup::binary().display().to_string();
    let script = format!(
        "'{binary}' status --json | grep -c '\"listen\":\"'$PGHOSTADDR:$PGPORT; \
         echo $GIT_SSH_COMMAND; echo $TAILRACE_RUN_DIR"
    );
    let (code, said) = says(&mut setup, &script);
    let git = format!("ssh -o 'ProxyCommand={binary} connect %h %p'");
    assert_eq!((code, said), (Some(0), format!("1\n{git}\n{elsewhere}\n")));
}

#[test]
fn it_reaches_what_the_gateway_reaches() {
    let origin = tailrace_rig::HttpOrigin::ok("private");
    let fake = FakeUpstream::with("grafana.corp.example", origin.address());
    let mut setup = chained(&fake);
    let said = says(&mut setup, "curl -s http://grafana.corp.example/");
    assert_eq!(said, (Some(0), "private".to_owned()));
}

#[test]
fn its_output_is_its_own_and_the_log_is_in_the_run_directory() {
    let fake = FakeUpstream::start();
    let mut setup = chained(&fake);
    assert_eq!(says(&mut setup, "echo out; echo err >&2"), (Some(0), "out\nerr\n".to_owned()));
    let log = std::fs::read_to_string(setup.run_dir().join("tailrace.log")).unwrap();
    assert!(log.contains("\"listening\"") && log.contains("draining"), "{log}");
    let mut told = chained(&fake);
    told.set("log.to", "stderr");
    let (_, said) = says(&mut told, "echo out");
    assert!(said.starts_with("out\n") && said.contains("\"listening\""), "{said}");
}

#[test]
fn signals_are_passed_on_and_sighup_is_not() {
    let fake = FakeUpstream::start();
    let script = "for s in USR1 USR2 QUIT INT HUP; do trap \"echo $s\" $s; done; \
                  trap 'echo TERM; exit 5' TERM; READY; while :; do sleep 0.02; done";
    let up = Lasting::start(chained(&fake), script);
    let log = up.setup.run_dir().join("tailrace.log");
    up.signal(Signal::HUP);
    eventually("the settings are read again", PATIENCE, || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("settings read again"))
    });
    // One at a time: signals that wait together have no order.
    for signal in [Signal::USR1, Signal::USR2, Signal::QUIT, Signal::INT] {
        up.signal(signal);
        pause(Duration::from_millis(200));
    }
    up.signal(Signal::TERM);
    assert_eq!(up.end(), (Some(5), "USR1\nUSR2\nQUIT\nINT\nTERM\n".to_owned()));
}

#[test]
fn a_command_that_ignores_sigterm_keeps_its_gateway() {
    let fake = FakeUpstream::start();
    let script = "trap '' TERM; trap 'exit 3' USR1; READY; while :; do sleep 0.02; done";
    let mut up = Lasting::start(chained(&fake), script);
    up.signal(Signal::TERM);
    up.signal(Signal::TERM);
    pause(Duration::from_millis(300));
    assert!(up.up.try_wait().unwrap().is_none());
    assert!(up.setup.run_dir().join("gateway.json").exists());
    up.signal(Signal::USR1);
    assert_eq!(up.end().0, Some(3));
}

/// `command` on a terminal of its own, by `script(1)` of util-linux.
fn on_a_terminal(command: &Command) -> Command {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
        .collect();
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("exec {}", words.join(" ")), "/dev/null"]).env_clear();
    terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
    terminal
}

#[test]
fn s6_ctrl_c_reaches_it_once_each_time() {
    let fake = FakeUpstream::start();
    let mut setup = chained(&fake);
    let script = "n=0; trap 'n=$((n+1)); echo seen $n' INT; echo seen 0; \
                  while [ $n -lt 8 ]; do read -r line; done; exit $n";
    let mut child = on_a_terminal(&with_script(&mut setup, script)).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = String::new();
    for presses in 0..8 {
        while !shown.contains(&format!("seen {presses}")) {
            let mut byte = [0];
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "{shown}");
            shown.push(char::from(byte[0]));
        }
        // Time for one that came twice to show.
        pause(Duration::from_millis(50));
        keyboard.write_all(&[3]).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(8), "{shown}");
    let mut rest = String::new();
    screen.read_to_string(&mut rest).unwrap();
    assert_eq!((shown + &rest).matches("^C").count(), 8, "all of them were needed");
}

#[test]
fn what_cannot_be_run_ends_as_in_a_shell() {
    let fake = FakeUpstream::start();
    for (program, code) in [("no-such-program", 127), ("/etc", 126)] {
        let mut setup = chained(&fake);
        setup.argument("--").argument(program);
        let output = setup.fail();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(program), "{output:?}");
    }
}

fn not_ready(arguments: &[&str]) -> (Setup, Output) {
    let gone = ClosedPort::new();
    let mut setup = Setup::new();
    setup.upstream(gone.address()).set("upstream.pool", 1);
    for argument in arguments {
        setup.argument(argument);
    }
    let output = setup.fail();
    (setup, output)
}

#[test]
fn a_gateway_that_does_not_become_ready_ends_75_and_runs_nothing() {
    let (setup, output) = not_ready(&["--ready-timeout", "300ms", "--", "touch", "ran"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("300ms") && said.contains("upstream"), "{said}");
    assert!(!setup.dir().join("ran").exists());
}

/// Counts, in a process namespace, whose parent is process 1: living ones and zombies.
const ORPHANS: &str = r#"
count() { cat /proc/[0-9]*/stat 2>/dev/null | grep -c ") $1 1 "; }
wait_for() { tries=0; until test $(count "$1") "$2" "$3"; do
    tries=$((tries+1)); test $tries -lt 500 || { echo "$1 $(count "$1")"; exit 1; }; sleep 0.02; done; }
mkfifo gate || exit 1
i=0; while [ $i -lt 100 ]; do (cat gate >/dev/null &); i=$((i+1)); done
wait_for S -ge 101
: >gate
wait_for S -le 1
wait_for Z -eq 0
exit 7
"#;

#[test]
fn t13_process_1_reaps_orphans_and_keeps_its_command_s_status() {
    let fake = FakeUpstream::start();
    let mut setup = chained(&fake);
    let up = with_script(&mut setup, ORPHANS);
    let mut inside = Command::new("unshare");
    inside.arg(if rustix::process::geteuid().is_root() { "-pf" } else { "-Urpf" });
    inside.args(["--mount-proc", "--"]).arg(up.get_program()).args(up.get_args());
    inside.current_dir(setup.dir()).stdin(Stdio::null());
    if !Command::new("unshare").args(["-Urpf", "--mount-proc", "true"]).status().unwrap().success()
    {
        return tailrace_rig::skip("needs a process namespace (unshare -pf --mount-proc)");
    }
    let output = tailrace_rig::setup::run(inside);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}
