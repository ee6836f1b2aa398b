//! Chapter B, cases 18 and 19: the name behind a redirected connection's address, each case in a network
//! namespace of its own. The upstream is a SOCKS5 server, which sees what is dialled.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "hellos/say.rs"]
mod hellos;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hellos::{captured, hello_for, in_records, padded};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::Value;
use tailrace_rig::wait::{PATIENCE, bound};
use tailrace_rig::{ConnectionEnd, FakeUpstream, Gateway, Origin, RawConnection, Setup, netns};

const NET: &str = "203.0.113.0/24";
/// Where the client goes.
const EVIL: &str = "203.0.113.66";
/// Where `db.corp.example` is.
const DB: &str = "203.0.113.7";
const DB_TOO: &str = "203.0.113.8";
const INSPECTION_TIME: Duration = Duration::from_secs(3);

struct Lab {
    fake: FakeUpstream,
    gateway: Gateway,
    _origin: Origin,
}

impl Lab {
    /// `corp.example` is allowed, `db.corp.example` has two addresses, all of them lead to `origin`.
    fn new(mode: &str, origin: Origin, change: impl FnOnce(&mut Setup)) -> Lab {
        netns::own_etc();
        netns::replace_in_etc(
            "resolv.conf",
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        );
        let hosts =
            format!("127.0.0.1 localhost\n{DB} db.corp.example\n{DB_TOO} db.corp.example\n");
        netns::replace_in_etc("hosts", &hosts);
        netns::add_route(NET);
        let fake = FakeUpstream::start();
        for host in [EVIL, DB, DB_TOO] {
            fake.map(host, origin.address());
        }
        let gateway = Gateway::start(|s| {
            s.upstream(fake.address())
                .set("dns.mode", "system")
                .set("dns.timeout", "1s")
                .set("policy.mode", mode)
                .set("policy.allowed_host_suffixes", vec!["corp.example"]);
            change(s);
        });
        netns::redirect(NET, gateway.proxy().port());
        Lab { fake, gateway, _origin: origin }
    }

    fn echo(mode: &str) -> Lab {
        Lab::new(mode, Origin::echo(), |_| ())
    }

    /// Says `parts` to `host`, gets them back, and tells which host was dialled.
    #[track_caller]
    fn dialled(&self, host: &str, parts: &[&[u8]]) -> String {
        let before = self.fake.requests().len();
        let mut wire = self.dial(host, 443);
        for part in parts {
            wire.send(part);
        }
        wire.expect(parts.concat());
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
        self.fake.requests()[before..].iter().map(|r| r.host.clone()).collect()
    }

    #[track_caller]
    fn resets(&self, host: &str, bytes: &[u8]) {
        let before = self.fake.requests().len();
        let mut wire = self.dial(host, 443);
        wire.send(bytes);
        wire.expect_end(ConnectionEnd::Reset);
        assert_eq!(self.fake.requests().len(), before, "nothing is dialled");
    }

    fn dial(&self, host: &str, port: u16) -> RawConnection {
        RawConnection::dial(format!("{host}:{port}").parse().unwrap())
    }

    fn line(&self, number: usize) -> LineFacts {
        let line = self.gateway.wait_for_access(number)[number - 1].clone();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (host, from) = (text(&line["host"]), text(&line["host_from"]));
        (host, from, text(&line["policy"]["verdict"]), text(&line["outcome"]))
    }
}

/// `host`, `host_from`, verdict and outcome of an access line.
type LineFacts = (String, String, String, String);

fn facts(host: &str, from: &str, verdict: &str, outcome: &str) -> LineFacts {
    (host.to_owned(), from.to_owned(), verdict.to_owned(), outcome.to_owned())
}

fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[test]
fn b18_what_the_name_resolves_to_is_dialled_never_the_address_on_its_strength() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        let hello = hello_for("db.corp.example");
        assert_eq!(lab.dialled(EVIL, &[&hello]), DB);
        assert_eq!(lab.dialled(EVIL, &[&get("DB.corp.example:443")]), DB);
        assert_eq!(lab.line(1), facts("db.corp.example", "sni", "allow", "fin_fin"));
        assert_eq!(lab.line(2), facts("db.corp.example", "http_host", "allow", "fin_fin"));
        assert_eq!(lab.gateway.access_lines()[0]["address"], DB);
        lab.gateway.settle_with(&lab.fake, 2, 2);
    });
}

