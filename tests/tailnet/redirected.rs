//! A namespace whose every connection nft leads to the gateway, by the rules that `tailrace nft` prints:
//! programs in it know no proxy, have no environment, and reach the tailnet by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::case::{Case, Need};
use crate::clients::{PASSWORD, serve_postgresql, source};
use crate::control::ADDRESS;
use crate::gateway::Launch;
use crate::managed::Kind;
use crate::namespace::Namespace;
use crate::process::{Process, must, wait_for};
use crate::tailnet::Tailnet;

/// The gateway's user, and its tailscaled's.
const NOBODY: &str = "65534";
/// What has no business in the tailnet, and is reached without the rules: the control server.
const FORBIDDEN: &str = "https://10.99.0.1:8443/health";
/// The routes of docs/transparent.md, and an address for IPv6 to send from.
const ROUTES: &str = "ip route add 100.64.0.0/10 dev lo
    ip -6 route add fd7a:115c:a1e0::/48 dev lo
    ip -6 address add 2001:db8::1/128 dev lo nodad";

pub fn cases() -> Vec<Case> {
    let case = Case::new("b28_programs_are_led_into_the_tailnet_by_nft", programs);
    vec![case.needing(Need::Command("nft")).needing(Need::AnotherUser).needing(Need::Clients)]
}

/// The namespace, and the gateway in it.
struct Place {
    namespace: Namespace,
    gateway: Process,
    launch: Launch,
    binary: PathBuf,
    /// What programs find at /etc/resolv.conf.
    resolv: String,
}

fn programs(tailnet: &Tailnet) {
    let field = tailnet.clients();
    serve_postgresql(tailnet);
    let place = Place::new(tailnet);
    let before = place.ruleset();
    place.load(&["nft", "--uid", NOBODY]);

    let passwords = field.path("passwords");
    fs::write(&passwords, format!("*:*:*:*:{PASSWORD}\n")).expect("a file");
    must("chmod", &["600", &passwords]);
    let psql = format!(
        "psql -h db.corp.example --no-psqlrc -qAt -c 'select 6 * 7' \
         'user=ops dbname=ops sslmode=verify-full sslrootcert={} passfile={passwords}'",
        field.path("ca.pem")
    );
    place.prints(tailnet, &psql, "42\n", "db.corp.example");
    place.is_whole();
    let hello = "hello to web.corp.example\n";
    let url = "https://web.corp.example/hello";
    place.prints(tailnet, &format!("curl -sSf {url}"), hello, "web.corp.example");
    let fetch = field.programs.join("bin/fetch");
    let fetch = format!("{} {url}", fetch.display());
    place.prints(tailnet, &fetch, hello, "web.corp.example");
    let six = "curl -sSf http://six.corp.example:8080/hello";
    let said = "hello from 127.0.0.1:8080 to six.corp.example:8080\n";
    place.prints(tailnet, six, said, "six.corp.example");
    http3(tailnet, &place, url, hello);

    let mark = place.access().len();
    let refused = place.run(tailnet, &format!("curl -sSk {FORBIDDEN}"));
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    let line = place.line_after(mark, "10.99.0.1");
    assert_eq!((&line["outcome"], &line["inbound"]), (&"denied".into(), &"transparent".into()));

    place.load(&["nft", "--undo"]);
    assert_eq!(place.ruleset(), before, "the rules leave nothing behind");
    let free = place.run(tailnet, &format!("curl -sSfk {FORBIDDEN}"));
    assert!(free.status.success(), "without the rules it is reached: {free:?}");
    place.stop();
}

/// QUIC gets no answer, and curl goes back to TCP.
fn http3(tailnet: &Tailnet, place: &Place, url: &str, hello: &str) {
    let field = tailnet.clients();
    let count = "table inet quic {\n chain c {\n type filter hook output priority 0\n \
                 udp dport 443 counter\n }\n}\n";
    place.nft(count);
    let line = format!(
        "{} {} {url} {}",
        field.programs.join("python/bin/python").display(),
        source().join("programs/http3.py").display(),
        field.path("ca.pem")
    );
    let started = Instant::now();
    place.prints(tailnet, &line, hello, "web.corp.example");
    let took = started.elapsed();
    println!("    curl's HTTP/3 goes back to TCP: {} ms", took.as_millis());
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let counted = place.namespace.must("nft", &["list", "table", "inet", "quic"]);
    assert!(!counted.contains("packets 0 "), "it has not tried QUIC: {counted}");
    place.nft("delete table inet quic");
}

impl Place {
    fn new(tailnet: &Tailnet) -> Place {
        let namespace = Namespace::new();
        wire(&tailnet.world, &namespace);
        namespace.must("sh", &["-ec", ROUTES]);
        // Port 53 for a gateway without capabilities.
        let ports = "echo 53 >/proc/sys/net/ipv4/ip_unprivileged_port_start";
        namespace.must("sh", &["-ec", ports]);
        let dir = tailnet.dir.path().join("redirected");
        fs::create_dir(&dir).expect("a folder");
        let resolv = dir.join("resolv.conf");
        fs::write(&resolv, "nameserver 127.0.0.1\n").expect("resolv.conf");
        let tailscaled = copied(&tailnet.programs.join("tailscaled"), &dir);
        let launch = Kind::Tailscaled
            .launch(tailnet, "redirected")
            .set("TAILRACE_LISTEN_PROXY", "127.0.0.1:1055,[::1]:1055")
            .set("TAILRACE_LISTEN_ADMIN", "127.0.0.1:9155")
            .set("TAILRACE_LISTEN_DNS", "127.0.0.1:53")
            .set("TAILRACE_POLICY_MODE", "enforce")
            .set("TAILRACE_POLICY_ALLOWED_HOST_SUFFIXES", ".corp.example")
            .set("TAILRACE_TAILNET_TAILSCALED", tailscaled);
        let binary = copied(Path::new(launch.command(&[]).get_program()), &dir);
        fs::create_dir(&launch.run_dir).expect("a run directory");
        let key = tailnet.dir.path().join("key-redirected");
        must("chown", &[NOBODY, &launch.run_dir.to_string_lossy(), &key.to_string_lossy()]);
        let mut up = as_nobody(&launch, &binary, &["up"]);
        let log = tailnet.dir.path().join("gateway-redirected.log");
        let gateway = namespace.enter(|| Process::start("gateway redirected", &mut up, &log));
        let place = Place {
            namespace,
            gateway,
            launch,
            binary,
            resolv: resolv.to_string_lossy().into_owned(),
        };
        let mut wait = as_nobody(&place.launch, &place.binary, &["wait", "--timeout", "40s"]);
        let waited = place.namespace.enter(|| wait.output()).expect("setpriv");
        assert!(waited.status.success(), "{waited:?}\n{}", place.gateway.tail());
        place
    }

