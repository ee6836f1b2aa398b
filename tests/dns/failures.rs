//! D1 to D3: no such name, nameservers that fail, and nameservers that say nothing.

use std::time::{Duration, Instant};

use super::lab::{HOST, INSIDE, Lab, both_ways, servers};
use tailrace_rig::fake_tailnet::script::Script;
use tailrace_rig::nameserver::{NXDOMAIN, NameserverAction, REFUSED, SERVFAIL};
use tailrace_rig::wait::{assert_within, eventually, timed};
use tailrace_rig::{ClosedPort, Inbound, Nameserver};

const AFTER_THE_ANSWER: Duration = Duration::from_millis(100);

#[test]
fn d1_nxdomain_is_dns_error_at_once() {
    both_ways(|kind| {
        let server = Nameserver::saying(NXDOMAIN);
        let mut lab = Lab::of(kind, &[&server]);
        for (n, inbound) in Inbound::NAMED.into_iter().enumerate() {
            let name = format!("nobody{n}.corp.example");
            lab.gateway.assert_refused(inbound, &format!("{name}:80"), "dns_error");
            assert_within("the refusal", server.answered().elapsed(), AFTER_THE_ANSWER);
            assert_eq!(server.asked(&name), 2, "one question of each type");
        }
        let said = lab.sentence("nobody.corp.example", "dns_error");
        let wanted = "nobody.corp.example is unknown to 100.64.0.1: check the spelling, and that \
                      the record exists there";
        assert_eq!(said, wanted);
        assert_eq!((lab.count("split", "nxdomain"), lab.counts()), (5, 5));
        lab.gateway.settle_and_check(5);
        let lines = lab.gateway.access_lines();
        assert!(lines.iter().all(|l| l["resolved_by"] == "split"));
        assert!(lab.dialled().is_empty(), "{:?}", lab.dialled());
    });
}

#[test]
fn d1_a_name_without_an_address_is_not_found_either() {
    let server = Nameserver::start(|question| question.told().into());
    let lab = Lab::of("tailscaled", &[&server]);
    lab.refuses(Inbound::Socks5, "empty.corp.example", "dns_error", "split");
    assert_eq!(lab.count("split", "nxdomain"), 1);
}

#[test]
fn d2_the_next_server_is_asked_once_after_a_failure() {
    both_ways(|kind| {
        let bad = [Nameserver::saying(SERVFAIL), Nameserver::saying(REFUSED)];
        let good = Nameserver::at(&[HOST]);
        let refusing = |script: &mut Script| {
            script.dns["Routes"]["other.example"] = servers(&["10.50.0.54", INSIDE[1]]);
            script.places.insert("10.50.0.54:53".to_owned(), bad[1].address());
        };
        let mut lab = Lab::with(kind, &[&bad[0], &good], refusing, |_| ());
        lab.reaches(Inbound::Socks5, "db.corp.example", "split", HOST);
        lab.reaches(Inbound::Socks5, "db.other.example", "split", HOST);
        let asked = bad.each_ref().map(|server| server.questions().len());
        assert_eq!((asked, good.questions().len()), ([2, 2], 4));
        assert_eq!((lab.count("split", "ok"), lab.counts()), (2, 2));
        lab.gateway.settle_and_check(2);
    });
}

#[test]
fn d2_everybody_failing_is_dns_error_with_what_each_said() {
    both_ways(|kind| {
        let (one, two) = (Nameserver::saying(SERVFAIL), Nameserver::saying(REFUSED));
        let mut lab = Lab::of(kind, &[&one, &two]);
        for inbound in Inbound::NAMED {
            lab.refuses(inbound, "db.corp.example", "dns_error", "split");
            assert_within("the refusal", two.answered().elapsed(), AFTER_THE_ANSWER);
        }
        let said = lab.sentence("db.corp.example", "dns_error");
        let wanted = "100.64.0.1, 10.50.0.53 could not say where db.corp.example is (100.64.0.1 \
                      says SERVFAIL; 10.50.0.53 says REFUSED): look at that nameserver; try again";
        assert_eq!(said, wanted);
        assert_eq!(
            (one.questions().len(), two.questions().len()),
            (10, 10),
            "once each, no memory"
        );
        assert_eq!((lab.count("split", "error"), lab.counts()), (5, 5));
        lab.gateway.settle_and_check(5);
    });
}

