//! A network namespace for one test: the test's binary runs itself again inside, for this test only.
//!
//! As root by `unshare -nm`, else by a user namespace of its own (`unshare -Urnm`). The mount
//! namespace is for a resolv.conf of its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::skip;

/// Set in the inner run.
const INSIDE: &str = "TAILRACE_TEST_IN_NETNS";

/// Runs `test` in a fresh namespace with loopback up. A failure inside fails the test with its
/// output; where no namespace can be made the test is skipped by name.
#[track_caller]
pub fn inside<F: FnOnce()>(test: F) {
    if std::env::var_os(INSIDE).is_some() {
        must("ip", &["link", "set", "lo", "up"]);
        return test();
    }
    if let Err(why) = possible() {
        return skip(&why);
    }
    let name = test_name::<F>();
    let mut command = unshare();
    command.arg(std::env::current_exe().expect("rig: own path"));
    command.args(["--exact", &name, "--nocapture", "--test-threads=2"]).env(INSIDE, "1");
    let output = command.output().expect("rig: cannot run unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name} in a namespace:\n{text}");
}

/// Loads an nft ruleset in this namespace.
#[track_caller]
pub fn nft(ruleset: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rig: nft");
    child.stdin.take().expect("piped").write_all(ruleset.as_bytes()).expect("rig: nft's input");
    let output = child.wait_with_output().expect("rig: nft");
    assert!(output.status.success(), "nft: {}\n{ruleset}", String::from_utf8_lossy(&output.stderr));
}

/// Redirects every TCP connection this namespace makes to the network `to` to `port` here.
#[track_caller]
pub fn redirect(to: &str, port: u16) {
    let family = family(to);
    nft(&format!(
        "table {family} tailrace_test {{\n chain out {{\n type nat hook output priority -100\n \
         {family} daddr {to} tcp dport 1-65535 redirect to :{port}\n }}\n}}\n"
    ));
}

/// Has TPROXY lead every TCP connection this namespace makes to the network `net` to `to`: a mark routes
/// them back in, where the rule stands.
#[track_caller]
pub fn tproxy(net: &str, to: SocketAddr) {
    let family = family(net);
    nft(&format!(
        "table {family} tailrace_test {{\n \
         chain out {{\n type route hook output priority -150\n {family} daddr {net} meta l4proto tcp meta mark set 1\n }}\n \
         chain pre {{\n type filter hook prerouting priority -150\n {family} daddr {net} meta l4proto tcp tproxy to {to}\n }}\n\
         }}\n"
    ));
    let version = if family == "ip6" { "-6" } else { "-4" };
    must("ip", &[version, "rule", "add", "fwmark", "1", "lookup", "100"]);
    must("ip", &[version, "route", "add", "local", "default", "dev", "lo", "table", "100"]);
}

/// What nft and ip call the family of an address or a network.
fn family(net: &str) -> &'static str {
    if net.contains(':') { "ip6" } else { "ip" }
}

/// The ruleset of this namespace.
#[track_caller]
pub fn ruleset() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("rig: nft");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether processes of another user, nobody, can be had here: not where only root is mapped.
pub fn can_be_nobody() -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "true"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// Makes `address/len` a destination of this namespace, answered by the host itself.
#[track_caller]
pub fn add_address(address: &str) {
    let late = if family(address) == "ip6" { &["nodad"][..] } else { &[] };
    must("ip", &[&["addr", "replace", address, "dev", "lo"], late].concat());
}

/// Makes a network routable, so that connects towards it leave, from 10.99.0.1 or fd99::1, through
/// loopback.
#[track_caller]
pub fn add_route(net: &str) {
    let own = if family(net) == "ip6" { "fd99::1" } else { "10.99.0.1" };
    add_address(own);
    must("ip", &["route", "add", net, "dev", "lo", "src", own]);
}

/// Gives this namespace an /etc of its own with what a resolver reads, so that files in it can be
/// replaced as a DHCP client does it: by rename(2).
#[track_caller]
pub fn own_etc() {
    let folder = tempfile::Builder::new().prefix("tailrace-etc-").tempdir().expect("rig: folder");
    for file in ["hosts", "host.conf", "nsswitch.conf", "passwd", "group", "ld.so.cache"] {
        let _ = std::fs::copy(format!("/etc/{file}"), folder.path().join(file));
    }
    must("mount", &["-t", "tmpfs", "none", "/etc"]);
    let files = std::fs::read_dir(folder.path()).expect("rig: folder").flatten();
    for file in files {
        std::fs::copy(file.path(), format!("/etc/{}", file.file_name().to_string_lossy()))
            .expect("rig: /etc");
    }
}

/// Replaces a file of [`own_etc`].
#[track_caller]
pub fn replace_in_etc(file: &str, text: &str) {
    std::fs::write("/etc/new", text).expect("rig: /etc");
    std::fs::rename("/etc/new", format!("/etc/{file}")).expect("rig: /etc");
}

/// Runs a command that has to succeed.
#[track_caller]
pub fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("rig: {program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg(if rustix::process::geteuid().is_root() { "-nm" } else { "-Urnm" });
    command
}

/// Whether a namespace with NAT can be made here, else why not.
fn possible() -> Result<(), String> {
    let rules = "add table ip probe; add chain ip probe out { type nat hook output priority -100; }; \
                 add rule ip probe out tcp dport 9 redirect to :9";
    let script = format!("ip link set lo up && nft '{rules}'");
    let tried = unshare().args(["sh", "-c", &script]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(format!("needs a network namespace with nft REDIRECT (unshare, ip, nft): {why}"))
        }
        Err(error) => Err(format!("needs unshare(1) of util-linux: {error}")),
    }
}

/// The path of the test the closure stands in, from the closure's type name.
fn test_name<F>() -> String {
    let full = std::any::type_name::<F>();
    let path = full.split("::{{closure}}").next().unwrap_or(full);
    path.split_once("::").map_or(path, |(_crate, rest)| rest).to_owned()
}
