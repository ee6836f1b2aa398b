//! What one DNS message says about a question: addresses, another name, nothing, or nonsense.
//!
//! Whole messages in, no socket touched; hostile ones cost a bounded walk (docs/requirements.md, D4).
#![forbid(unsafe_code)]

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record};

/// Aliases followed, within one message and from message to message.
pub(super) const MOST_ALIASES: usize = 16;
/// Addresses kept of one message, nobody tries more, and records of other types.
const MOST_RECORDS: usize = 64;

/// What a nameserver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AnswerContent {
    /// Here it is. `ttl` is the least of all records on the way, in seconds.
    Addresses { addresses: Vec<IpAddr>, ttl: u32 },
    /// The same of a kind that is no addresses.
    Data { data: Vec<RData>, ttl: u32 },
    /// It is an alias (CNAME), and its end lies outside this message.
    Alias { of: Name, ttl: u32 },
    /// Nothing of this type; `exists` is false when there is no such name at all. `ttl` is that
    /// of RFC 2308 section 5, where the message carries it.
    Nothing { exists: bool, ttl: Option<u32> },
}

/// Why a nameserver was of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ServerFault {
    /// It answered with an error code (RFC 1035 section 4.1.1).
    #[error("{0}")]
    Code(&'static str),
    /// No connection to it.
    #[error("no connection: {0}")]
    Dial(String),
    /// The connection broke, or what came over it was no DNS.
    #[error("connection lost: {0}")]
    Lost(String),
    /// It went silent.
    #[error("no answer")]
    Silent,
    /// It answered what was not asked.
    #[error("its answers belong to another question")]
    Foreign,
    /// A truncated answer, where nothing needs to be.
    #[error("its answer is cut short")]
    Truncated,
    /// Aliases without an end.
    #[error("more than {MOST_ALIASES} aliases in a row")]
    Aliases,
}

/// Whether `message` answers `query`; its id has been compared already.
pub(super) fn answers_query(message: &Message, query: &Query) -> bool {
    message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && matches!(message.queries.as_slice(), [asked] if asked == query)
}

/// What a nameserver says, and the aliases on the way there, in their order.
pub(super) type AnswerRecords = (Vec<Name>, AnswerContent);

/// Reads an answer that belongs to `query`.
pub(super) fn read_answer(message: &Message, query: &Query) -> Result<AnswerRecords, ServerFault> {
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => {
            let nothing = AnswerContent::Nothing { exists: false, ttl: negative_ttl(message) };
            return Ok((Vec::new(), nothing));
        }
        code => return Err(ServerFault::Code(code_name(code))),
    }
    if message.metadata.truncation {
        return Err(ServerFault::Truncated);
    }
    let (mut at, mut ttl) = (query.name(), u32::MAX);
    let mut aliases = Vec::new();
    for _ in 0..=MOST_ALIASES {
        if let Some(said) = records_at(message, query, at, ttl) {
            return Ok((aliases, said));
        }
        let Some((next, its_ttl)) = find_alias(message, at) else {
            return Ok((aliases, negative_or_alias(message, query, at, ttl)));
        };
        (at, ttl) = (next, ttl.min(its_ttl));
        aliases.push(next.clone());
    }
    Err(ServerFault::Aliases)
}

/// A chain of aliases that ends without an address. With an SOA record the nameserver has looked
/// there already (RFC 2308 section 2.2).
fn negative_or_alias(message: &Message, query: &Query, at: &Name, ttl: u32) -> AnswerContent {
    let negative = negative_ttl(message);
    if at == query.name() || negative.is_some() {
        return AnswerContent::Nothing { exists: true, ttl: negative };
    }
    AnswerContent::Alias { of: at.clone(), ttl }
}

/// What was asked for, where it stands at this name.
fn records_at(message: &Message, query: &Query, at: &Name, mut ttl: u32) -> Option<AnswerContent> {
    let wanted = |record: &&Record| record.record_type() == query.query_type();
    let of_name = answer_records(message).filter(wanted).filter(|record| record.name == *at);
    let (mut addresses, mut data) = (Vec::new(), Vec::new());
    for record in of_name.take(MOST_RECORDS) {
        match &record.data {
            RData::A(a) => push_new(&mut addresses, IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => push_new(&mut addresses, IpAddr::V6(aaaa.0).to_canonical()),
            RData::TXT(_) | RData::SRV(_) | RData::MX(_) | RData::PTR(_) => {
                push_new(&mut data, record.data.clone());
            }
            _ => continue,
        }
        ttl = ttl.min(record.ttl);
    }
    match (addresses.is_empty(), data.is_empty()) {
        (false, _) => Some(AnswerContent::Addresses { addresses, ttl }),
        (true, false) => Some(AnswerContent::Data { data, ttl }),
        (true, true) => None,
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn find_alias<'a>(message: &'a Message, at: &Name) -> Option<(&'a Name, u32)> {
    answer_records(message).find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *at => Some((&target.0, record.ttl)),
        _ => None,
    })
}

fn answer_records(message: &Message) -> impl Iterator<Item = &Record> {
    message.answers.iter().filter(|record| record.dns_class == DNSClass::IN)
}

