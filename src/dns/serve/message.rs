//! One DNS message in, one out: bytes on both sides, no socket touched.
//!
//! hickory parses and serializes. Ours is the look at the header before that, so that a dozen bytes cannot ask
//! for room for thousands of records, and what is said when a datagram is too small.
#![forbid(unsafe_code)]

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

use super::ExtendedError;

/// The biggest datagram: one that no network cuts (DNS flag day 2020; RFC 9715 section 3.1).
const DATAGRAM: u16 = 1232;
/// What a client without EDNS takes in a datagram (RFC 1035 section 4.2.1), and with it at least.
const SMALLEST: u16 = 512;
/// Bytes of a header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// A question may carry OPT and a signature.
const MOST_ADDITIONAL: u16 = 2;
/// The option of RFC 8914.
const EXTENDED_ERROR: u16 = 15;

/// By which way a message came, and its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageTransport {
    /// One UDP datagram, whose answer may have to be cut.
    Datagram,
    /// A TCP connection, with two bytes of length before each message.
    Stream,
}

/// What a message is.
pub(super) enum ParsedMessage {
    /// One question, to be answered.
    Question(Box<ParsedQuestion>),
    /// None that we answer; this is said of it.
    Answered(Vec<u8>),
    /// Nothing that deserves an answer.
    Nothing,
}

/// A question, and what its answer repeats of it.
pub(super) struct ParsedQuestion {
    metadata: Metadata,
    pub(super) query: Query,
    edns: Option<Edns>,
    over: MessageTransport,
}

/// Reads what a client sent.
pub(super) fn parse_message(bytes: &[u8], over: MessageTransport) -> ParsedMessage {
    let Some(head) = MessageHeader::read_header(bytes) else { return ParsedMessage::Nothing };
    if head.is_answer {
        return ParsedMessage::Nothing;
    }
    if !head.is_plain() {
        return ParsedMessage::Answered(head.refusal_message(ResponseCode::FormErr));
    }
    let message = match Message::from_vec(bytes) {
        Ok(message) => message,
        Err(_) => return ParsedMessage::Answered(head.refusal_message(ResponseCode::FormErr)),
    };
    let Message { metadata, mut queries, edns, .. } = message;
    let Some(query) = queries.pop() else {
        return ParsedMessage::Answered(head.refusal_message(ResponseCode::FormErr));
    };
    let asked = Box::new(ParsedQuestion { metadata, query, edns, over });
    match asked.refusal_code() {
        Some(code) => ParsedMessage::Answered(asked.encode_answer(code, Vec::new(), None)),
        None => ParsedMessage::Question(asked),
    }
}

/// What the first twelve bytes say.
struct MessageHeader {
    id: [u8; 2],
    is_answer: bool,
    op_code: u8,
    recursion_desired: bool,
    /// Questions, answers, authorities, additional records.
    counts: [u16; 4],
}

impl MessageHeader {
    fn read_header(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER] = bytes.first_chunk()?;
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        Some(Self {
            id: [head[0], head[1]],
            is_answer: head[2] & 0x80 != 0,
            op_code: (head[2] >> 3) & 0x0f,
            recursion_desired: head[2] & 1 != 0,
            counts: [count(4), count(6), count(8), count(10)],
        })
    }

    /// Whether it has the parts of a question, or belongs to another operation, which is refused by its name.
    fn is_plain(&self) -> bool {
        let [questions, answers, authorities, additional] = self.counts;
        // IXFR has an authority (RFC 1995 section 3).
        questions == 1 && answers == 0 && authorities <= 1 && additional <= MOST_ADDITIONAL
    }

    /// An answer without a question, for one that could not be read.
    fn refusal_message(&self, code: ResponseCode) -> Vec<u8> {
        let mut answer = vec![0; HEADER];
        answer[..2].copy_from_slice(&self.id);
        answer[2] = 0x80 | self.op_code << 3 | u8::from(self.recursion_desired);
        answer[3] = 0x80 | code.low();
        answer
    }
}

