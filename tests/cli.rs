//! The commands as people and scripts meet them: output, exit codes, shells.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tailrace_rig::{ClosedPort, FakeUpstream, Gateway, Setup};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A setup of a gateway that would listen on the usual ports' stead: ports nobody listens on.
fn absent() -> Setup {
    let mut setup = Setup::new();
    let closed = [ClosedPort::new(), ClosedPort::new()];
    setup.direct();
    setup.set("listen.proxy", vec![closed[0].address().to_string()]);
    setup.set("listen.admin", closed[1].address().to_string());
    setup
}

#[track_caller]
fn ask(setup: &Setup, arguments: &[&str]) -> Output {
    let file = setup.write();
    let mut all = arguments.to_vec();
    all.extend(["--config", file.to_str().unwrap()]);
    setup.run(&all)
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    text(&output.stdout)
}

/// Runs a script of `shell`, given by standard input.
fn script(shell: &str, script: &str) -> String {
    let mut child = Command::new(shell)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn env_evaluated_by_a_real_sh() {
    let mut setup = absent();
    setup.set("listen.proxy", vec!["127.0.0.1:4321"]);
    let printed = ends(&ask(&setup, &["env"]), 0);
    let names =
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let echo =
        |name: &str| script("sh", &format!("{printed}\nprintenv {name}")).trim_end().to_owned();
    for name in names {
        assert_eq!(echo(name), "http://127.0.0.1:4321", "{name}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(echo(name), "localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2");
    }
    assert_eq!(echo("NODE_USE_ENV_PROXY"), "1");
    let java = echo("JAVA_TOOL_OPTIONS");
    for part in [
        "-Dhttp.proxyHost=127.0.0.1",
        "-Dhttps.proxyPort=4321",
        "-Dhttp.nonProxyHosts=localhost|127.0.0.1|",
    ] {
        assert!(java.contains(part), "{java}");
    }
}

#[test]
fn env_as_json_is_the_same_as_for_sh() {
    let setup = absent();
    let json = ends(&ask(&setup, &["env", "--shell", "json"]), 0);
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    let printed = ends(&ask(&setup, &["env"]), 0);
    assert_eq!(printed.lines().count(), object.len());
    for (name, value) in object {
        let sh = script("sh", &format!("{printed}\nprintenv {name}"));
        assert_eq!(sh.trim_end(), value.as_str().unwrap(), "{name}");
    }
}

#[test]
fn env_evaluated_by_a_real_fish() {
    if Command::new("fish").arg("--version").output().is_err() {
        return tailrace_rig::skip("no fish here");
    }
    let printed = ends(&ask(&absent(), &["env", "--shell", "fish"]), 0);
    let shown = script("fish", &format!("{printed}\nprintenv NODE_USE_ENV_PROXY"));
    assert_eq!(shown.trim_end(), "1");
}

#[test]
fn env_names_the_port_a_running_gateway_got() {
    let fake = FakeUpstream::start();
    let gateway = Gateway::chained(&fake);
    let printed = ends(&running(&gateway, &["env"]), 0);
    assert!(printed.contains(&format!("'http://{}'", gateway.proxy())), "{printed}");
}

/// A command that finds the gateway by its settings file.
#[track_caller]
fn running(gateway: &Gateway, arguments: &[&str]) -> Output {
    let file = gateway.dir().join("config.toml");
    let mut command = Command::new(tailrace_rig::setup::binary());
    command.env_clear().args(arguments).arg("--config").arg(file);
    tailrace_rig::setup::run(command)
}

#[test]
fn status_and_wait_of_a_running_gateway() {
    let fake = FakeUpstream::start();
    let gateway = Gateway::chained(&fake);
    assert_eq!(ends(&running(&gateway, &["wait", "--timeout", "10s"]), 0), "");
    let json = ends(&running(&gateway, &["status", "--json"]), 0);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(status.to_string().contains(&gateway.proxy().to_string()), "{status}");
    let human = ends(&running(&gateway, &["status"]), 0);
    assert!(human.contains(&gateway.admin().to_string()), "{human}");
    assert!(!human.contains('\u{1b}'), "colours without a terminal: {human:?}");
}

#[test]
fn without_a_gateway_status_ends_69_and_wait_75_at_its_deadline() {
    let setup = absent();
    let status = ask(&setup, &["status"]);
    ends(&status, 69);
    assert!(text(&status.stderr).contains("tailrace up"), "{status:?}");
    let start = Instant::now();
    let wait = ask(&setup, &["wait", "--timeout", "300ms"]);
    ends(&wait, 75);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(text(&wait.stderr).contains("no gateway"), "{wait:?}");
}

#[test]
fn wait_says_what_is_missing() {
    let gone = ClosedPort::new();
    let gateway = Gateway::start(|s| {
        s.upstream(gone.address()).set("upstream.pool", 1);
    });
    let wait = running(&gateway, &["wait", "--timeout", "300ms"]);
    ends(&wait, 75);
    assert!(text(&wait.stderr).contains("upstream"), "{wait:?}");
}

#[test]
fn commands_refuse_bad_settings_with_78() {
    let mut setup = Setup::new();
    setup.raw("polcy = 1\n");
    for command in [
        &["status"][..],
        &["wait"],
        &["env"],
        &["config", "show"],
        &["policy", "test", "a.example"],
    ] {
        let output = ask(&setup, command);
        ends(&output, 78);
        assert!(text(&output.stderr).starts_with("config: "), "{output:?}");
    }
}

#[test]
fn policy_test_tells_verdicts_and_ends_1_if_any_is_refused() {
    let mut setup = absent();
    setup.enforce(&[".corp.example"]);
    let fine = ends(&ask(&setup, &["policy", "test", "db.CORP.example."]), 0);
    assert!(fine.contains("allow") && fine.contains("db.corp.example"), "{fine}");
    let mixed = ask(&setup, &["policy", "test", "--json", "db.corp.example", "corp.example"]);
    let rows: Vec<serde_json::Value> =
        ends(&mixed, 1).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&rows[0]["verdict"], &rows[1]["verdict"]], ["allow", "deny"]);
    ends(&ask(&setup, &["policy", "test", "a..b"]), 1);
    // Refused in every mode.
    setup.set("policy.mode", "off");
    setup.unset("policy.deny_nets");
    ends(&ask(&setup, &["policy", "test", "169.254.169.254"]), 1);
}

