//! B21 to B23: names as policy meets them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::lab::{HOST, KINDS, Lab, both_ways};
use tailrace_rig::fake_tailnet::script::{Login, Script};
use tailrace_rig::nameserver::TTL;
use tailrace_rig::wait::eventually;
use tailrace_rig::{FakeTailnet, Gateway, HttpOrigin, Inbound, Nameserver, fetch};

const MODES: [&str; 3] = ["off", "log", "enforce"];
const PEER: &str = "100.64.0.1";

/// The peer `db` and the record `grafana` are there.
fn inside(origin: std::net::SocketAddr) -> impl FnOnce(&mut Script) {
    move |script| {
        script.places.insert(PEER.to_owned(), origin);
        script.dns["ExtraRecords"] = json!([{"Name": "grafana.lab.ts.net", "Value": PEER}]);
    }
}

#[test]
fn b21_a_bare_name_is_made_whole_before_policy_and_log() {
    both_ways(|kind| {
        let origin = HttpOrigin::ok("found");
        let mut lab = Lab::with(kind, &[], inside(origin.address()), |s| {
            s.enforce(&["lab.ts.net"]);
        });
        let mut asked = 0;
        for (bare, whole) in [("db", "db.lab.ts.net"), ("GRAFANA", "grafana.lab.ts.net")] {
            for inbound in Inbound::NAMED {
                let line = lab.reaches(inbound, bare, "magicdns", PEER);
                let policy =
                    json!({"mode": "enforce", "verdict": "allow", "rule": "suffix lab.ts.net"});
                assert_eq!((&line["host"], &line["policy"]), (&json!(whole), &policy));
                assert_eq!(
                    (&line["route"], &line["host_from"]),
                    (&json!("tailnet"), &json!("client"))
                );
                asked += 1;
            }
        }
        assert_eq!(lab.dialled(), vec!["100.64.0.1:80"; 8], "by address");
        assert_eq!((lab.count("magicdns", "ok"), lab.counts()), (8, 8));
        lab.gateway.settle_and_check(asked);
    });
}

#[test]
fn b21_a_bare_name_that_policy_refuses_as_a_whole_is_denied() {
    let origin = HttpOrigin::ok("found");
    let mut lab = Lab::with("tailscaled", &[], inside(origin.address()), |s| {
        s.enforce(&["corp.example"]);
    });
    for inbound in Inbound::NAMED {
        lab.gateway.assert_refused(inbound, "db:80", "denied");
    }
    lab.gateway.settle_and_check(4);
    assert!(lab.gateway.access_lines().iter().all(|l| l["host"] == "db.lab.ts.net"));
    assert_eq!((lab.dialled().len(), lab.counts()), (0, 0));
}

#[test]
fn b21_a_bare_name_that_the_tailnet_has_not_is_judged_as_it_stands() {
    let mut lab = Lab::with(
        "localapi",
        &[],
        |_| (),
        |s| {
            s.enforce(&["lab.ts.net"]);
        },
    );
    for inbound in Inbound::NAMED {
        lab.gateway.assert_refused(inbound, "nosuch:80", "denied");
    }
    lab.gateway.settle_and_check(4);
    assert!(lab.gateway.access_lines().iter().all(|l| l["host"] == "nosuch"));
    assert_eq!((lab.dialled().len(), lab.counts()), (0, 0));
}

#[test]
fn b21_a_bare_name_asked_before_the_first_login_is_made_whole_after_it() {
    both_ways(|kind| {
        let origin = HttpOrigin::ok("found");
        let tailnet = FakeTailnet::with(|script| {
            script.login = Login::Never;
            inside(origin.address())(script);
        });
        let mut gateway = Gateway::start(|s| {
            s.managed(&tailnet).set("upstream.kind", kind).enforce(&["lab.ts.net"]);
        });
        std::thread::scope(|scope| {
            for inbound in Inbound::NAMED {
                let proxy = gateway.proxy();
                scope.spawn(move || assert_eq!(fetch(proxy, inbound, "db:80").body, b"found"));
            }
            eventually("all wait", Duration::from_secs(5), || {
                gateway.metrics().value("tailrace_connections_active", &[]) == 4.0
            });
            tailnet.login(Login::Runs(Duration::ZERO));
        });
        gateway.wait_ready();
        gateway.settle_and_check(4);
        for line in gateway.access_lines() {
            let said = (&line["host"], &line["resolved_by"], &line["policy"]["verdict"]);
            assert_eq!(said, (&json!("db.lab.ts.net"), &json!("magicdns"), &json!("allow")));
        }
    });
}

