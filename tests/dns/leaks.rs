//! D9: no internal name ever reaches this host's resolver, whatever fails.

use std::time::Duration;

use serde_json::json;

use super::lab::{HOST, INSIDE, Lab, both_ways, servers, tailnet};
use super::routes::OUTSIDE;
use rustix::process::Signal;
use tailrace_rig::fake_tailnet::script::{Login, Script, State};
use tailrace_rig::nameserver::{NameserverAction, SERVFAIL};
use tailrace_rig::system_nameserver::Record;
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, timed};
use tailrace_rig::{
    ClosedPort, Gateway, HttpOrigin, Inbound, Nameserver, SystemNameserver, fetch, netns,
};

/// The only name that may be asked outside.
const PUBLIC: &str = "www.public.example";
/// A search domain would show a bare name that was asked as it stands.
const CONF: &str = "search public.example\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
const AT_ONCE: Duration = Duration::from_millis(50);

/// Internal, every one in another way; none has an address.
const NOWHERE: [(&str, &str); 5] = [
    ("nobody.lab.ts.net", "magicdns"),
    ("db.gone.lab.ts.net", "magicdns"),
    ("lab.ts.net", "magicdns"),
    ("db.closed.example", "magicdns"),
    ("db.odd.example", "split"),
];

/// This host's resolver, which says of every name that it is [`OUTSIDE`].
fn host_resolver() -> SystemNameserver {
    SystemNameserver::take_over_with(
        CONF,
        [Record { alias: None, address: OUTSIDE.parse().unwrap() }],
    )
}

/// Further routes: one without nameservers, one whose nameserver is not asked.
fn routes(script: &mut Script) {
    script.dns["Routes"]["closed.example"] = json!([]);
    script.dns["Routes"]["odd.example."] = servers(&["tls://100.64.0.1"]);
}

/// The public host is there for a gateway that dials it itself, too.
fn lead_out(origin: &HttpOrigin) {
    netns::add_route("192.0.2.0/24");
    netns::redirect("192.0.2.0/24", origin.address().port());
}

/// The host's resolver hears of the public name, and of no other, ever.
#[track_caller]
fn only_the_public_name(gateway: &Gateway, dns: &SystemNameserver) {
    let before = dns.questions().len();
    let target = format!("{PUBLIC}:80");
    assert_eq!(fetch(gateway.proxy(), Inbound::Socks5, &target).body, b"found");
    let asked = dns.questions();
    assert!(asked.len() > before && asked.iter().all(|(name, _)| name == PUBLIC), "{asked:?}");
}

/// A nameserver with this fault, and how a name of its domain ends.
fn faulty(what: &str) -> (Nameserver, &'static str) {
    match what {
        "silent" => (Nameserver::silent(), "dns_timeout"),
        "servfail" => (Nameserver::saying(SERVFAIL), "dns_error"),
        "nothing" => (Nameserver::start(|question| question.told().into()), "dns_error"),
        "garbage" => {
            (Nameserver::start(|_| NameserverAction::Bytes(vec![vec![7; 99]])), "dns_timeout")
        }
        _ => (Nameserver::start(|_| NameserverAction::Close), "dns_error"),
    }
}

#[test]
fn d9_no_internal_name_leaves_whatever_its_nameserver_does() {
    netns::inside(|| {
        let origin = HttpOrigin::ok("found");
        let closed = ClosedPort::new();
        let dns = host_resolver();
        lead_out(&origin);
        both_ways(|kind| {
            for what in ["down", "silent", "servfail", "nothing", "garbage", "closed"] {
                let (server, outcome) = faulty(what);
                let change = |script: &mut Script| {
                    routes(script);
                    script.places.insert(OUTSIDE.to_owned(), origin.address());
                    if what == "down" {
                        script.places.insert(format!("{}:53", INSIDE[0]), closed.address());
                    }
                };
                let lab = Lab::with(kind, &[&server], change, |s| {
                    s.set("dns.timeout", "250ms");
                });
                lab.refuses(Inbound::Socks5, "db.corp.example", outcome, "split");
                lab.refuses(Inbound::Connect, "corp.example", outcome, "split");
                for (name, by) in NOWHERE {
                    lab.refuses(Inbound::Socks5, name, "dns_error", by);
                }
                only_the_public_name(&lab.gateway, &dns);
            }
        });
    });
}

