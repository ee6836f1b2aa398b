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

/// URLs, and the path and authorization that a program makes of each.
const FRAGMENT_AND_CREDENTIALS: [(&str, &str, Option<&str>); 2] =
    [("http://h/a?b#c", "/a?b", None), ("http://u:p@h/a", "/a", BASIC)];

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

    /// The program fetches each URL, its last argument, and makes this path and authorization of it.
    #[track_caller]
    fn fetches_each(mut self, program: &str, args: &[&str], urls: &[(&str, &str, Option<&str>)]) {
        for (url, path, authorization) in urls {
            let mut command = self.command(program);
            command.args(args).arg(url);
            self.fetches(command, path, *authorization);
        }
        self.settle();
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
    let args = ["--quiet", "--output-document=-", "--tries=1"];
    let urls = [("http://h/x", "/x", None), ("http://u:p@h/x", "/x", BASIC)];
    Bench::new().fetches_each("wget", &args, &urls);
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
    let args = ["--disable", "--silent", "--fail", "--globoff", "--path-as-is"];
    let urls = [
        ("http://h/a\\b?c\\d#e", "/a\\b?c\\d", None),
        ("http://h/caf\u{e9}", "/caf\u{c3}\u{a9}", None), // each of its two bytes
        ("http://u:p@h/", "/", BASIC),
    ];
    Bench::new().fetches_each("curl", &args, &urls);
}

#[test]
fn b6_pythons_urllib_with_a_fragment_and_credentials() {
    if !there("python3", "--version", "python3") {
        return;
    }
    let script = "import sys, urllib.request as r\n\
                  sys.stdout.write(r.urlopen(sys.argv[1], timeout=20).read().decode())";
    Bench::new().fetches_each("python3", &["-c", script], &FRAGMENT_AND_CREDENTIALS);
}

#[test]
fn b6_perls_lwp_with_a_fragment_and_credentials() {
    if !there("perl", "-v", "perl") {
        return;
    }
    let lwp = Command::new("perl").args(["-MLWP::UserAgent", "-e", "1"]).output().unwrap();
    if !lwp.status.success() {
        return tailrace_rig::skip("needs LWP (Debian: libwww-perl)");
    }
    let script = "my $a = LWP::UserAgent->new(timeout => 20); $a->env_proxy; \
                  my $r = $a->get($ARGV[0]); die $r->status_line unless $r->is_success; print $r->content";
    let args = ["-MLWP::UserAgent", "-e", script];
    Bench::new().fetches_each("perl", &args, &FRAGMENT_AND_CREDENTIALS);
}

#[test]
fn b6_javas_own_client_with_backslashes_and_credentials() {
    if !there("javac", "-version", "default-jdk-headless") {
        return;
    }
    let bench = Bench::new();
    let built = Command::new("javac")
        .arg("-d")
        .arg(bench.folder.path())
        .arg(source("tests/http_clients/Fetch.java"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let proxy = bench.gateway.proxy();
    let host = format!("-Dhttp.proxyHost={}", proxy.ip());
    let port = format!("-Dhttp.proxyPort={}", proxy.port());
    let args = [&*host, &port, "-Dhttp.nonProxyHosts=", "-cp", ".", "Fetch"];
    let urls = [("http://h/a\\b?c\\d", "/a\\b?c\\d", None), ("http://u:p@h/a", "/a", BASIC)];
    bench.fetches_each("java", &args, &urls);
}

#[test]
fn b6_gos_own_client_with_backslashes_and_other_bytes_in_its_query() {
    if !there("go", "version", "golang-go") {
        return;
    }
    let bench = Bench::new();
    let program = bench.folder.path().join("fetch");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(source("tests/http_clients/fetch.go"));
    build.current_dir(bench.folder.path()).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    if std::fs::create_dir_all(home.join(".cache")).is_err() {
        build.env("GOCACHE", bench.folder.path().join("cache"));
    }
    let built = build.output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let urls = [
        ("http://h/a?b\\c=\u{e9}#d", "/a?b\\c=\u{c3}\u{a9}", None),
        ("http://u:p@h/a", "/a", BASIC),
    ];
    bench.fetches_each(&program.to_string_lossy(), &[], &urls);
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
