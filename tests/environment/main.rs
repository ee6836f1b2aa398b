//! `tailrace env` as the programs that read it understand it: the same exceptions for all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tailrace_rig::http_origin::HttpOrigin;
use tailrace_rig::{FakeUpstream, Gateway, Setup, UpstreamReply, netns};

/// A program of this folder.
fn probe(name: &str) -> PathBuf {
    tailrace_rig::source("tests/environment").join(name)
}

/// A gateway that leads to one origin, and another origin on every exception's address.
struct World {
    gateway: Gateway,
    fake: FakeUpstream,
    _through: HttpOrigin,
    urls: Vec<String>,
    variables: Vec<(String, String)>,
}

impl World {
    /// In a network namespace, which may have the metadata addresses.
    fn new() -> World {
        for address in ["169.254.169.254/32", "169.254.170.2/32"] {
            netns::add_address(address);
        }
        let port = direct_origin();
        let through = HttpOrigin::ok("through");
        let fake = FakeUpstream::with("db.corp.example", through.address());
        fake.answer_for("tls.corp.example", UpstreamReply::Rep(5));
        let mut gateway = Gateway::chained(&fake);
        let hosts = ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "169.254.170.2"];
        let mut urls: Vec<String> = hosts.map(|host| format!("http://{host}:{port}/")).into();
        urls.push("http://db.corp.example/".to_owned());
        let variables = variables(gateway.setup());
        World { gateway, fake, _through: through, urls, variables }
    }

    /// Without `[::1]`: Node and Python's urllib compare entries with the host as a URL has it, but
    /// an entry with a bracket keeps Python's httpx from starting.
    fn by_names_and_v4(mut self) -> World {
        self.urls.retain(|url| !url.contains("[::1]"));
        self
    }

    /// Each program says of each URL what it got; then one that asks by CONNECT.
    #[track_caller]
    fn agrees(mut self, name: &str, times: usize, program: impl Fn(&[String]) -> Command) {
        let said = self.run(&program(&self.urls));
        let one = [vec!["direct"; self.urls.len() - 1], vec!["through"]].concat();
        let expected = one.repeat(times).join("\n");
        assert_eq!(said.trim_end(), expected, "{name}: {:?}", self.urls);
        let asked = self.fake.requests().len();
        assert_eq!(asked, times, "{name}");
        // Nobody is there; that the proxy is asked is all that counts.
        self.run(&program(&["https://tls.corp.example/".to_owned()]));
        let lines = self.gateway.wait_for_access(2 * times);
        let hosts: Vec<&Value> = lines.iter().map(|line| &line["host"]).collect();
        let expected = [["db.corp.example"].repeat(times), ["tls.corp.example"].repeat(times)];
        assert_eq!(hosts, expected.concat(), "{name}");
        let tunnels = lines[times..].iter().all(|line| line["inbound"] == "connect");
        assert!(tunnels, "{name}: {lines:?}");
        self.gateway.settle_and_check(lines.len() as u64);
    }

    #[track_caller]
    fn run(&self, program: &Command) -> String {
        let mut command = Command::new(program.get_program());
        command.args(program.get_args()).env_clear().envs(self.variables.iter().cloned());
        for name in ["PATH", "HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let output = tailrace_rig::setup::run(command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

/// Answers `direct` to everybody, on every address of this host.
fn direct_origin() -> u16 {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut wire = tailrace_rig::RawConnection::new(stream.unwrap());
            wire.read_head();
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ndirect");
        }
    });
    port
}

/// What `env` prints for this gateway.
#[track_caller]
fn variables(setup: &Setup) -> Vec<(String, String)> {
    let file = setup.write();
    let output = setup.run(&["env", "--shell", "json", "--config", file.to_str().unwrap()]);
    let all: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let all = all.as_object().unwrap().iter();
    all.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Whether `program` runs here.
fn runs(program: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn curl_agrees() {
    netns::inside(|| {
        if !runs("curl".as_ref(), &["--version"]) {
            return tailrace_rig::skip("needs curl");
        }
        World::new().agrees("curl", 1, |urls| {
            // Each by itself: one that fails must not end the others.
            let script = r#"for url; do curl -s --max-time 20 "$url" || echo error $?; echo; done"#;
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).args(urls);
            command
        });
    });
}

#[test]
fn go_agrees() {
    netns::inside(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (probe("probe.go"), folder.path().join("probe"));
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(source).current_dir(folder.path());
        build.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
        if std::fs::create_dir_all(home().join(".cache")).is_err() {
            build.env("GOCACHE", folder.path().join("cache"));
        }
        match build.output() {
            Err(_) => return tailrace_rig::skip("needs go"),
            Ok(output) => assert!(output.status.success(), "{output:?}"),
        }
        World::new().agrees("Go", 1, |urls| {
            let mut command = Command::new(&program);
            command.args(urls);
            command
        });
    });
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| "/nonexistent".into(), PathBuf::from)
}

#[test]
fn python_s_urllib_agrees() {
    netns::inside(|| python("urllib.request"));
}

#[test]
fn python_s_requests_agrees() {
    netns::inside(|| python("requests"));
}

fn python(library: &str) {
    if !runs("python3".as_ref(), &["-c", &format!("import {library}")]) {
        return tailrace_rig::skip("needs python3 with requests (Debian: python3-requests)");
    }
    let world = World::new();
    let world = if library == "requests" { world } else { world.by_names_and_v4() };
    world.agrees(library, 1, |urls| {
        let mut command = Command::new("python3");
        command.arg(probe("probe.py")).arg(library).args(urls);
        command
    });
}

#[test]
fn node_24_agrees() {
    netns::inside(|| {
        // Where tests/clients/install puts it.
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let of_user = folder("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
        let cache = folder("TAILRACE_CACHE").unwrap_or_else(|| of_user.join("tailrace"));
        let node = cache.join("node24/node_modules/node/bin/node");
        if !runs(&node, &["-e", "process.exit(+!process.version.startsWith('v24.'))"]) {
            return tailrace_rig::skip("needs Node 24 (npm's package node): tests/clients/install");
        }
        World::new().by_names_and_v4().agrees("Node 24", 1, |urls| {
            let mut command = Command::new(&node);
            command.arg(probe("probe.mjs")).args(urls);
            command
        });
    });
}

#[test]
fn java_agrees() {
    netns::inside(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut build = Command::new("javac");
        build.arg("-d").arg(folder.path()).arg(probe("Probe.java"));
        match build.output() {
            Err(_) => return tailrace_rig::skip("needs javac (Debian: default-jdk-headless)"),
            Ok(output) => assert!(output.status.success(), "{output:?}"),
        }
        World::new().agrees("Java", 2, |urls| {
            let mut command = Command::new("java");
            command.arg("-cp").arg(folder.path()).arg("Probe").args(urls);
            command
        });
    });
}
