//! Chapter B, case 28: redirected connections, each in a network namespace of its own and judged by
//! what the client gets and by how often the gateway accepted. IPv6 and TPROXY come later.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

mod rig;

use rig::wait::{PATIENCE, eventually};
use rig::{End, Gateway, HttpOrigin, Inbound, Origin, Setup, Tailscaled, Wire, fetch, netns};

const NET: &str = "203.0.113.0/24";
const TARGET: &str = "203.0.113.9:8080";

/// A gateway chained into `fake`, allowed the net that is redirected to it.
fn redirected(fake: &Tailscaled, change: impl FnOnce(&mut Setup)) -> Gateway {
    netns::add_route(NET);
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address())
            .set("policy.mode", "enforce")
            .set("policy.allowed_nets", vec![NET]);
        change(s);
    });
    netns::redirect(NET, gateway.proxy().port());
    gateway
}

#[track_caller]
fn echoes(mut wire: Wire) {
    wire.send("hello");
    wire.expect("hello");
    wire.fin();
    wire.expect_end(End::Fin);
}

#[test]
fn b28_v4_redirect_leads_to_the_original_destination() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = Tailscaled::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, |_| ());
        echoes(Wire::dial(TARGET.parse().unwrap()));
        gateway.settle_with(&fake, 1, 1);
        let request = &fake.requests()[0];
        assert_eq!((request.host.as_str(), request.port, request.atyp), ("203.0.113.9", 8080, 1));
        let line = &gateway.access_lines()[0];
        assert_eq!(
            (&line["inbound"], &line["outcome"]),
            (&"transparent".into(), &"fin_fin".into())
        );
        assert_eq!(
            gateway.metrics().value("tailrace_connections_total", &[("inbound", "transparent")]),
            1.0
        );
    });
}

#[test]
fn b28_v4_redirect_to_a_dual_stack_socket() {
    netns::inside(|| {
        let origin = Origin::echo();
        let fake = Tailscaled::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, |s| {
            s.set("listen.proxy", vec!["[::]:0"]).set("listen.allow_remote", true);
        });
        echoes(Wire::dial(TARGET.parse().unwrap()));
        gateway.settle_with(&fake, 1, 1);
        assert_eq!(gateway.access_lines()[0]["inbound"], "transparent");
    });
}

#[test]
fn b28_direct_connections_are_told_apart_with_a_nat_table() {
    netns::inside(|| {
        let origin = HttpOrigin::ok("direct");
        let fake = Tailscaled::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, |_| ());
        for inbound in Inbound::ALL {
            assert_eq!(fetch(gateway.proxy(), inbound, TARGET).body, b"direct", "{inbound:?}");
        }
        gateway.settle_with(&fake, 5, 5);
        let metrics = gateway.metrics();
        let of = |inbound| metrics.value("tailrace_connections_total", &[("inbound", inbound)]);
        assert_eq!(
            ["socks4", "socks5", "connect", "http", "transparent"].map(of),
            [2.0, 1.0, 1.0, 1.0, 0.0]
        );
    });
}

#[test]
fn b28_direct_connections_without_a_nat_table() {
    netns::inside(|| {
        let origin = HttpOrigin::ok("direct");
        let fake = Tailscaled::with("203.0.113.9", origin.address());
        let gateway = Gateway::chained(&fake);
        for inbound in Inbound::ALL {
            assert_eq!(fetch(gateway.proxy(), inbound, TARGET).body, b"direct", "{inbound:?}");
        }
    });
}

#[test]
fn b28_a_denied_destination_is_reset_and_never_dialled() {
    netns::inside(|| {
        let fake = Tailscaled::start();
        let mut gateway = redirected(&fake, |s| {
            s.set("policy.allowed_nets", vec!["198.51.100.0/24"]);
        });
        // The reset may be there before connect(2) has looked.
        match std::net::TcpStream::connect(TARGET) {
            Ok(stream) => Wire::new(stream).expect_end(End::Reset),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        gateway.settle_with(&fake, 1, 0);
        assert_eq!(gateway.access_lines()[0]["outcome"], "denied");
    });
}

#[test]
fn b28_server_that_speaks_first_is_waited_for() {
    netns::inside(|| {
        let origin = Origin::send("220 ready\r\n");
        let fake = Tailscaled::with("203.0.113.9", origin.address());
        let mut gateway = redirected(&fake, |_| ());
        let mut wire = Wire::dial(TARGET.parse().unwrap());
        wire.expect("220 ready\r\n");
        wire.fin();
        wire.expect_end(End::Fin);
        gateway.settle_with(&fake, 1, 1);
    });
}

#[test]
fn b28_own_dials_are_exempt_by_mark() {
    netns::inside(|| {
        netns::add_address("203.0.113.9/32");
        let origin = Origin::on(TARGET.parse().unwrap(), |guest| {
            let mut byte = [0];
            while guest.read(&mut byte) > 0 {
                guest.send(&byte);
            }
        });
        let mut gateway = Gateway::start(|s| {
            s.direct().set("upstream.mark", 77).set("policy.allowed_nets", vec![NET]);
        });
        netns::nft(&format!(
            "table ip t {{\n chain out {{\n type nat hook output priority -100\n meta mark 77 return\n \
             ip daddr {NET} tcp dport 1-65535 redirect to :{}\n }}\n}}\n",
            gateway.proxy().port()
        ));
        echoes(Wire::dial(TARGET.parse().unwrap()));
        gateway.settle_and_check(1);
        eventually("one visit", PATIENCE, || origin.visits().len() == 1);
    });
}

#[test]
fn b28_own_address_as_original_destination_is_no_redirect() {
    netns::inside(|| {
        let fake = Tailscaled::start();
        let mut gateway = redirected(&fake, |_| ());
        let mut wire = gateway.dial();
        wire.send("GET / HTTP/1.1\r\nHost: db.corp.example\r\n\r\n");
        assert_eq!(wire.read_answer().status(), 400);
        gateway.settle_with(&fake, 1, 0);
    });
}