    /// What a command of `tailrace` prints to somebody who is not the gateway.
    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = self.launch.command(arguments);
        let output = self.namespace.enter(|| command.output()).expect("tailrace");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Loads what `tailrace` prints, twice: again is no harm.
    fn load(&self, arguments: &[&str]) {
        let rules = self.ask(arguments);
        self.nft(&rules);
        let loaded = self.ruleset();
        self.nft(&rules);
        assert_eq!(self.ruleset(), loaded);
    }

    fn nft(&self, rules: &str) {
        self.namespace.must("sh", &["-ec", "echo \"$0\" | nft -f -", rules]);
    }

    fn ruleset(&self) -> String {
        self.namespace.must("nft", &["list", "ruleset"])
    }

    /// `tailrace doctor` finds both families led here.
    fn is_whole(&self) {
        let links: Value = serde_json::from_str(&self.ask(&["doctor", "--json"])).expect("JSON");
        let said = links.as_array().and_then(|all| all.iter().find(|it| it["name"] == "redirect"));
        let said = said.and_then(|link| link["detail"].as_str()).unwrap_or_default();
        assert!(said.contains("IPv4 is led here, IPv6 is led here"), "{links}");
    }

    /// Runs a line of shell as a program of the namespace, its files for names and trust in place.
    fn run(&self, tailnet: &Tailnet, line: &str) -> Output {
        let mount = r#"mount --bind "$0" /etc/resolv.conf
            mount --bind "$1" /etc/ssl/certs/ca-certificates.crt
            exec env -i PATH=/usr/bin:/bin timeout 50 sh -ec "$2""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-ec", mount, &self.resolv]);
        command.args([&tailnet.clients().path("ca.pem"), line]).stdin(Stdio::null());
        self.namespace.enter(|| command.output()).expect("unshare")
    }

    /// The same; it prints this, and the gateway has carried it to that name.
    fn prints(&self, tailnet: &Tailnet, line: &str, expected: &str, host: &str) {
        let mark = self.access().len();
        let said = self.run(tailnet, line);
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{line}: {said:?}\n{}", self.gateway.tail());
        assert_eq!(text, expected, "{line}: {said:?}");
        let line = self.line_after(mark, host);
        assert_eq!((&line["inbound"], &line["host_from"]), (&"transparent".into(), &"dns".into()));
        assert_eq!((&line["route"], &line["upstream"]), (&"tailnet".into(), &"localapi".into()));
    }

    fn access(&self) -> Vec<Value> {
        let log = self.gateway.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line.get("bytes_up").is_some()).collect()
    }

    /// The first line about this host after so many.
    fn line_after(&self, mark: usize, host: &str) -> Value {
        wait_for(&format!("an access line for {host}"), || {
            let after = self.access().into_iter().skip(mark);
            after.into_iter().find(|line| line["host"] == host)
        })
    }

    fn stop(mut self) {
        self.gateway.signal(rustix::process::Signal::TERM);
        let status = self.gateway.wait();
        assert!(status.success(), "SIGTERM ended the gateway with {status}");
    }
}

/// A wire of its own: only the control server is to be reached by it. The world's end has no address:
/// a node there would tell it to its peers, who go on trying it when the wire is gone.
fn wire(world: &Namespace, namespace: &Namespace) {
    world.must("ip", &["link", "add", "far2", "type", "veth", "peer", "name", "near2"]);
    world.must("ip", &["link", "set", "near2", "netns", &namespace.pid()]);
    world.must("ip", &["link", "set", "far2", "up"]);
    world.must("ip", &["route", "add", "10.98.0.2/32", "dev", "far2", "src", ADDRESS]);
    namespace.must("ip", &["addr", "add", "10.98.0.2/32", "dev", "near2"]);
    namespace.must("ip", &["link", "set", "near2", "up"]);
    namespace.must("ip", &["route", "add", ADDRESS, "dev", "near2", "src", "10.98.0.2"]);
}

/// A program where another user may run it.
fn copied(program: &Path, dir: &Path) -> PathBuf {
    let copy = dir.join(program.file_name().expect("a name"));
    fs::copy(program, &copy).expect("a copy");
    copy
}

/// A command with these settings, run by the gateway's user.
fn as_nobody(launch: &Launch, binary: &Path, arguments: &[&str]) -> Command {
    let told = launch.command(arguments);
    let mut command = Command::new("setpriv");
    let user = format!("--reuid={NOBODY}");
    command.args([&user, "--regid=65534", "--clear-groups", "--"]).arg(binary);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command.envs(told.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}
