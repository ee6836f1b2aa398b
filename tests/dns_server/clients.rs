//! The resolvers that programs have, as clients of `listen.dns`: dig, glibc's, musl's, Go's own and Java's.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::fixture::{self, Nameserver};
use tailrace_rig::{FakeTailnet, Gateway, netns, setup, skip, source, system_nameserver};

/// A tailnet's view on 127.0.0.1:53 of this namespace, for every program in it.
struct Host {
    gateway: Gateway,
    nameserver: Nameserver,
    _tailnet: FakeTailnet,
}

impl Host {
    fn new() -> Host {
        let nameserver = Nameserver::start(&["10.50.0.7", "fd00::7"]);
        let tailnet = fixture::tailnet(&nameserver);
        let gateway = tailnet.gateway(|s| {
            s.enforce(&["corp.example", "lab.ts.net"]).set("listen.dns", "127.0.0.1:53");
        });
        system_nameserver::resolve_by("nameserver 127.0.0.1\n");
        Host { gateway, nameserver, _tailnet: tailnet }
    }

    /// Everything went well, and nobody was asked about what policy refuses.
    #[track_caller]
    fn settle(mut self) {
        let asked = self.nameserver.asked();
        assert!(!asked.iter().any(|name| name.contains("denied")), "{asked:?}");
        self.gateway.settle_and_check(0);
    }
}

/// None: the program is not there, and the test is skipped by name.
#[track_caller]
fn output(program: &str, arguments: &[&str], wanted: &str) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments);
    if Command::new(program).arg("--version").output().is_err() {
        skip(wanted);
        return None;
    }
    Some(setup::run(command))
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn dig_is_told_everything() {
    netns::inside(|| {
        let host = Host::new();
        let dig = |arguments: &str| {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            output("dig", &arguments, "needs dig (Debian: bind9-dnsutils)").map(|o| text(&o))
        };
        let Some(short) = dig("+short db.lab.ts.net") else { return };
        assert_eq!(short, "100.64.0.1");
        let said = |arguments: &str| dig(arguments).unwrap();
        assert_eq!(said("+short -x 100.64.0.1"), "db.lab.ts.net.");
        assert_eq!(said("+short x.corp.example TXT"), "\"v=1 all\"");
        assert_eq!(said("+short _pg._tcp.corp.example SRV"), "1 2 5432 db.corp.example.");
        assert_eq!(said("+tcp +short x.corp.example MX"), "10 mail.corp.example.");
        let denied = said("denied.example");
        assert!(denied.contains("status: NXDOMAIN"), "{denied}");
        assert!(denied.contains("EDE: 15 (Blocked): (refused by policy"), "{denied}");
        let https = said("x.corp.example HTTPS");
        assert!(https.contains("status: NOERROR") && https.contains("ANSWER: 0"), "{https}");
        let newer = said("+edns=1 +noednsnegotiation x.corp.example");
        assert!(newer.contains("status: BADVERS"), "{newer}");
        let zone = said("corp.example AXFR");
        assert!(zone.contains("Transfer failed"), "{zone}");
        host.settle();
    });
}

/// What `probe.c` and `probe.go` say.
const TOLD: &str = "\
db: 100.64.0.1 fd7a:115c:a1e0::1
db.lab.ts.net: 100.64.0.1 fd7a:115c:a1e0::1
x.corp.example: 10.50.0.7 fd00::7
alias.corp.example: 10.50.0.7 fd00::7
none.corp.example: no
denied.example: no
100.64.0.1 is db.lab.ts.net";

const NAMES: [&str; 7] = [
    "db",
    "db.lab.ts.net",
    "x.corp.example",
    "alias.corp.example",
    "none.corp.example",
    "denied.example",
    "100.64.0.1",
];

fn c(compiler: &str, arguments: &[&str], wanted: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("probe").to_string_lossy().into_owned();
    let source = source("tests/dns_server/probe.c").to_string_lossy().into_owned();
    let arguments = [arguments, &["-o", &program, &source]].concat();
    let Some(built) = output(compiler, &arguments, wanted) else { return };
    text(&built);
    let host = Host::new();
    let told = text(&setup::run({
        let mut command = Command::new(&program);
        command.args(NAMES);
        command
    }));
    assert_eq!(told, TOLD);
    host.settle();
}

#[test]
fn glibc_s_getaddrinfo_agrees() {
    netns::inside(|| c("gcc", &["-O1"], "needs gcc"));
}

#[test]
fn musl_s_resolver_agrees() {
    netns::inside(|| c("musl-gcc", &["-O1", "-static"], "needs musl-gcc (Debian: musl-tools)"));
}

#[test]
fn go_s_own_resolver_agrees() {
    netns::inside(|| {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("probe");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(source("tests/dns_server/probe.go"));
        build.current_dir(folder.path()).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        if std::fs::create_dir_all(home.join(".cache")).is_err() {
            build.env("GOCACHE", folder.path().join("cache"));
        }
        match build.output() {
            Err(_) => return skip("needs go"),
            Ok(output) => assert!(output.status.success(), "{output:?}"),
        }
        let host = Host::new();
        let mut command = Command::new(&program);
        command.args(NAMES);
        let told = text(&setup::run(command));
        let more = "\nTXT v=1 all\nSRV db.corp.example. 5432\nMX mail.corp.example. 10";
        assert_eq!(told, format!("{TOLD}{more}"));
        host.settle();
    });
}

#[test]
fn java_s_own_client_and_its_libc_agree() {
    netns::inside(|| {
        if Command::new("javac").arg("-version").output().is_err() {
            return skip("needs a JDK (Debian: default-jdk-headless)");
        }
        let folder = tempfile::tempdir().unwrap();
        let mut build = Command::new("javac");
        build.arg("-d").arg(folder.path()).arg(source("tests/dns_server/Probe.java"));
        text(&build.output().unwrap());
        let host = Host::new();
        let mut command = Command::new("java");
        command.arg("-cp").arg(folder.path()).args(["Probe", "x.corp.example", "denied.example"]);
        let told = text(&setup::run(command));
        let expected = "\
x.corp.example: 10.50.0.7 fd00::7
x.corp.example A 10.50.0.7
x.corp.example TXT v=1 all
x.corp.example SRV 1 2 5432 db.corp.example.
x.corp.example MX 10 mail.corp.example.
denied.example: no
denied.example A no
denied.example TXT no
denied.example SRV no
denied.example MX no";
        assert_eq!(told.replace(":0:0:0:0:0:0:", "::"), expected);
        host.settle();
    });
}
