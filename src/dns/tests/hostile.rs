//! Nameservers that mean harm (docs/requirements.md, D4): ignored, or an error, and cheap.
#![forbid(unsafe_code)]

use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::scripted_nameserver::{DnsReply, Standin, addresses, asked, empty};
use super::{Lab, found, zone};
use crate::labels::{DnsResult, DnsRoute};

/// CPU for one, judged at five times 50 ms together with everything else the test does.
const CHEAP: Duration = Duration::from_millis(5 * 50);

/// Processor time of this thread, which has the whole test.
fn spent() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

fn good(question: &Message) -> Message {
    addresses(question, &["10.0.0.1"])
}

/// A wire message whose answer's name points at itself, or at the pointer before it.
fn pointer_loop(question: &Message) -> Vec<u8> {
    let mut bytes = empty(question).to_vec().unwrap();
    bytes[6..8].copy_from_slice(&2u16.to_be_bytes());
    let at = u16::try_from(bytes.len()).unwrap();
    for target in [at, at] {
        bytes.extend((0xc000 | target).to_be_bytes());
        bytes.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1]);
    }
    bytes
}

/// An address record padded by others' to the longest message there is.
fn longest(question: &Message) -> Vec<u8> {
    let mut bytes = empty(question).to_vec().unwrap();
    let (room, mut records) = (usize::from(u16::MAX), 0u16);
    while bytes.len() + 16 <= room {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0]);
        bytes.extend(records.to_be_bytes());
        records += 1;
    }
    bytes[6..8].copy_from_slice(&records.to_be_bytes());
    bytes.resize(room, 0);
    bytes
}

fn chain(question: &Message) -> Message {
    let mut answer = empty(question);
    let mut from = question.queries[0].name().clone();
    for n in 0..500 {
        let to = Name::from_ascii(format!("n{n}.corp.example.")).unwrap();
        answer.add_answer(Record::from_rdata(from, 60, RData::CNAME(CNAME(to.clone()))));
        from = to;
    }
    answer
}

fn changed(question: &Message, change: impl FnOnce(&mut Message)) -> Message {
    let mut answer = good(question);
    change(&mut answer);
    answer
}

fn hostile(question: &Message) -> Vec<DnsReply> {
    let other = Name::from_ascii("other.corp.example.").unwrap();
    let say = |change: &dyn Fn(&mut Message)| vec![DnsReply::Say(changed(question, |m| change(m)))];
    match asked(question).split('.').next().unwrap() {
        "garbage" => vec![DnsReply::Bytes(vec![0xff; 700])],
        "hollow" => vec![DnsReply::Bytes(Vec::new())],
        "id" => say(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
        "qr" => say(&|m| m.metadata.message_type = MessageType::Query),
        "question" => say(&|m| m.queries = vec![Query::query(other.clone(), RecordType::A)]),
        "none" => say(&|m| m.queries.clear()),
        "tc" => say(&|m| m.metadata.truncation = true),
        "loop" => vec![DnsReply::Bytes(pointer_loop(question))],
        "long" => vec![DnsReply::Bytes(longest(question))],
        "chain" => vec![DnsReply::Say(chain(question))],
        _ => vec![DnsReply::Say(good(question))],
    }
}

#[tokio::test]
async fn d4_nonsense_is_passed_over_until_the_answer_comes() {
    for nonsense in ["garbage", "id", "qr", "question", "none", "loop"] {
        let server = Standin::new(|question| {
            let mut replies = hostile(question);
            replies.push(DnsReply::Say(good(question)));
            replies
        });
        let server = server.await;
        let lab = Lab::new(&[&server]);
        let name = format!("{nonsense}.corp.example");
        assert_eq!(lab.ask(&name).await, found(&["10.0.0.1"], DnsRoute::Split), "{nonsense}");
        assert_eq!(server.connections(), 1, "{nonsense}");
    }
}

#[tokio::test]
async fn d4_nonsense_alone_is_no_answer() {
    let server = Standin::new(hostile).await;
    let lab = Lab::of(zone(1), &[&server], Duration::from_millis(150));
    for nonsense in ["garbage", "id", "qr", "question", "none", "loop"] {
        let error = lab.ask(&format!("{nonsense}.corp.example")).await.unwrap_err();
        assert_eq!(error.result(), DnsResult::Timeout, "{nonsense}: {error}");
    }
    let error = lab.ask("hollow.corp.example").await.unwrap_err();
    assert_eq!(error.result(), DnsResult::Error, "an empty message ends the connection: {error}");
}

#[tokio::test]
async fn d4_long_answers_and_long_chains_are_cheap() {
    let server = Standin::new(hostile).await;
    let lab = Lab::new(&[&server]);
    let before = spent();
    let (long, by) = lab.ask("long.corp.example").await.unwrap();
    assert!(long.len() == 64 && by == DnsRoute::Split, "{} addresses by {by}", long.len());
    assert!(spent() - before < CHEAP, "{:?}", spent() - before);
    let before = spent();
    let error = lab.ask("chain.corp.example").await.unwrap_err();
    assert!(error.to_string().contains("aliases in a row"), "{error}");
    assert!(spent() - before < CHEAP, "{:?}", spent() - before);
}

#[tokio::test]
async fn d5_a_truncated_answer_counts_as_a_failure() {
    let (cut, whole) =
        (Standin::new(hostile).await, Standin::new(|question| vec![DnsReply::Say(good(question))]));
    let whole = whole.await;
    let lab = Lab::new(&[&cut, &whole]);
    assert_eq!(lab.ask("tc.corp.example").await, found(&["10.0.0.1"], DnsRoute::Split));
    let error = Lab::new(&[&cut]).ask("tc.corp.example").await.unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}