/// The lesser of the SOA record's time to live and its minimum (RFC 2308 section 5).
fn negative_ttl(message: &Message) -> Option<u32> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    })
}

/// The names that operators know (RFC 6895 section 2.3).
fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        other => other.to_str(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn asked() -> Query {
        Query::query(name("db.corp.example."), RecordType::A)
    }

    fn read(message: &Message, query: &Query) -> Result<AnswerContent, ServerFault> {
        super::read_answer(message, query).map(|(_, said)| said)
    }

    fn message(answers: Vec<Record>) -> Message {
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(asked());
        message.add_answers(answers);
        message
    }

    fn a(of: &str, last: u8, ttl: u32) -> Record {
        Record::from_rdata(name(of), ttl, RData::A(A::new(10, 0, 0, last)))
    }

    fn cname(of: &str, to: &str, ttl: u32) -> Record {
        Record::from_rdata(name(of), ttl, RData::CNAME(CNAME(name(to))))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("ns.corp.example."), name("x.corp.example."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("corp.example."), ttl, RData::SOA(soa))
    }

    fn found(lasts: &[u8], ttl: u32) -> Result<AnswerContent, ServerFault> {
        let addresses = lasts.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect();
        Ok(AnswerContent::Addresses { addresses, ttl })
    }

    #[test]
    fn chains_are_followed_in_any_order_and_foreign_records_ignored() {
        let whole = message(vec![
            a("c.example.", 1, 50),
            cname("B.example.", "c.example.", 20),
            a("other.example.", 9, 1),
            cname("DB.corp.example.", "b.example.", 40),
            a("c.example.", 2, 60),
            a("c.example.", 1, 60),
        ]);
        assert_eq!(read(&whole, &asked()), found(&[1, 2], 20));
        let aliases = super::read_answer(&whole, &asked()).unwrap().0;
        assert_eq!(aliases, [name("b.example."), name("c.example.")]);
        let cut = message(vec![cname("db.corp.example.", "b.example.", 40)]);
        let end = AnswerContent::Alias { of: name("b.example."), ttl: 40 };
        assert_eq!(read(&cut, &asked()), Ok(end));
    }

    #[test]
    fn nothing_there_is_told_from_no_such_name() {
        let mut empty = message(Vec::new());
        assert_eq!(read(&empty, &asked()), Ok(AnswerContent::Nothing { exists: true, ttl: None }));
        empty.add_answer(cname("db.corp.example.", "b.example.", 40));
        empty.add_authority(soa(60, 30));
        assert_eq!(
            read(&empty, &asked()),
            Ok(AnswerContent::Nothing { exists: true, ttl: Some(30) })
        );
        empty.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(
            read(&empty, &asked()),
            Ok(AnswerContent::Nothing { exists: false, ttl: Some(30) })
        );
        empty.metadata.response_code = ResponseCode::Refused;
        assert_eq!(read(&empty, &asked()), Err(ServerFault::Code("REFUSED")));
    }

    #[test]
    fn d4_only_an_answer_to_this_question_belongs() {
        let good = message(vec![a("db.corp.example.", 1, 60)]);
        assert!(answers_query(&good, &asked()));
        assert!(!answers_query(&good, &Query::query(name("x.corp.example."), RecordType::A)));
        assert!(!answers_query(&good, &Query::query(name("db.corp.example."), RecordType::AAAA)));
        let mut question = good.clone();
        question.metadata.message_type = MessageType::Query;
        assert!(!answers_query(&question, &asked()));
        let mut two = good.clone();
        two.add_query(asked());
        assert!(!answers_query(&two, &asked()));
        let mut none = good;
        none.queries.clear();
        assert!(!answers_query(&none, &asked()));
    }

    #[test]
    fn d4_five_hundred_aliases_and_huge_answers_cost_little() {
        let step = |n: usize| cname(&format!("n{n}."), &format!("n{}.", n + 1), 60);
        let mut chain: Vec<Record> = (0..500).rev().map(step).collect();
        chain.push(cname("db.corp.example.", "n0.", 60));
        let ring = vec![cname("db.corp.example.", "b.", 60), cname("b.", "db.corp.example.", 60)];
        let many = (0..4000).map(|n| a("db.corp.example.", (n % 250) as u8, 60)).collect();
        let (chain, ring, many) = (message(chain), message(ring), message(many));
        let start = Instant::now();
        assert_eq!(read(&chain, &asked()), Err(ServerFault::Aliases));
        assert_eq!(read(&ring, &asked()), Err(ServerFault::Aliases));
        let Ok(AnswerContent::Addresses { addresses, .. }) = read(&many, &asked()) else {
            unreachable!("addresses are there");
        };
        assert_eq!(addresses.len(), MOST_RECORDS);
        assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
    }

    #[test]
    fn mapped_addresses_are_v4() {
        let query = Query::query(name("db.corp.example."), RecordType::AAAA);
        let mut message = Message::response(7, OpCode::Query);
        let mapped = AAAA::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1);
        message.add_answer(Record::from_rdata(name("db.corp.example."), 60, RData::AAAA(mapped)));
        let addresses = vec![IpAddr::from([127, 0, 0, 1])];
        assert_eq!(read(&message, &query), Ok(AnswerContent::Addresses { addresses, ttl: 60 }));
    }
}
