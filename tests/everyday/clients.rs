//! The programs themselves, told of the proxy as a person tells them.

use std::path::PathBuf;
use std::process::Command;

use crate::{Made, there};
use tailrace_rig::setup::run;
use tailrace_rig::{FakeUpstream, Gateway, HttpOrigin, Origin, source};

/// A gateway before an origin known as `h`, and what a program made the origin see.
struct Bench {
    origin: HttpOrigin,
    fake: FakeUpstream,
    gateway: Gateway,
    folder: tempfile::TempDir,
    asked: usize,
}

const BASIC: Option<&str> = Some("Basic dTpw");

impl Bench {
    fn new() -> Bench {
        let origin = HttpOrigin::ok("ok");
        let fake = FakeUpstream::with("h", origin.address());
        let gateway = Gateway::chained(&fake);
        let folder = tempfile::tempdir().unwrap();
        Bench { origin, fake, gateway, folder, asked: 0 }
    }

    /// A program in a folder of its own that is told of the proxy by variable.
    fn command(&self, program: &str) -> Command {
        let proxy = format!("http://{}", self.gateway.proxy());
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_remove("no_proxy").env_remove("NO_PROXY");
        command.env("http_proxy", &proxy).env("HTTP_PROXY", proxy);
        command
    }

    /// It ends well, has what the origin said, and made this of its URL.
    #[track_caller]
    fn fetches(&mut self, command: Command, path: &str, authorization: Option<&str>) {
        let shown = format!("{command:?}");
        let output = run(command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.ends_with("ok"), "{shown}: {output:?}");
        self.asked += 1;
        let made = Made::last(&self.origin);
        let line = format!("GET {path} HTTP/1.1");
        assert_eq!(made, Made { line, authorization: authorization.map(str::to_owned) }, "{shown}");
    }

    #[track_caller]
    fn settle(mut self) {
        self.gateway.settle_and_check(self.asked as u64);
        let lines = self.gateway.access_lines();
        assert!(
            lines.iter().all(|line| line["outcome"] == "ok" && line["error"].is_null()),
            "{lines:?}"
        );
        assert_eq!(self.fake.hosts(), vec!["h"; self.fake.hosts().len()]);
    }
}

#[test]
fn b6_wget_with_credentials_in_its_url() {
    if !there("wget", "--version", "wget") {
        return;
    }
    let mut bench = Bench::new();
    let command = |url: &str| {
        let mut command = bench.command("wget");
        command.args(["--quiet", "--output-document=-", "--tries=1", url]);
        command
    };
    let (plain, user) = (command("http://h/x"), command("http://u:p@h/x"));
    bench.fetches(plain, "/x", None);
    bench.fetches(user, "/x", BASIC);
    bench.settle();
}

#[test]
fn b6_apt_with_credentials_in_its_source() {
    let helper = "/usr/lib/apt/apt-helper";
    if !there(helper, "--version", "apt") {
        return;
    }
    let mut bench = Bench::new();
    let mut command = bench.command("sh");
    let script = format!(
        "{helper} -o APT::Sandbox::User=\"$(id -un)\" -o Acquire::http::Proxy=\"$http_proxy\" \
         download-file http://u:p@h/Release got >&2 && cat got"
    );
    command.args(["-c", &script]);
    bench.fetches(command, "/Release", BASIC);
    bench.settle();
}

#[test]
fn b6_curl_with_backslashes() {
    if !there("curl", "--version", "curl") {
        return;
    }
    let mut bench = Bench::new();
    let command = |url: &str| {
        let mut command = bench.command("curl");
        command.args(["--disable", "--silent", "--fail", "--globoff", "--path-as-is", url]);
        command
    };
    let (backslash, bytes, user) =
        (command("http://h/a\\b?c\\d#e"), command("http://h/caf\u{e9}"), command("http://u:p@h/"));
    bench.fetches(backslash, "/a\\b?c\\d", None);
    // Each of its two bytes.
    bench.fetches(bytes, "/caf\u{c3}\u{a9}", None);
    bench.fetches(user, "/", BASIC);
    bench.settle();
}

#[test]
fn b6_pythons_urllib_with_a_fragment_and_credentials() {
    if !there("python3", "--version", "python3") {
        return;
    }
    let mut bench = Bench::new();
    let command = |url: &str| {
        let script = "import sys, urllib.request as r\n\
                      sys.stdout.write(r.urlopen(sys.argv[1], timeout=20).read().decode())";
        let mut command = bench.command("python3");
        command.args(["-c", script, url]);
        command
    };
    let (fragment, user) = (command("http://h/a?b#c"), command("http://u:p@h/a"));
    bench.fetches(fragment, "/a?b", None);
    bench.fetches(user, "/a", BASIC);
    bench.settle();
}

