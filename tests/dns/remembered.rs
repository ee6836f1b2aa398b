//! D7, V9: how long an answer counts, and how many are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::lab::{HOST, Lab, both_ways};
use tailrace_rig::nameserver::NXDOMAIN;
use tailrace_rig::wait::{eventually, pause};
use tailrace_rig::{Inbound, Nameserver};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn d7_a_time_to_live_of_nought_is_one_second_and_of_two_to_the_thirty_one_is_long() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| {
            let ttl = if question.label() == "nought" { 0 } else { 1 << 31 };
            question.told().address(&question.name, HOST, ttl).into()
        });
        let mut lab = Lab::of(kind, &[&server]);
        let begun = Instant::now();
        for (name, asked) in [("nought.corp.example", 2), ("ages.corp.example", 2)] {
            lab.reaches(Inbound::Socks5, name, "split", HOST);
            if begun.elapsed() < SECOND {
                lab.reaches(Inbound::Socks5, name, "cache", HOST);
            }
            assert_eq!(server.asked(name), asked, "{name}");
        }
        pause((SECOND + SECOND / 10).saturating_sub(begun.elapsed()));
        lab.reaches(Inbound::Socks5, "nought.corp.example", "split", HOST);
        lab.reaches(Inbound::Socks5, "ages.corp.example", "cache", HOST);
        assert_eq!(
            (server.asked("nought.corp.example"), server.asked("ages.corp.example")),
            (4, 2)
        );
        let ok = lab.count("split", "ok") + lab.count("cache", "ok");
        assert_eq!((lab.count("split", "ok"), ok), (3, lab.counts()));
        lab.gateway.settle_and_check(ok);
    });
}

#[test]
fn d7_no_such_name_is_remembered_for_five_seconds_at_most() {
    let there = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&there);
    let server = Nameserver::start(move |question| match now.load(Ordering::SeqCst) {
        true => question.at(&[HOST]).into(),
        false => question.code(NXDOMAIN).negative(3600).into(),
    });
    let lab = Lab::of("tailscaled", &[&server]);
    lab.refuses(Inbound::Socks5, "late.corp.example", "dns_error", "split");
    let begun = Instant::now();
    there.store(true, Ordering::SeqCst);
    lab.refuses(Inbound::Socks5, "late.corp.example", "dns_error", "split");
    assert_eq!(server.asked("late.corp.example"), 2, "the second time it was remembered");
    eventually("the new name is seen", 6 * SECOND, || {
        lab.explain("late.corp.example:80")["dns"]["addresses"][0] == HOST
    });
    let took = begun.elapsed();
    assert!((4 * SECOND..5 * SECOND + SECOND / 2).contains(&took), "{took:?}");
}

#[test]
fn d7_no_more_answers_are_kept_than_set() {
    let server = Nameserver::at(&[HOST]);
    let lab = Lab::with(
        "tailscaled",
        &[&server],
        |_| (),
        |s| {
            s.set("dns.cache_entries", 8);
        },
    );
    let name = |n: usize| format!("n{n}.corp.example");
    for n in 0..40 {
        lab.reaches(Inbound::Socks5, &name(n), "split", HOST);
    }
    lab.reaches(Inbound::Socks5, &name(0), "split", HOST);
    assert_eq!(server.asked(&name(0)), 4, "the oldest was forgotten");
    lab.reaches(Inbound::Socks5, &name(39), "cache", HOST);
}

#[test]
fn v9_after_a_pause_names_are_asked_anew_and_one_line_says_so() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| {
            question.told().address(&question.name, HOST, 3600).into()
        });
        let mut lab = Lab::of(kind, &[&server]);
        lab.reaches(Inbound::Socks5, "ages.corp.example", "split", HOST);
        lab.reaches(Inbound::Socks5, "ages.corp.example", "cache", HOST);
        let all = [lab.gateway.pid(), lab.tailnet.pid()];
        let signal = |signal| {
            for process in all {
                let process = Pid::from_raw(process.cast_signed()).unwrap();
                kill_process(process, signal).unwrap();
            }
        };
        signal(Signal::STOP);
        pause(5 * SECOND);
        signal(Signal::CONT);
        let resumed = Instant::now();
        lab.gateway.wait_for_log(|line| {
            let said = line["message"].as_str().unwrap_or_default();
            said.contains("was paused") && line["seconds"].as_u64() >= Some(3)
        });
        let before = server.asked("ages.corp.example");
        lab.reaches(Inbound::Socks5, "ages.corp.example", "split", HOST);
        assert!(server.asked("ages.corp.example") > before, "what was remembered is forgotten");
        assert!(resumed.elapsed() < 5 * SECOND, "{:?}", resumed.elapsed());
        assert_eq!(lab.tailnet.starts().len(), 1, "nobody takes it for one that hangs");
        lab.gateway.settle_and_check(3);
    });
}
