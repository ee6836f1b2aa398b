//! D6: which of a name's addresses is dialled, and when.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::lab::{HOST, HOST_V6, Lab, both_ways};
use tailrace_rig::fake_tailnet::script::{Answer, Script};
use tailrace_rig::wait::bound;
use tailrace_rig::{Inbound, Nameserver};

/// What a dead first address may cost.
const EXTRA: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(7);

fn silent(addresses: &[&str]) -> impl FnOnce(&mut Script) {
    let dead: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    move |script| script.answers.extend(dead.into_iter().map(|a| (a, Answer::Silent)))
}

#[test]
fn d6_one_family_is_enough() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| match question.label() {
            "four" => question.at(&[HOST]).into(),
            "six" => question.at(&[HOST_V6]).into(),
            _ => question.at(&[HOST_V6, HOST]).into(),
        });
        let mut lab = Lab::of(kind, &[&server]);
        lab.reaches(Inbound::Socks5, "four.corp.example", "split", HOST);
        lab.reaches(Inbound::Socks5, "six.corp.example", "split", HOST_V6);
        lab.reaches(Inbound::Socks5, "both.corp.example", "split", HOST);
        assert_eq!(lab.dialled(), ["10.50.0.7:80", "fd7a:115c:a1e0::1:80", "10.50.0.7:80"]);
        lab.gateway.settle_and_check(3);
    });
}

#[test]
fn d6_a_dead_first_address_costs_three_hundred_milliseconds() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| match question.label() {
            "dead" => question.at(&["10.50.0.8", HOST]).into(),
            "refused" => question.at(&["10.50.0.9", HOST]).into(),
            _ => question.at(&["10.50.0.8", HOST_V6]).into(),
        });
        let change = |script: &mut Script| {
            silent(&["10.50.0.8"])(script);
            script.answers.insert("10.50.0.9".to_owned(), Answer::Refused);
        };
        let mut lab = Lab::with(kind, &[&server], change, |_| ());
        for (name, address) in [("dead", HOST), ("v4dead", HOST_V6), ("refused", HOST)] {
            let begun = Instant::now();
            lab.reaches(Inbound::Socks5, &format!("{name}.corp.example"), "split", address);
            assert!(begun.elapsed() < bound(EXTRA), "{name}: {:?}", begun.elapsed());
        }
        lab.gateway.settle_and_check(3);
    });
}

/// `10.50.1.1` to `10.50.1.40`, which are dead, then [`HOST`].
fn many() -> Vec<String> {
    let dead = (1..=40).map(|n| format!("10.50.1.{n}"));
    dead.chain([HOST.to_owned()]).collect()
}

#[test]
fn d6_all_addresses_are_tried_within_seven_seconds() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| {
            let all = many();
            question.at(&all.iter().map(String::as_str).collect::<Vec<_>>()).into()
        });
        let all = many();
        let dead: Vec<&str> = all[..40].iter().map(String::as_str).collect();
        let lab = Lab::with(kind, &[&server], silent(&dead), |_| ());
        let begun = Instant::now();
        lab.reaches(Inbound::Socks5, "many.corp.example", "split", HOST);
        assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}", begun.elapsed());
        let mut wanted = String::new();
        all.iter().for_each(|ip| write!(wanted, "{ip}:80 ").unwrap());
        assert_eq!(lab.dialled().join(" "), wanted.trim_end());
    });
}

#[test]
fn d6_all_addresses_dead_is_connect_timeout_when_the_time_is_up() {
    both_ways(|kind| {
        let server = Nameserver::at(&["10.50.0.8", "10.50.0.9"]);
        let dead = silent(&["10.50.0.8", "10.50.0.9"]);
        let mut lab = Lab::with(kind, &[&server], dead, |s| {
            s.set("upstream.connect_timeout", "2s");
        });
        let begun = Instant::now();
        lab.refuses(Inbound::Socks5, "dead.corp.example", "connect_timeout", "split");
        let took = begun.elapsed();
        let allowed = Duration::from_millis(1950)..Duration::from_millis(2500);
        assert!(allowed.contains(&took), "{took:?}");
        assert_eq!(lab.dialled(), ["10.50.0.8:80", "10.50.0.9:80"]);
        lab.gateway.settle_and_check(1);
    });
}