#[test]
fn b6_perls_lwp_with_a_fragment_and_credentials() {
    if !there("perl", "-v", "perl") {
        return;
    }
    let mut bench = Bench::new();
    let lwp = Command::new("perl").args(["-MLWP::UserAgent", "-e", "1"]).output().unwrap();
    if !lwp.status.success() {
        return tailrace_rig::skip("needs LWP (Debian: libwww-perl)");
    }
    let command = |url: &str| {
        let script = "my $a = LWP::UserAgent->new(timeout => 20); $a->env_proxy; \
                      my $r = $a->get($ARGV[0]); die $r->status_line unless $r->is_success; print $r->content";
        let mut command = bench.command("perl");
        command.args(["-MLWP::UserAgent", "-e", script, url]);
        command
    };
    let (fragment, user) = (command("http://h/a?b#c"), command("http://u:p@h/a"));
    bench.fetches(fragment, "/a?b", None);
    bench.fetches(user, "/a", BASIC);
    bench.settle();
}

#[test]
fn b6_javas_own_client_with_backslashes_and_credentials() {
    if !there("javac", "-version", "default-jdk-headless") {
        return;
    }
    let mut bench = Bench::new();
    let built = Command::new("javac")
        .arg("-d")
        .arg(bench.folder.path())
        .arg(source("tests/everyday/Fetch.java"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let command = |url: &str| {
        let proxy = bench.gateway.proxy();
        let mut command = bench.command("java");
        command.arg(format!("-Dhttp.proxyHost={}", proxy.ip()));
        command.arg(format!("-Dhttp.proxyPort={}", proxy.port()));
        command.args(["-Dhttp.nonProxyHosts=", "-cp", ".", "Fetch", url]);
        command
    };
    let (backslash, user) = (command("http://h/a\\b?c\\d"), command("http://u:p@h/a"));
    bench.fetches(backslash, "/a\\b?c\\d", None);
    bench.fetches(user, "/a", BASIC);
    bench.settle();
}

#[test]
fn b6_gos_own_client_with_backslashes_and_other_bytes_in_its_query() {
    if !there("go", "version", "golang-go") {
        return;
    }
    let mut bench = Bench::new();
    let program = bench.folder.path().join("fetch");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(source("tests/everyday/fetch.go"));
    build.current_dir(bench.folder.path()).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    if std::fs::create_dir_all(home.join(".cache")).is_err() {
        build.env("GOCACHE", bench.folder.path().join("cache"));
    }
    let built = build.output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let command = |url: &str| {
        let mut command = bench.command(&program.to_string_lossy());
        command.arg(url);
        command
    };
    let (query, user) = (command("http://h/a?b\\c=\u{e9}#d"), command("http://u:p@h/a"));
    bench.fetches(query, "/a?b\\c=\u{c3}\u{a9}", None);
    bench.fetches(user, "/a", BASIC);
    bench.settle();
}

/// A tunnel to an IPv6 address, of which the program writes no brackets.
#[track_caller]
fn connects_by_address(program: &str, arguments: impl Fn(&str) -> Vec<String>) {
    let origin = Origin::send("not TLS, and that is the end of it\n");
    let fake = FakeUpstream::with("2001:db8::7", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let proxy = gateway.proxy().to_string();
    let output = Command::new(program)
        .args(arguments(&proxy))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    gateway.settle_with(&fake, 1, 1);
    let line = &gateway.access_lines()[0];
    assert_eq!((&line["inbound"], &line["host"]), (&"connect".into(), &"2001:db8::7".into()));
    assert_eq!(line["port"], 443, "{output:?}");
    assert!(origin.only_visit().received.len() > 4, "the tunnel was used: {output:?}");
}

#[test]
fn p17_openssl_s_client_connects_to_an_ipv6_address() {
    if there("openssl", "version", "openssl") {
        connects_by_address("openssl", |proxy| {
            ["s_client", "-proxy", proxy, "-connect", "[2001:db8::7]:443"].map(str::to_owned).into()
        });
    }
}

#[test]
fn p17_pythons_http_client_connects_to_an_ipv6_address() {
    if there("python3", "--version", "python3") {
        connects_by_address("python3", |proxy| {
            // Up to 3.11 without brackets, later with them.
            let script = "import http.client, sys\n\
                          host, port = sys.argv[1].split(':')\n\
                          c = http.client.HTTPConnection(host, int(port), timeout=20)\n\
                          c.set_tunnel('2001:db8::7', 443)\n\
                          c.request('GET', '/')";
            vec!["-c".to_owned(), script.to_owned(), proxy.to_owned()]
        });
    }
}
