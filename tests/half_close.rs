//! Case C6: a half-close on the way to a tailscaled that would lose the answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::time::Duration;

use tailrace_rig::wait::timed;
use tailrace_rig::{FakeTailnet, Gateway, Inbound, Origin};

const DB: &str = "db:5432";
const SECOND: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(100);

fn tailnet_with(origin: std::net::SocketAddr) -> FakeTailnet {
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1", origin);
    tailnet
}

/// An origin that answers a line and ends, as most servers do.
fn line_server() -> Origin {
    Origin::start(|guest| {
        guest.read_n(4);
        guest.send(&vec![42; 1 << 20]);
        guest.fin();
        guest.read_to_end();
    })
}

/// `printf 'GET\n' | nc -N`: the request and FIN at once; what comes back.
fn ask_and_shut(gateway: &Gateway, inbound: Inbound) -> usize {
    let mut wire = gateway.open(inbound, DB);
    wire.send("GET\n");
    wire.fin();
    wire.rest().0.len()
}

#[test]
fn c6_an_old_tailscaled_is_shielded_from_half_closes() {
    for (version, rule) in [
        ("1.98.9-ERR-BuildInfo", "auto"),
        ("1.103.99", "auto"),
        ("no version", "auto"),
        ("1.98.9", "defer"),
        ("1.104.0", "defer"),
        ("1.104.0-ERR-BuildInfo", "auto"),
        ("1.104.0", "propagate"),
    ] {
        let origin = line_server();
        let tailnet = tailnet_with(origin.address());
        tailnet.change(|s| s.version = version.to_owned());
        let gateway = tailnet.gateway(|s| {
            s.set("upstream.half_close", rule);
        });
        for inbound in Inbound::NAMED_TUNNELS {
            assert_eq!(ask_and_shut(&gateway, inbound), 1 << 20, "{version} {rule} {inbound:?}");
        }
        let lines = gateway.wait_for_access(3);
        assert!(lines.iter().all(|l| l["outcome"] == "fin_fin"), "{version} {rule}: {lines:?}");
    }
}

#[test]
fn c6_propagated_to_an_old_tailscaled_the_answer_is_lost() {
    let origin = Origin::send_after_eof(vec![7; 1 << 20]);
    let tailnet = tailnet_with(origin.address());
    let gateway = tailnet.gateway(|s| {
        s.set("upstream.half_close", "propagate");
    });
    assert_eq!(ask_and_shut(&gateway, Inbound::Socks5), 0);
}

#[test]
fn c6_a_new_tailscaled_is_given_the_half_close() {
    for version in ["1.104.0", "v1.105.2-t0123"] {
        let origin = Origin::send_after_eof(vec![7; 1 << 20]);
        let tailnet = tailnet_with(origin.address());
        tailnet.change(|s| s.version = version.to_owned());
        let gateway = tailnet.gateway(|_| ());
        assert_eq!(ask_and_shut(&gateway, Inbound::Connect), 1 << 20, "{version}");
        assert_eq!(origin.only_visit().received, b"GET\n");
    }
}

#[test]
fn c6_a_held_back_half_close_ends_after_the_linger() {
    for sealed in [false, true] {
        let origin = Origin::sink();
        let tailnet = tailnet_with(origin.address());
        let gateway = tailnet.gateway(|s| {
            s.set("limits.half_close_timeout", "2s");
            if sealed {
                s.sealed();
            }
        });
        let mut wire = gateway.open(Inbound::Socks5, DB);
        wire.send("upload");
        wire.fin();
        let (_, took) = timed(|| wire.rest());
        assert!(took >= 2 * SECOND - FAST && took < 4 * SECOND, "{took:?}");
        assert_eq!(gateway.outcome(1), "half_close_idle");
        assert_eq!(origin.only_visit().received, b"upload");
    }
}

#[test]
fn c6_sealed_connections_are_shielded_whatever_the_version() {
    let origin = line_server();
    let tailnet = tailnet_with(origin.address());
    tailnet.change(|s| s.version = "1.104.0".to_owned());
    let gateway = tailnet.gateway(|s| {
        s.sealed();
    });
    assert_eq!(ask_and_shut(&gateway, Inbound::Socks5), 1 << 20);
    assert!(tailnet.socks().is_empty());
}
