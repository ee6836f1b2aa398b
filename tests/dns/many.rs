//! D3 and D10: hundreds who ask at the same time.

use std::time::{Duration, Instant};

use super::lab::{HOST, Lab, both_ways};
use tailrace_rig::client::socks5_request;
use tailrace_rig::fake_tailnet::script::{Answer, Script};
use tailrace_rig::nameserver::NameserverAction;
use tailrace_rig::wait::{PATIENCE, assert_within, eventually};
use tailrace_rig::{ConnectionEnd, Gateway, Inbound, Latch, Nameserver, RawConnection, Setup};

const REFUSING: &str = "10.50.0.9";

/// Clients that have asked over SOCKS5 and wait.
pub struct Crowd(Vec<RawConnection>, Instant);

impl Crowd {
    /// One for each name. They all are inside when this returns.
    #[track_caller]
    pub fn asks(gateway: &Gateway, names: impl Iterator<Item = String>) -> Crowd {
        let begun = Instant::now();
        let ask = |name: String| {
            let mut wire = RawConnection::dial(gateway.proxy());
            wire.send([&[5, 1, 0][..], &socks5_request(&name, 80)].concat());
            wire
        };
        let crowd = Crowd(names.map(ask).collect(), begun);
        eventually("all are inside", PATIENCE, || {
            let active = gateway.metrics().value("tailrace_connections_active", &[]);
            active as usize == crowd.0.len()
        });
        crowd
    }

    /// Each is told this REP, then FIN; how long the last one waited.
    #[track_caller]
    pub fn told(self, rep: u8) -> Duration {
        for mut wire in self.0 {
            wire.expect([5, 0]);
            assert_eq!(wire.socks5_reply().rep, rep);
            wire.expect_end(ConnectionEnd::Fin);
        }
        self.1.elapsed()
    }
}

/// What is set where hundreds wait in vain.
pub const TIMEOUT: Duration = Duration::from_millis(1500);
/// That, and what six hundred refusals cost on a slow machine. Sixty-four at a time they would wait for nine
/// times [`TIMEOUT`].
pub const AFTER_ALL: Duration = Duration::from_secs(8);

/// Sets it.
pub fn impatient(setup: &mut Setup) {
    setup.set("dns.timeout", format!("{}ms", TIMEOUT.as_millis()));
}

/// How long they wait where something else is to be over before the first of them is told.
const PATIENT: Duration = Duration::from_secs(6);

fn patient(setup: &mut Setup) {
    setup.set("dns.timeout", format!("{}s", PATIENT.as_secs()));
}

fn refusing(script: &mut Script) {
    script.answers.insert(REFUSING.to_owned(), Answer::Refused);
}

#[test]
fn d3_six_hundred_who_wait_do_not_delay_a_remembered_name() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| match question.label() {
            "known" => question.at(&[HOST]).into(),
            _ => NameserverAction::Silence,
        });
        let mut lab = Lab::with(kind, &[&server], |_| (), patient);
        lab.reaches(Inbound::Socks5, "known.corp.example", "split", HOST);
        let crowd = Crowd::asks(&lab.gateway, (0..600).map(|n| format!("n{n}.corp.example")));
        server.wait_asked(2 + 128);
        // The crowd waits for `dns.timeout`: a name that waited for any of it would come after one of them.
        lab.reaches(Inbound::Socks5, "known.corp.example", "cache", HOST);
        assert_eq!(
            lab.count("split", "timeout"),
            0,
            "the remembered name did not wait for the crowd"
        );
        let took = crowd.told(4);
        // Sixty-four at a time they would wait for nine times as long.
        assert!(took < 5 * PATIENT, "{took:?}");
        assert_eq!((lab.count("split", "timeout"), lab.count("cache", "ok")), (600, 1));
        lab.gateway.settle_and_check(602);
        let late =
            lab.gateway.access_lines().iter().filter(|l| l["outcome"] == "dns_timeout").count();
        assert_eq!(late, 600);
    });
}

/// A thousand dials in one moment fill the listen queue of the port they go to, and the first to ask wait until
/// the last has come; here questions count.
fn crowded(setup: &mut Setup) {
    setup.set("upstream.local_timeout", "20s").set("upstream.connect_timeout", "20s");
    setup.set("dns.timeout", "20s");
}

#[test]
fn d10_a_thousand_look_ups_of_one_name_are_one_question() {
    both_ways(|kind| {
        let gate = Latch::new();
        let held = gate.clone();
        let server = Nameserver::start(move |question| {
            NameserverAction::When(held.clone(), Box::new(question.at(&[REFUSING]).into()))
        });
        let mut lab = Lab::with(kind, &[&server], refusing, crowded);
        let crowd = Crowd::asks(&lab.gateway, (0..1000).map(|_| "db.corp.example".to_owned()));
        gate.open();
        crowd.told(5);
        assert_eq!(server.questions().len(), 2, "one of each type");
        assert_eq!((server.connections(), lab.dialled().len()), (1, 1000));
        assert_eq!(lab.count("split", "ok") + lab.count("cache", "ok"), 1000);
        lab.gateway.settle_and_check(1000);
    });
}

#[test]
fn d10_of_a_thousand_names_sixty_four_are_asked_at_a_time() {
    let gate = Latch::new();
    let held = gate.clone();
    let server = Nameserver::start(move |question| {
        NameserverAction::When(held.clone(), Box::new(question.at(&[REFUSING]).into()))
    });
    let mut lab = Lab::with("tailscaled", &[&server], refusing, crowded);
    let crowd = Crowd::asks(&lab.gateway, (0..1000).map(|n| format!("n{n}.corp.example")));
    server.wait_asked(128);
    gate.open();
    crowd.told(5);
    assert_eq!((server.questions().len(), server.most_unanswered()), (2000, 64));
    assert_eq!(lab.count("split", "ok"), 1000);
    // A second one where this machine took a second to let them all in: the first is silent then.
    assert!((1..=2).contains(&server.connections()), "{}", server.connections());
    lab.gateway.settle_and_check(1000);
}

#[test]
fn d10_a_dead_nameserver_holds_up_no_other_domain() {
    let (dead, alive) = (Nameserver::silent(), Nameserver::at(&[HOST]));
    let change = |script: &mut Script| {
        script.dns["Routes"]["lab.example"] = super::lab::servers(&["10.50.0.54"]);
        script.places.insert("10.50.0.54:53".to_owned(), alive.address());
    };
    let lab = Lab::with("tailscaled", &[&dead], change, |_| ());
    let crowd = Crowd::asks(&lab.gateway, (0..200).map(|n| format!("n{n}.corp.example")));
    let begun = Instant::now();
    lab.reaches(Inbound::Socks5, "db.lab.example", "split", HOST);
    assert_within("another domain", begun.elapsed(), Duration::from_millis(100));
    drop(crowd);
}

#[test]
fn u14_who_leaves_while_a_name_is_asked_leaves_nothing_behind() {
    both_ways(|kind| {
        let server = Nameserver::silent();
        let mut lab = Lab::of(kind, &[&server]);
        let crowd = Crowd::asks(&lab.gateway, (0..100).map(|n| format!("n{n}.corp.example")));
        server.wait_asked(128);
        drop(crowd);
        eventually("the question is dropped", Duration::from_secs(1) * 5, || server.open() == 0);
        lab.gateway.settle_and_check(100);
        assert_eq!(lab.gateway.count("client_gone"), 100);
    });
}