#[test]
fn d9_nothing_is_asked_while_tailscaled_is_not_running() {
    netns::inside(|| {
        let dns = host_resolver();
        let origin = HttpOrigin::ok("found");
        let server = Nameserver::at(&[HOST]);
        let place = |script: &mut Script| {
            script.places.insert(OUTSIDE.to_owned(), origin.address());
        };
        let mut lab = Lab::with("tailscaled", &[&server], place, |_| ());
        let mut asked = 0;
        for state in [State::NeedsLogin, State::Stopped, State::NeedsMachineAuth, State::Starting] {
            lab.tailnet.become_state(state);
            eventually("it is not ready", PATIENCE, || lab.gateway.not_ready().is_some());
            for name in ["db.corp.example", "db.lab.ts.net", "db", PUBLIC] {
                let target = format!("{name}:80");
                let ask = || lab.gateway.assert_refused(Inbound::Socks5, &target, "upstream_down");
                assert_within("the refusal", timed(ask).1, AT_ONCE);
                asked += 1;
            }
            lab.tailnet.become_state(State::Running);
            lab.gateway.wait_ready();
        }
        lab.tailnet.login(Login::Never);
        lab.tailnet.kill(Signal::KILL);
        eventually("it is not ready", PATIENCE, || lab.gateway.not_ready().is_some());
        for name in ["db.corp.example", "db", PUBLIC] {
            lab.gateway.assert_refused(Inbound::Connect, &format!("{name}:80"), "upstream_down");
            asked += 1;
        }
        assert_eq!((server.questions(), lab.counts()), (Vec::new(), 0));
        lab.tailnet.login(Login::Runs(Duration::ZERO));
        lab.gateway.wait_ready();
        only_the_public_name(&lab.gateway, &dns);
        lab.reaches(Inbound::Socks5, "db.corp.example", "split", HOST);
        lab.gateway.settle_and_check(asked + 2);
    });
}

#[test]
fn d9_before_the_first_login_a_name_is_held_and_never_asked_outside() {
    const NAMES: [&str; 3] = ["db.corp.example", "db.lab.ts.net", "db"];
    netns::inside(|| {
        let (origin, server) = (HttpOrigin::ok("found"), Nameserver::at(&[HOST]));
        let dns = host_resolver();
        lead_out(&origin);
        both_ways(|kind| {
            let tailnet = tailnet(&[&server], origin.address());
            tailnet.change(|script| {
                script.login = Login::Never;
                script.places.insert("100.64.0.1".to_owned(), origin.address());
                script.places.insert(OUTSIDE.to_owned(), origin.address());
            });
            let hasty = Gateway::start(|s| {
                s.managed(&tailnet).set("upstream.kind", kind).set("tailnet.ready_wait", "300ms");
            });
            tailnet.wait_start(1);
            for name in NAMES {
                hasty.assert_refused(Inbound::Socks5, &format!("{name}:80"), "upstream_down");
            }
            assert_eq!(tailnet.asked(), [""; 0]);
            drop(hasty);
            let mut gateway = Gateway::start(|s| {
                s.managed(&tailnet).set("upstream.kind", kind);
            });
            std::thread::scope(|scope| {
                for name in NAMES {
                    let proxy = gateway.proxy();
                    let ask = move || fetch(proxy, Inbound::Connect, &format!("{name}:80"));
                    scope.spawn(move || assert_eq!(ask().body, b"found", "{name}"));
                }
                eventually("all wait", PATIENCE, || {
                    gateway.metrics().value("tailrace_connections_active", &[]) == 3.0
                });
                tailnet.login(Login::Runs(Duration::ZERO));
            });
            gateway.wait_ready();
            only_the_public_name(&gateway, &dns);
            gateway.settle_and_check(4);
        });
    });
}