/// The first A question for a name is answered with [`HOST`], the next ones with loopback.
fn rebinding() -> Nameserver {
    let asked: Mutex<HashMap<String, usize>> = Mutex::default();
    Nameserver::start(move |question| {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(question.name.clone()).or_default();
        *times += usize::from(question.kind == 1);
        let address = if *times <= 1 { HOST } else { "127.0.0.1" };
        question.told().address(&question.name, address, 0).into()
    })
}

#[test]
fn b22_the_checked_address_is_the_dialled_one_and_a_flip_is_denied() {
    std::thread::scope(|scope| {
        for (kind, mode) in KINDS.into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode))) {
            scope.spawn(move || {
                let server = rebinding();
                let mut lab = Lab::with(
                    kind,
                    &[&server],
                    |_| (),
                    |s| {
                        s.enforce(&["corp.example"]).set("policy.mode", mode);
                    },
                );
                lab.reaches(Inbound::Socks5, "flip.corp.example", "split", HOST);
                assert_eq!(server.asked("flip.corp.example"), 2, "one look-up, no second one");
                eventually("the answer is forgotten", Duration::from_secs(5), || {
                    lab.explain("flip.corp.example:80")["addresses"][0]["address"] == "127.0.0.1"
                });
                lab.gateway.assert_refused(Inbound::Socks5, "flip.corp.example:80", "denied");
                assert_eq!(lab.dialled(), ["10.50.0.7:80"], "never by name, never loopback");
                lab.gateway.settle_and_check(2);
            });
        }
    });
}

#[test]
fn b22_every_answer_faces_the_denied_nets_and_the_own_addresses() {
    let bad = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "100.64.0.9",
        "fd7a:115c:a1e0::9",
        "64:ff9b::7f00:1",
        "0.0.0.0",
    ];
    both_ways(|kind| {
        let server = Nameserver::start(move |question| {
            let number: usize = question.label()[1..].parse().unwrap();
            match question.label().as_bytes()[0] {
                b'n' => question.at(&[bad[number]]).into(),
                _ => question.at(&[bad[number], HOST]).into(),
            }
        });
        let mut lab = Lab::with(
            kind,
            &[&server],
            |_| (),
            |s| {
                s.set("policy.mode", "off");
            },
        );
        for n in 0..bad.len() {
            lab.refuses(Inbound::Socks5, &format!("n{n}.corp.example"), "denied", "split");
        }
        assert!(lab.dialled().is_empty(), "{:?}", lab.dialled());
        for n in 0..bad.len() {
            let target = format!("m{n}.corp.example:80");
            assert_eq!(fetch(lab.gateway.proxy(), Inbound::Socks5, &target).body, b"found");
        }
        assert_eq!(lab.dialled(), vec!["10.50.0.7:80"; bad.len()], "the good one alone");
        lab.gateway.settle_and_check(2 * bad.len() as u64);
    });
}

#[test]
fn b23_policy_is_on_the_asked_name_only() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| match question.name.as_str() {
            "whole.corp.example" => {
                let told = question.told().alias("whole.corp.example", "other.com");
                told.address("other.com", HOST, TTL).negative(TTL).into()
            }
            "cut.corp.example" => question.told().alias("cut.corp.example", "other.com").into(),
            "peer.corp.example" => {
                question.told().alias("peer.corp.example", "db.lab.ts.net").into()
            }
            _ => question.at(&[HOST]).into(),
        });
        let mut lab = Lab::with(
            kind,
            &[&server],
            |_| (),
            |s| {
                s.enforce(&["corp.example"]);
            },
        );
        for inbound in Inbound::NAMED {
            lab.gateway.assert_refused(inbound, "other.com:80", "denied");
        }
        assert_eq!(server.questions().len(), 0, "a denied name is asked of nobody (I5)");
        for name in ["whole.corp.example", "cut.corp.example"] {
            let line = lab.reaches(Inbound::Connect, name, "split", HOST);
            assert_eq!(line["host"], name);
        }
        assert_eq!(server.asked("other.com"), 2, "the end of a chain, asked of the same server");
        let told = lab.explain("peer.corp.example:80");
        assert_eq!(told["dns"]["addresses"], json!([PEER, "fd7a:115c:a1e0::1"]), "{told}");
        assert_eq!(server.asked("db.lab.ts.net"), 0, "that one is known");
        lab.gateway.settle_and_check(6);
    });
}
