//! One tailnet with a nameserver inside, a gateway in it, and what it says of a name.

use std::net::SocketAddr;

use serde_json::{Value, json};

use tailrace_rig::fake_tailnet::script::Script;
use tailrace_rig::{
    Answer, ConnectionEnd, FakeTailnet, Gateway, HttpOrigin, Inbound, Nameserver, Setup,
    assert_says,
};

/// Both ways through a tailscaled.
pub const KINDS: [&str; 2] = ["tailscaled", "localapi"];

/// The same case both ways, at the same time.
pub fn both_ways(case: impl Fn(&'static str) + Sync) {
    std::thread::scope(|scope| {
        for kind in KINDS {
            let case = &case;
            let named = std::thread::Builder::new().name(kind.to_owned());
            named.spawn_scoped(scope, move || case(kind)).unwrap();
        }
    });
}

/// The nameservers inside the tailnet: a peer, and a host behind its subnet route.
pub const INSIDE: [&str; 2] = ["100.64.0.1", "10.50.0.53"];
/// A host behind the subnet route of `db`; an origin answers there, on every port.
pub const HOST: &str = "10.50.0.7";
/// The same by IPv6: the peer itself.
pub const HOST_V6: &str = "fd7a:115c:a1e0::1";
/// What that origin says.
pub const FOUND: &[u8] = b"found";

/// The tailnet, the gateway, and the origin all good names lead to.
pub struct Lab {
    pub tailnet: FakeTailnet,
    pub gateway: Gateway,
    pub origin: HttpOrigin,
}

/// A tailnet whose split route corp.example leads to these nameservers, in this order.
pub fn tailnet(nameservers: &[&Nameserver], origin: SocketAddr) -> FakeTailnet {
    FakeTailnet::with(|script| {
        let inside = &INSIDE[..nameservers.len()];
        script.dns["Routes"]["corp.example."] = servers(inside);
        for (address, nameserver) in inside.iter().zip(nameservers) {
            script.places.insert(format!("{address}:53"), nameserver.address());
        }
        script.places.insert(HOST.to_owned(), origin);
        script.places.insert(HOST_V6.to_owned(), origin);
    })
}

/// Nameservers as `dns-config` lists them.
pub fn servers(addresses: &[&str]) -> Value {
    addresses.iter().map(|address| json!({"Addr": address})).collect()
}

impl Lab {
    /// One with nothing changed.
    #[track_caller]
    pub fn of(kind: &str, nameservers: &[&Nameserver]) -> Lab {
        Lab::with(kind, nameservers, |_| (), |_| ())
    }

    /// One whose tailnet and settings were changed, up and ready.
    #[track_caller]
    pub fn with(
        kind: &str,
        nameservers: &[&Nameserver],
        script: impl FnOnce(&mut Script),
        setup: impl FnOnce(&mut Setup),
    ) -> Lab {
        let origin = HttpOrigin::ok("found");
        let tailnet = tailnet(nameservers, origin.address());
        tailnet.change(script);
        let mut gateway = Gateway::start(|s| {
            s.managed(&tailnet).set("upstream.kind", kind);
            setup(s);
        });
        gateway.wait_ready();
        Lab { tailnet, gateway, origin }
    }

    /// The origin is reached by this name, which `by` resolves to `address`.
    #[track_caller]
    pub fn reaches(&self, inbound: Inbound, name: &str, by: &str, address: &str) -> Value {
        let target = format!("{name}:80");
        let (mut wire, answer) = self.gateway.ask(inbound, &target);
        let client = wire.local();
        let body = match answer {
            Answer::Http(answer) if inbound == Inbound::Forward => answer.body,
            answer => {
                assert!(answer.is_ok(), "{inbound:?} to {target}: {answer:?}");
                wire.send(format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n"));
                wire.read_answer().body
            }
        };
        assert_eq!(body, FOUND, "{inbound:?} to {target}");
        drop(wire);
        let line = self.line_of(client);
        let said = (&line["resolved_by"], &line["address"]);
        assert_eq!(said, (&json!(by), &json!(address)), "{line}");
        line
    }

    /// The exact refusal over this inbound, and the line about it.
    #[track_caller]
    pub fn refuses(&self, inbound: Inbound, name: &str, outcome: &str, by: &str) -> Value {
        let (mut wire, answer) = self.gateway.ask(inbound, &format!("{name}:80"));
        assert_says(&answer, outcome);
        wire.expect_end(ConnectionEnd::Fin);
        let line = self.line_of(wire.local());
        let said = (&line["outcome"], &line["resolved_by"]);
        assert_eq!(said, (&json!(outcome), &json!(by)), "{line}");
        line
    }

    #[track_caller]
    fn line_of(&self, client: SocketAddr) -> Value {
        self.gateway.wait_for_line(|line| line["client"] == client.to_string())
    }

    /// The refusal's sentence, as an HTTP body carries it.
    #[track_caller]
    pub fn sentence(&self, name: &str, outcome: &str) -> String {
        let (_, answer) = self.gateway.ask(Inbound::Connect, &format!("{name}:80"));
        assert_says(&answer, outcome);
        let Answer::Http(answer) = answer else { panic!("HTTP was asked") };
        answer.json()["message"].as_str().unwrap().to_owned()
    }

    /// `tailrace_dns_queries_total` of one route and one result.
    #[track_caller]
    pub fn count(&self, route: &str, result: &str) -> u64 {
        let labels = [("route", route), ("result", result)];
        self.gateway.metrics().value("tailrace_dns_queries_total", &labels) as u64
    }

    /// All of them.
    #[track_caller]
    pub fn counts(&self) -> u64 {
        self.gateway.metrics().value("tailrace_dns_queries_total", &[]) as u64
    }

    /// What tailscaled was asked for, nameservers left out.
    #[track_caller]
    pub fn dialled(&self) -> Vec<String> {
        let mut asked = self.tailnet.asked();
        asked.retain(|target| !target.ends_with(":53"));
        asked
    }

    /// `/api/v1/explain` of a target.
    #[track_caller]
    pub fn explain(&self, target: &str) -> Value {
        self.gateway.admin_get(&format!("/api/v1/explain?target={target}")).json()
    }
}