impl ParsedQuestion {
    /// The code that says why it is none we answer.
    fn refusal_code(&self) -> Option<ResponseCode> {
        if self.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Some(ResponseCode::BADVERS);
        }
        let whole_zones = [RecordType::AXFR, RecordType::IXFR];
        let asks = self.metadata.op_code == OpCode::Query
            && self.metadata.message_type == MessageType::Query
            && self.query.query_class() == DNSClass::IN
            && !whole_zones.contains(&self.query.query_type());
        (!asks).then_some(ResponseCode::NotImp)
    }

    /// The whole answer, cut where a datagram is too small for it. `why` is for clients that speak EDNS.
    pub(super) fn encode_answer(
        &self,
        code: ResponseCode,
        records: Vec<Record>,
        why: Option<&ExtendedError>,
    ) -> Vec<u8> {
        let mut answer = self.empty_answer(code, why);
        answer.add_answers(records);
        let room = self.answer_size();
        match encode_within(&answer, room) {
            Some((bytes, false)) => bytes,
            Some((_, true)) => self.truncate_answer(answer, room),
            None => encode_within(&self.empty_answer(ResponseCode::ServFail, None), SMALLEST)
                .map_or_else(Vec::new, |(bytes, _)| bytes),
        }
    }

    /// No records, and that they are to be had over TCP.
    pub(super) fn ask_again_by_tcp(&self) -> Vec<u8> {
        let mut answer = self.empty_answer(ResponseCode::NoError, None);
        answer.metadata.truncation = true;
        encode_within(&answer, SMALLEST).map_or_else(Vec::new, |(bytes, _)| bytes)
    }

    fn empty_answer(&self, code: ResponseCode, why: Option<&ExtendedError>) -> Message {
        let mut answer = Message::response(self.metadata.id, self.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&self.metadata);
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = code;
        answer.add_query(self.query.clone());
        if let Some(theirs) = &self.edns {
            answer.set_edns(answer_edns(theirs, why));
        }
        answer
    }

    fn answer_size(&self) -> u16 {
        match (self.over, &self.edns) {
            (MessageTransport::Stream, _) => u16::MAX,
            (MessageTransport::Datagram, Some(edns)) => {
                edns.max_payload().clamp(SMALLEST, DATAGRAM)
            }
            (MessageTransport::Datagram, None) => SMALLEST,
        }
    }

    /// As many records as there is room for beside the OPT record (RFC 6891 section 7: it is in every answer):
    /// some resolvers never ask by TCP and take what they get.
    fn truncate_answer(&self, mut answer: Message, room: u16) -> Vec<u8> {
        let edns = answer.edns.take();
        let beside = edns.as_ref().and_then(|edns| Record::from(edns).to_bytes().ok());
        let room_beside = room.saturating_sub(beside.map_or(0, |bytes| bytes.len() as u16));
        let fitting = encode_within(&answer, room_beside)
            .and_then(|(bytes, _)| MessageHeader::read_header(&bytes));
        answer.answers.truncate(fitting.map_or(0, |head| head.counts[1].into()));
        answer.metadata.truncation = true;
        answer.edns = edns;
        encode_within(&answer, room).map_or_else(Vec::new, |(bytes, _)| bytes)
    }
}

/// The bytes, and whether something had to be left out.
fn encode_within(message: &Message, room: u16) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::with_capacity(SMALLEST.into());
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(room);
    message.emit(&mut encoder).ok()?;
    let cut = bytes.get(2).is_some_and(|flags| flags & 0x02 != 0);
    Some((bytes, cut))
}

/// Our OPT record (RFC 6891 section 6.1.1). Its size bounds our own datagram too.
fn answer_edns(theirs: &Edns, why: Option<&ExtendedError>) -> Edns {
    let mut ours = Edns::new();
    ours.set_max_payload(theirs.max_payload().clamp(SMALLEST, DATAGRAM));
    ours.set_dnssec_ok(theirs.flags().dnssec_ok); // RFC 3225 section 3: copied
    if let Some(why) = why {
        let option = EdnsOption::Unknown(EXTENDED_ERROR, why.to_bytes());
        ours.options_mut().insert(option);
    }
    ours
}