#[test]
fn completions_and_the_manual_page() {
    let setup = Setup::new();
    for shell in ["bash", "zsh", "fish"] {
        let printed = ends(&setup.run(&["completions", shell]), 0);
        assert!(printed.contains("policy"), "{shell}: {printed}");
    }
    let bash = ends(&setup.run(&["completions", "bash"]), 0);
    script("bash", &format!("{bash}\ncomplete -p tailrace"));
    let page = ends(&setup.run(&["man"]), 0);
    assert!(page.contains(".TH") && page.to_lowercase().contains("policy"), "{page}");
}

#[test]
fn version_names_commit_and_target() {
    let printed = ends(&Setup::new().run(&["--version"]), 0);
    let words: Vec<&str> = printed.trim_end().split([' ', '(', ')', ',']).collect();
    assert_eq!(words[..2], ["tailrace", env!("CARGO_PKG_VERSION")], "{printed}");
    assert!(printed.contains(std::env::consts::ARCH), "{printed}");
}

#[test]
fn usage_errors_end_64() {
    let setup = Setup::new();
    for arguments in [
        &["no-such-command"][..],
        &["up", "--no-such-flag"],
        &["wait", "--timeout", "soon"],
        &["env", "--shell", "tcsh"],
        &["policy", "test"],
        &[],
    ] {
        let output = setup.run(arguments);
        ends(&output, 64);
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    ends(&setup.run(&["--help"]), 0);
}

#[test]
fn a_reader_that_leaves_is_no_crash() {
    let binary = tailrace_rig::setup::binary();
    let shown = script(
        "sh",
        &format!(
            "for c in man 'completions bash' 'env'; do '{}' $c 2>&1 | head -c 1 >/dev/null; done; echo done",
            binary.display()
        ),
    );
    assert_eq!(shown, "done\n");
}

/// A command whose standard output, or error, is a pipe that nobody reads.
fn unread(mut command: Command, error: bool) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    match error {
        false => command.stdout(writer).stderr(Stdio::piped()),
        true => command.stderr(writer).stdout(Stdio::piped()),
    };
    command.stdin(Stdio::null()).output().unwrap()
}

/// `config show | head -1`: the reader has seen enough. Every command that only tells.
#[test]
fn a_reader_that_leaves_ends_the_command_without_a_word() {
    let mut gateway = Gateway::start(|s| {
        s.direct();
    });
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["config", "check"],
        &["policy", "test", "a.example"],
        &["policy", "test", "--json", "a.example"],
        &["env"],
        &["env", "--shell", "json"],
        &["completions", "bash"],
        &["man"],
        &["status"],
        &["status", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["explain", "192.0.2.1:80"],
        &["explain", "--json", "192.0.2.1:80"],
        &["nft", "--uid", "1"],
        &["nft", "--undo"],
    ] {
        let config = gateway.setup().config();
        let mut command = gateway.setup().command(arguments);
        command.arg("--config").arg(config);
        let output = unread(command, false);
        let mut said = text(&output.stderr);
        if arguments[0] == "nft" && said.starts_with("tailrace: nobody listens on [::1]") {
            said.clear(); // what it warns of, it warns of
        }
        assert_eq!(said, "", "{arguments:?}");
        assert_eq!(output.status.signal(), Some(13), "{arguments:?}: SIGPIPE, as of `cat`");
    }
    for arguments in [&["--help"][..], &["--version"], &["config", "--help"]] {
        let output = unread(gateway.setup().command(arguments), false);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    }
}

/// What a command that carries or runs something would say is lost with its reader; its end is not.
#[test]
fn a_reader_that_leaves_changes_no_command_s_end() {
    let mut gateway = Gateway::start(|s| {
        s.direct().allow_loopback();
    });
    let closed = ClosedPort::new();
    let port = closed.address().port().to_string();
    let wrong = absent();
    let config = wrong.write();
    std::fs::write(&config, "no_such_key = 1\n").unwrap();
    let running = gateway.setup().config();
    for (arguments, config, code) in [
        (&["up"][..], &config, 78),
        (&["connect", "127.0.0.1", &port], &running, 1),
        (&["run", "--explain", "sh", "-c", "exit 3"], &running, 3),
        (&["run", "/nonexistent"], &running, 127),
    ] {
        let mut command = gateway.setup().command(&arguments[..1]);
        command.arg("--config").arg(config).args(&arguments[1..]);
        let output = unread(command, true);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
    let output = unread(gateway.setup().command(&["demo"]), false);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let output = unread(gateway.setup().command(&["demo"]), true);
    assert_eq!(output.status.code(), Some(0));
}