#[test]
fn b18_an_address_of_the_name_keeps_its_identity() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        for host in [DB, DB_TOO] {
            assert_eq!(lab.dialled(host, &[&hello_for("db.corp.example")]), host);
            assert_eq!(lab.dialled(host, &[&get("db.corp.example")]), host);
        }
        lab.gateway.settle_with(&lab.fake, 4, 4);
    });
}

#[test]
fn b18_a_name_that_is_not_allowed_or_not_known_leads_nowhere() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        lab.resets(EVIL, &hello_for("evil.example"));
        assert_eq!(lab.line(1), facts("evil.example", "sni", "deny", "denied"));
        lab.resets(EVIL, &hello_for("nobody.corp.example"));
        let line = lab.line(2);
        assert_eq!((line.0.as_str(), line.2.as_str()), ("nobody.corp.example", "allow"));
        assert!(["dns_error", "dns_timeout"].contains(&line.3.as_str()), "{line:?}");
        let mut wire = lab.dial(EVIL, 80);
        wire.send(get("evil.example"));
        assert_refuses(wire, 403, "denied");
        assert_eq!(lab.line(3), facts("evil.example", "http_host", "deny", "denied"));
        // No name, an address for a name, or one that is none: the address is judged.
        for hello in [hello_for("203.0.113.7"), b"\x00\x00".to_vec()] {
            lab.resets(EVIL, &hello);
        }
        for host in [DB, "a b"] {
            let mut wire = lab.dial(EVIL, 80);
            wire.send(get(host));
            assert_refuses(wire, 403, "denied");
        }
        assert_eq!(lab.line(4), facts(EVIL, "none", "deny", "denied"));
        lab.gateway.settle_with(&lab.fake, 7, 0);
    });
}

#[test]
fn b17_b18_where_the_address_is_allowed_too() {
    netns::inside(|| {
        let mut lab = Lab::new("enforce", Origin::echo(), |s| {
            s.set("policy.allowed_nets", vec![NET]);
        });
        lab.resets(EVIL, &hello_for("evil.example"));
        assert_eq!(lab.line(1), facts("evil.example", "sni", "deny", "sni_mismatch"));
        assert_eq!(lab.dialled(EVIL, &[&hello_for("nobody.corp.example")]), EVIL);
        assert_eq!(lab.line(2), facts(EVIL, "none", "allow", "fin_fin"));
        assert_eq!(lab.dialled(EVIL, &[b"\x00\x00\x00\x08"]), EVIL);
        assert_eq!(lab.dialled(EVIL, &[b"SSH-2.0-x\r\n"]), EVIL);
        assert_eq!(lab.dialled(EVIL, &[&hello_for("db.corp.example")]), DB);
        lab.resets(EVIL, &padded("db.corp.example", 16 * 1024 + 1));
        assert_eq!(lab.line(6), facts(EVIL, "none", "deny", "sni_mismatch"));
        lab.gateway.settle_with(&lab.fake, 6, 4);
    });
}

#[test]
fn b18_log_mode_writes_down_and_carries() {
    netns::inside(|| {
        let mut lab = Lab::echo("log");
        assert_eq!(lab.dialled(EVIL, &[&hello_for("evil.example")]), EVIL);
        assert_eq!(lab.line(1), facts("evil.example", "sni", "would_deny", "fin_fin"));
        assert_eq!(lab.dialled(EVIL, &[&hello_for("db.corp.example")]), DB);
        assert_eq!(lab.line(2), facts("db.corp.example", "sni", "allow", "fin_fin"));
        assert_eq!(lab.dialled(EVIL, &[&hello_for("nobody.corp.example")]), EVIL);
        assert_eq!(lab.line(3), facts(EVIL, "none", "would_deny", "fin_fin"));
        lab.gateway.settle_with(&lab.fake, 3, 3);
    });
}