#[test]
fn d2_a_nameserver_that_is_down_is_passed_over() {
    both_ways(|kind| {
        let (down, good) = (ClosedPort::new(), Nameserver::at(&[HOST]));
        let place = |script: &mut Script| {
            script.places.insert("100.64.0.1:53".to_owned(), down.address());
        };
        let mut lab = Lab::with(kind, &[&good, &good], place, |_| ());
        lab.reaches(Inbound::Socks5, "db.corp.example", "split", HOST);
        good.stop();
        lab.refuses(Inbound::Socks5, "other.corp.example", "dns_error", "split");
        assert_eq!((lab.count("split", "ok"), lab.count("split", "error")), (1, 1));
        lab.gateway.settle_and_check(2);
    });
}

#[test]
fn d2_a_connection_closed_under_the_question_is_made_once_more() {
    let server = Nameserver::start(|question| match question.label() {
        "closed" => NameserverAction::Close,
        _ => question.at(&[HOST]).into(),
    });
    let mut lab = Lab::of("tailscaled", &[&server]);
    lab.refuses(Inbound::Socks5, "closed.corp.example", "dns_error", "split");
    assert!((2..=4).contains(&server.connections()), "{}", server.connections());
    lab.reaches(Inbound::Socks5, "db.corp.example", "split", HOST);
    lab.gateway.settle_and_check(2);
}

#[test]
fn d3_a_silent_server_is_dns_timeout_at_three_seconds() {
    both_ways(|kind| {
        let server = Nameserver::silent();
        let mut lab = Lab::of(kind, &[&server]);
        std::thread::scope(|scope| {
            for (n, inbound) in Inbound::NAMED.into_iter().enumerate() {
                let gateway = &lab.gateway;
                scope.spawn(move || {
                    let target = format!("n{n}.corp.example:80");
                    let (_, took) =
                        timed(|| gateway.assert_refused(inbound, &target, "dns_timeout"));
                    let allowed = Duration::from_millis(2950)..Duration::from_millis(3500);
                    assert!(allowed.contains(&took), "{took:?}");
                });
            }
        });
        assert_eq!((lab.count("split", "timeout"), lab.counts()), (4, 4));
        let lines = lab.gateway.wait_for_access(4);
        assert!(lines.iter().all(|l| l["resolved_by"] == "split"), "{lines:?}");
        eventually("the dead connection is left", Duration::from_secs(2), || server.open() == 0);
        lab.gateway.settle_and_check(4);
    });
}

#[test]
fn d3_the_sentence_of_a_silent_server() {
    let server = Nameserver::silent();
    let lab = Lab::with(
        "tailscaled",
        &[&server],
        |_| (),
        |s| {
            s.set("dns.timeout", "300ms");
        },
    );
    let said = lab.sentence("db.corp.example", "dns_timeout");
    let wanted = "100.64.0.1 did not answer for db.corp.example within 0.3 s: let this node's tag \
                  reach it on port 53 over TCP (ACL grant, subnet route), and see whether it runs";
    assert_eq!(said, wanted);
}

#[test]
fn d3_a_silent_server_does_not_use_up_the_time_of_the_next() {
    both_ways(|kind| {
        let (silent, good) = (Nameserver::silent(), Nameserver::at(&[HOST]));
        let lab = Lab::of(kind, &[&silent, &good]);
        let begun = Instant::now();
        lab.reaches(Inbound::Socks5, "db.corp.example", "split", HOST);
        assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    });
}
