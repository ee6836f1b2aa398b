//! With kind `localapi` nothing in the sandbox reaches tailscaled but through the gateway; with kind
//! `tailscaled` its port is open to everybody, and the gateway says so.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use crate::case::{Case, Need};
use crate::managed::{Kind, tailscaled};
use crate::sockets;
use crate::tailnet::{PORT, Tailnet};

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("b25_another_uid_finds_no_way_over_localapi", sealed).needing(Need::AnotherUser),
        Case::new("b25_the_open_port_is_told_over_tailscaled", exposed).needing(Need::AnotherUser),
    ]
}

fn sealed(tailnet: &Tailnet) {
    let gateway = tailnet.managed(Kind::Localapi);
    let child = tailscaled(gateway);
    only_peers_are_heard(tailnet, &sockets::listening(child));
    let named = sockets::named(child);
    assert!(!named.is_empty(), "LocalAPI has a socket somewhere");
    for socket in named {
        assert!(Path::new(&socket).starts_with(&gateway.launch.run_dir), "{socket}");
        let asked = ask_as_nobody(tailnet, Path::new(&socket));
        assert!(!asked.status.success(), "{socket} is open to nobody: {asked:?}");
    }
    // The same question finds its way where there is one.
    let open = ask_as_nobody(tailnet, &tailnet.sandbox_socket());
    assert!(open.status.success(), "the unmanaged one's socket: {open:?}");
    let said = gateway.launch.ask(tailnet, &["status", "--json"]);
    assert!(!said.out.contains("\"internal_port_exposed\":true"), "{said:?}");
}

fn exposed(tailnet: &Tailnet) {
    let gateway = tailnet.managed(Kind::Tailscaled);
    let socks = gateway.socks(tailnet);
    let port = socks.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mut open = sockets::listening(tailscaled(gateway));
    assert!(open.remove(&port), "{open:?} without {port}");
    only_peers_are_heard(tailnet, &open);
    let mut curl = as_nobody();
    curl.args(["--socks5-hostname", &socks]);
    curl.arg(format!("http://svc:{PORT}/hello"));
    let output = tailnet.sandboxed.enter(|| curl.output()).expect("setpriv");
    assert!(output.stdout.starts_with(b"hello"), "what anybody gets there: {output:?}");
    let said = gateway.launch.ask(tailnet, &["status", "--json"]);
    assert!(said.out.contains("\"internal_port_exposed\":true"), "{said:?}");
    assert!(gateway.log().contains("\"internal_port_exposed\":true"), "the log does not say it");
}

/// The one port that tailscaled always opens, for its peers (PeerAPI): who is none is hung up on.
fn only_peers_are_heard(tailnet: &Tailnet, ports: &BTreeSet<u16>) {
    assert!(ports.len() <= 1, "tailscaled listens at {ports:?}");
    for port in ports {
        let url = format!("http://127.0.0.1:{port}/localapi/v0/status");
        let by = format!("127.0.0.1:{port}");
        let proxied = format!("http://svc:{PORT}/hello");
        let ways: [&[&str]; 3] =
            [&[&url], &["--socks5-hostname", &by, &proxied], &["--proxy", &by, &proxied]];
        for way in ways {
            let said = tailnet.sandboxed.enter(|| as_nobody().args(way).output()).expect("setpriv");
            assert!(!said.status.success() && said.stdout.is_empty(), "{way:?}: {said:?}");
        }
    }
}

/// Asks LocalAPI as uid 65534.
fn ask_as_nobody(tailnet: &Tailnet, socket: &Path) -> Output {
    let mut curl = as_nobody();
    curl.arg("--unix-socket").arg(socket);
    curl.arg("http://local-tailscaled.sock/localapi/v0/status?peers=false");
    tailnet.sandboxed.enter(|| curl.output()).expect("setpriv")
}

fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "curl"]);
    command.args(["--disable", "--silent", "--fail", "--max-time", "10"]);
    command
}