#[test]
fn b18_hellos_of_real_programs_in_pieces_and_over_records() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        let mut targets = 0;
        for (program, hello) in captured() {
            if program.ends_with("-no-name") {
                continue;
            }
            assert_eq!(lab.dialled(EVIL, &[&hello]), DB, "{program}");
            let pieces: Vec<&[u8]> = hello.chunks(61).collect();
            assert_eq!(lab.dialled(EVIL, &pieces), DB, "{program}");
            assert_eq!(lab.dialled(EVIL, &[&in_records(&hello, 33)]), DB, "{program}");
            targets += 3;
        }
        let shortest = captured().into_iter().min_by_key(|(_, hello)| hello.len()).unwrap().1;
        for at in 1..shortest.len() {
            let (first, rest) = shortest.split_at(at);
            assert_eq!(lab.dialled(EVIL, &[first, rest]), DB, "{at}");
            targets += 1;
        }
        assert_eq!(lab.dialled(EVIL, &[&padded("db.corp.example", 16 * 1024)]), DB);
        lab.gateway.settle_with(&lab.fake, targets + 1, targets as usize + 1);
    });
}

#[test]
fn b18_no_byte_is_lost_doubled_or_reordered() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = [hello_for("db.corp.example"), bytes].concat();
        let mut wire = lab.dial(EVIL, 443);
        let mut writer = wire.twin();
        let all = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.send(all);
            writer.fin();
        });
        assert!(wire.read_n(sent.len()) == sent);
        wire.expect_end(ConnectionEnd::Fin);
        writing.join().unwrap();
        lab.gateway.settle_with(&lab.fake, 1, 1);
    });
}

#[test]
fn b18_a_hello_has_three_seconds() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        let began = Instant::now();
        lab.resets(EVIL, &hello_for("db.corp.example")[..60]);
        assert!((INSPECTION_TIME.mul_f64(0.9)..INSPECTION_TIME * 2).contains(&began.elapsed()));
        assert_eq!(lab.line(1), facts(EVIL, "none", "deny", "denied"));
        // A slow client that only its name can help is waited for.
        let mut wire = lab.dial(EVIL, 443);
        wire.expect_silence(Duration::from_millis(500));
        wire.send(hello_for("db.corp.example"));
        wire.expect(hello_for("db.corp.example"));
        drop(wire);
        lab.gateway.settle_with(&lab.fake, 2, 1);
    });
}

/// Requests as of a proxy, in this mode.
fn for_a_proxy(mode: &str) {
    let mut lab = Lab::new(mode, Origin::echo(), |s| {
        s.set("policy.allowed_nets", vec![NET]);
    });
    let asked = [
        "GET http://evil/ HTTP/1.1\r\nHost: db.corp.example\r\n\r\n",
        "CONNECT evil:443 HTTP/1.1\r\n\r\n",
    ];
    for ask in asked {
        let mut wire = lab.dial(EVIL, 80);
        wire.send(ask);
        assert_refuses(wire, 400, "bad_request");
    }
    lab.gateway.settle_with(&lab.fake, 2, 0);
    assert_eq!(lab.line(1).3, "bad_request");
}

#[track_caller]
fn assert_refuses(mut wire: RawConnection, status: u16, outcome: &str) {
    let answer = wire.read_answer();
    assert_eq!((answer.status(), answer.json()["error"].as_str()), (status, Some(outcome)));
}

#[test]
fn b19_a_request_for_a_proxy_is_answered_400_in_mode_off() {
    netns::inside(|| for_a_proxy("off"));
}

#[test]
fn b19_a_request_for_a_proxy_is_answered_400_in_mode_log() {
    netns::inside(|| for_a_proxy("log"));
}

#[test]
fn b19_a_request_for_a_proxy_is_answered_400_in_mode_enforce() {
    netns::inside(|| for_a_proxy("enforce"));
}

#[test]
fn b19_also_where_our_own_answer_has_named_the_connection() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        lab.learn("db.corp.example.");
        let mut wire = lab.dial(DB, 80);
        wire.send("GET http://evil/ HTTP/1.1\r\nHost: db.corp.example\r\n\r\n");
        assert_refuses(wire, 400, "bad_request");
        lab.gateway.settle_and_check(1);
        assert_eq!(lab.line(1), facts("db.corp.example", "dns", "allow", "bad_request"));
        assert_eq!(lab.gateway.access_lines()[0]["bytes_up"], 0);
    });
}

