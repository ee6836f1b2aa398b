//! D4 and D5: nameservers that mean harm, and answers that are cut short.

use std::time::Duration;

use super::lab::{HOST, Lab, both_ways};
use tailrace_rig::nameserver::{DnsAnswer, NameserverAction, QR, ReceivedQuestion, TC, TTL};
use tailrace_rig::{Inbound, Nameserver};

/// CPU for one, in 10 ms ticks: 50 ms, judged at five times that.
const CHEAP: Duration = Duration::from_millis(5 * 50);
/// Longest DNS message.
const LONGEST: usize = 65_535;

/// Nonsense that is passed over: what follows it counts.
const IGNORED: [&str; 6] = ["garbage", "id", "qr", "question", "none", "loop"];

/// The one message that this name's first label asks for.
fn hostile(question: &ReceivedQuestion) -> Vec<u8> {
    let good = || question.at(&[HOST]);
    let changed = |change: &dyn Fn(&mut DnsAnswer)| {
        let mut told = good();
        change(&mut told);
        told.bytes()
    };
    match question.label() {
        "garbage" => vec![0xff; 700],
        "hollow" => Vec::new(),
        "half" => good().bytes()[..20].to_vec(),
        "id" => changed(&|told| told.id = told.id.wrapping_add(1)),
        "qr" => changed(&|told| told.flags &= !QR),
        "question" => changed(&|told| told.question = other_question(question)),
        "none" => changed(&|told| told.question.clear()),
        "tc" => changed(&|told| told.flags |= TC),
        "loop" => pointer_loop(question),
        "long" => longest(question),
        "chain" => chain(question).bytes(),
        _ => good().bytes(),
    }
}

fn other_question(question: &ReceivedQuestion) -> Vec<u8> {
    let kind = question.kind.to_be_bytes();
    [&b"\x05other\x04corp\x07example\0"[..], &kind, &[0, 1]].concat()
}

/// A record whose name points at itself.
fn pointer_loop(question: &ReceivedQuestion) -> Vec<u8> {
    let mut bytes = question.told().bytes();
    bytes[7] = 1;
    let at = bytes.len() as u16;
    bytes.extend((0xc000 | at).to_be_bytes());
    bytes.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 50, 0, 7]);
    bytes
}

/// As many addresses as a message holds, the good one first.
fn longest(question: &ReceivedQuestion) -> Vec<u8> {
    let mut bytes = question.told().bytes();
    let mut records = 0u16;
    while bytes.len() + 16 <= LONGEST {
        let last = if records == 0 { [0, 7] } else { (records | 0x100).to_be_bytes() };
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 50]);
        bytes.extend(last);
        records += 1;
    }
    bytes[6..8].copy_from_slice(&records.to_be_bytes());
    bytes.resize(LONGEST, 0);
    bytes
}

fn chain(question: &ReceivedQuestion) -> DnsAnswer {
    let name = |n: usize| format!("n{n}.corp.example");
    let told = question.told().alias(&question.name, &name(0));
    (0..499).fold(told, |told, n| told.alias(&name(n), &name(n + 1)))
}

#[test]
fn d4_nonsense_is_passed_over_and_the_answer_behind_it_counts() {
    both_ways(|kind| {
        let server = Nameserver::start(|question| {
            NameserverAction::Bytes(vec![hostile(question), question.at(&[HOST]).bytes()])
        });
        let mut lab = Lab::of(kind, &[&server]);
        for nonsense in IGNORED {
            lab.reaches(Inbound::Socks5, &format!("{nonsense}.corp.example"), "split", HOST);
        }
        lab.gateway.settle_and_check(IGNORED.len() as u64);
    });
}

#[test]
fn d4_nonsense_alone_is_no_answer_and_costs_next_to_nothing() {
    let cases = IGNORED.map(|case| (case, "dns_timeout"));
    let broken = [("hollow", "dns_error"), ("half", "dns_timeout"), ("chain", "dns_error")];
    both_ways(|kind| {
        let server = Nameserver::start(|question| NameserverAction::Bytes(vec![hostile(question)]));
        let mut lab = Lab::with(
            kind,
            &[&server],
            |_| (),
            |s| {
                s.set("dns.timeout", "250ms");
            },
        );
        let mut asked = 0;
        for (nonsense, outcome) in cases.into_iter().chain(broken) {
            let before = lab.gateway.cpu_time();
            let line =
                lab.refuses(Inbound::Socks5, &format!("{nonsense}.corp.example"), outcome, "split");
            let used = lab.gateway.cpu_time() - before;
            assert!(used < CHEAP, "{nonsense}: {used:?} {line}");
            asked += 1;
        }
        assert!(lab.dialled().is_empty(), "{:?}", lab.dialled());
        assert_eq!((lab.count("split", "timeout"), lab.count("split", "error")), (7, 2));
        lab.gateway.settle_and_check(asked);
    });
}

#[test]
fn d4_the_longest_answer_there_is_is_taken_at_little_cost() {
    let server = Nameserver::start(|question| NameserverAction::Bytes(vec![hostile(question)]));
    let mut lab = Lab::of("tailscaled", &[&server]);
    let before = lab.gateway.cpu_time();
    lab.reaches(Inbound::Socks5, "long.corp.example", "split", HOST);
    let used = lab.gateway.cpu_time() - before;
    assert!(used < CHEAP, "{used:?}");
    let told = lab.explain("long.corp.example:80");
    assert_eq!(told["addresses"].as_array().unwrap().len(), 64, "no more are kept");
    lab.gateway.settle_and_check(1);
}

#[test]
fn d5_a_truncated_answer_over_tcp_is_a_failure_and_the_next_server_is_asked() {
    both_ways(|kind| {
        let cut = Nameserver::start(|question| NameserverAction::Bytes(vec![hostile(question)]));
        let whole = Nameserver::start(|question| match question.name.as_str() {
            "tc.corp.example" => question.told().address(&question.name, HOST, TTL).into(),
            _ => NameserverAction::Close,
        });
        let mut lab = Lab::of(kind, &[&cut, &whole]);
        lab.reaches(Inbound::Socks5, "tc.corp.example", "split", HOST);
        assert_eq!((cut.asked("tc.corp.example"), whole.asked("tc.corp.example")), (2, 2));
        lab.gateway.settle_and_check(1);
        let alone = Lab::of(kind, &[&cut]);
        let said = alone.sentence("tc.corp.example", "dns_error");
        assert!(said.contains("100.64.0.1: its answer is cut short"), "{said}");
    });
}