impl Lab {
    /// A program of this host asks our DNS server.
    #[track_caller]
    fn learn(&self, name: &str) {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut asked = Message::query();
        asked.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        client.send_to(&asked.to_vec().unwrap(), self.gateway.private_dns()).unwrap();
        let mut bytes = [0; 1500];
        let length = client.recv(&mut bytes).unwrap();
        assert_ne!(Message::from_vec(&bytes[..length]).unwrap().answers.len(), 0, "{name}");
    }
}

#[test]
fn our_own_answer_names_first_and_nothing_is_waited_for() {
    netns::inside(|| {
        let greeting = Origin::send("220 ready\r\n");
        let mut lab = Lab::new("enforce", greeting, |s| {
            s.set("transparent.server_first", "30s");
        });
        lab.learn("db.corp.example.");
        for host in [DB_TOO, DB] {
            let mut wire = lab.dial(host, 7777);
            wire.expect("220 ready\r\n");
            wire.fin();
            wire.expect_end(ConnectionEnd::Fin);
        }
        assert_eq!(lab.fake.hosts(), [DB_TOO, DB]);
        assert_eq!(lab.line(1), facts("db.corp.example", "dns", "allow", "fin_fin"));
        lab.gateway.settle_with(&lab.fake, 2, 2);
    });
}

#[test]
fn b17_tls_where_our_own_answer_has_named_the_connection() {
    netns::inside(|| {
        let mut lab = Lab::echo("enforce");
        lab.learn("db.corp.example.");
        let mut wire = lab.dial(DB, 443);
        wire.send(hello_for("evil.example"));
        wire.expect_end(ConnectionEnd::Reset);
        assert_eq!(lab.dialled(DB, &[&hello_for("db.corp.example")]), DB);
        lab.gateway.settle_and_check(2);
        assert_eq!(lab.line(1), facts("db.corp.example", "dns", "deny", "sni_mismatch"));
    });
}

/// The server speaks first, as MySQL's does, and then talks.
fn greeting() -> Origin {
    Origin::start(|guest| {
        guest.send(b"\x4a\x00\x00\x00\x0a8.0.36\x00");
        guest.read_to_end();
        guest.fin();
    })
}

#[test]
fn a_server_that_speaks_first_waits_for_server_first_and_no_longer() {
    netns::inside(|| {
        let mut lab = Lab::new("enforce", greeting(), |s| {
            s.set("policy.allowed_nets", vec![NET]).set("transparent.server_first", "400ms");
        });
        let greeted = |port| {
            let began = Instant::now();
            let mut wire = lab.dial(EVIL, port);
            wire.expect("\x4a\x00\x00\x00\x0a8.0.36\x00");
            let took = began.elapsed();
            wire.send("login");
            wire.fin();
            wire.expect_end(ConnectionEnd::Fin);
            took
        };
        let unknown = greeted(7777);
        let wanted = Duration::from_millis(400);
        assert!((wanted..wanted + bound(wanted)).contains(&unknown), "{unknown:?}");
        for known in [3306, 22, 25, 5900] {
            let took = (0..3).map(|_| greeted(known)).min().unwrap();
            assert!(took < wanted, "{known}: {took:?}");
        }
        lab.gateway.settle_with(&lab.fake, 13, 13);
    });
}

#[test]
fn b18_ipv6() {
    netns::inside(|| {
        netns::own_etc();
        netns::replace_in_etc("hosts", "127.0.0.1 localhost\n2001:db8:1::7 db.corp.example\n");
        netns::add_route("2001:db8:1::/64");
        let origin = Origin::echo();
        let fake = FakeUpstream::with("2001:db8:1::7", origin.address());
        let mut gateway = Gateway::start(|s| {
            s.upstream(fake.address())
                .set("dns.mode", "system")
                .set("listen.proxy", vec!["[::1]:0"])
                .enforce(&["corp.example"]);
        });
        netns::redirect("2001:db8:1::/64", gateway.proxy().port());
        for to in ["[2001:db8:1::66]:443", "[2001:db8:1::7]:443"] {
            let mut wire = RawConnection::dial(to.parse().unwrap());
            wire.send(hello_for("db.corp.example"));
            wire.expect(hello_for("db.corp.example"));
            wire.fin();
            wire.expect_end(ConnectionEnd::Fin);
        }
        gateway.settle_with(&fake, 2, 2);
        assert_eq!(fake.hosts(), ["2001:db8:1::7"; 2]);
        assert_eq!(gateway.access_lines()[0]["host_from"], "sni");
    });
}
