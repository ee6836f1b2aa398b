//! The DNS server for clients of this host: questions in, answers out, sizes and codes.
//!
//! What is answered, somebody else decides ([`AnswerSource`]): this part knows no policy and asks nobody.
#![forbid(unsafe_code)]

mod clients;
mod extended_error;
mod message;
mod sockets;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO};
use hickory_proto::rr::{self, RData, Record, RecordType};
use tokio::sync::Semaphore;

use self::clients::{ClientAdmission, ClientLimiter};
use self::message::{ParsedMessage, ParsedQuestion};
use super::{DnsRecords, IpFamily, QueryKind};
use crate::target::Name;

pub use self::extended_error::{ExtendedError, ExtendedErrorCode};
pub use self::message::MessageTransport;
pub use self::sockets::{serve_tcp, serve_udp};

/// Questions under way at once; whoever asks beyond that is told to try again.
const IN_FLIGHT: usize = 1024;
/// Seconds. What holds for less would be asked for again and again.
const SHORTEST: u64 = 1;

/// Who knows the answers.
pub trait AnswerSource: Send + Sync + 'static {
    /// Answers one question of a client, whatever it takes.
    fn answer(&self, question: ClientQuestion) -> BoxFuture<'static, DnsReply>;
}

/// What a client wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientQuestion {
    /// The name that is asked about.
    pub name: Name,
    /// Which records of it are wanted.
    pub wanted: QuestionKind,
    /// The address of the client that asks.
    pub client: IpAddr,
}

/// What a client wants to know of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionKind {
    /// Records of one kind.
    Of(QueryKind),
    /// What it is an alias of (CNAME).
    Alias,
    /// Whatever there is (ANY), which nobody is asked for (RFC 8482).
    Any,
    /// Something that nobody is asked for; may the name be heard of at all?
    Other,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsReply {
    /// Aliases in their order, then what was asked for; none of either: nothing of this kind (NODATA).
    Records {
        /// The whole name that a bare one stands for: an alias too, before all others.
        whole: Option<Name>,
        /// Further aliases, from that name on.
        aliases: Vec<rr::Name>,
        /// Of the last of them.
        addresses: Vec<IpAddr>,
        /// Of the last of them, what is no address.
        data: Vec<RData>,
        /// How long it holds.
        left: Duration,
    },
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// None this client may hear of (NXDOMAIN).
    Refused(ExtendedError),
    /// Nobody knows now (SERVFAIL).
    Failed(Option<ExtendedError>),
}

impl DnsReply {
    /// Nothing of this kind, whatever the name.
    pub const NOTHING: Self = Self::nothing_for(Duration::ZERO);

    /// The same, and for how long that holds.
    pub const fn nothing_for(left: Duration) -> Self {
        Self::Records {
            whole: None,
            aliases: Vec::new(),
            addresses: Vec::new(),
            data: Vec::new(),
            left,
        }
    }

    /// One address; `whole` is the name that a bare one stands for.
    pub fn address_data(whole: Option<Name>, address: IpAddr, left: Duration) -> Self {
        let (aliases, addresses, data) = (Vec::new(), vec![address], Vec::new());
        Self::Records { whole, aliases, addresses, data, left }
    }

    /// What was found; `whole` is the name that a bare one stands for.
    pub fn of_records(whole: Option<Name>, records: DnsRecords) -> Self {
        let DnsRecords { aliases, addresses, data, left, .. } = records;
        Self::Records { whole, aliases, addresses, data, left }
    }
}

/// Turns messages into questions and replies into messages. One serves every socket.
#[derive(Clone)]
pub struct QuestionHandler {
    answers: Arc<dyn AnswerSource>,
    in_flight: Arc<Semaphore>,
    clients: Arc<ClientLimiter>,
}

impl QuestionHandler {
    /// A server of these answers.
    pub fn new(answers: Arc<dyn AnswerSource>) -> Self {
        let clients = Arc::new(ClientLimiter::new());
        Self { answers, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)), clients }
    }

    /// The answer to one message; none: it deserves none. The bytes are read at once.
    pub fn answer_message(
        &self,
        bytes: &[u8],
        peer: SocketAddr,
        over: MessageTransport,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send + 'static + use<> {
        let (read, handler) = (message::parse_message(bytes, over), self.clone());
        async move {
            match (read, handler.clients.admit(peer.ip(), Instant::now())) {
                (ParsedMessage::Nothing, _) => None,
                (ParsedMessage::Question(asked), ClientAdmission::Now) => {
                    Some(handler.answer_question(&asked, peer).await)
                }
                (ParsedMessage::Answered(answer), ClientAdmission::Now) => Some(answer),
                (ParsedMessage::Question(asked), ClientAdmission::Never) => {
                    Some(refuse_stranger(&asked))
                }
                (ParsedMessage::Answered(_), ClientAdmission::Never) => None,
                // Who asks too much by datagrams shows by a connection that it is who it says it is, and
                // waits there.
                (ParsedMessage::Question(asked), ClientAdmission::After(_))
                    if over == MessageTransport::Datagram =>
                {
                    Some(asked.ask_again_by_tcp())
                }
                (ParsedMessage::Answered(_), ClientAdmission::After(_)) => None,
                (ParsedMessage::Question(asked), ClientAdmission::After(wait)) => {
                    tokio::time::sleep(wait).await;
                    Some(handler.answer_question(&asked, peer).await)
                }
            }
        }
    }

    async fn answer_question(&self, asked: &ParsedQuestion, peer: SocketAddr) -> Vec<u8> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return asked.encode_answer(ResponseCode::ServFail, Vec::new(), None);
        };
        // A name that is no host's is nobody's: nobody is asked for it.
        let Ok(name) = Name::parse(asked.query.name().to_ascii().as_bytes()) else {
            return asked.encode_answer(ResponseCode::NXDomain, Vec::new(), None);
        };
        let wanted = question_kind(asked.query.query_type());
        let question = ClientQuestion { name, wanted, client: peer.ip() };
        match self.answers.answer(question).await {
            DnsReply::NoSuchName => asked.encode_answer(ResponseCode::NXDomain, Vec::new(), None),
            DnsReply::Refused(why) => {
                asked.encode_answer(ResponseCode::NXDomain, Vec::new(), Some(&why))
            }
            DnsReply::Failed(why) => {
                asked.encode_answer(ResponseCode::ServFail, Vec::new(), why.as_ref())
            }
            DnsReply::Records { whole, aliases, addresses, data, left } => {
                let whole = whole.and_then(|name| rr::Name::from_ascii(format!("{name}.")).ok());
                let aliases = whole.into_iter().chain(aliases);
                let data = addresses.iter().map(address_data).chain(data);
                let name = asked.query.name();
                let records = answer_records(name, wanted, aliases, data, left);
                asked.encode_answer(ResponseCode::NoError, records, None)
            }
        }
    }
}

/// Somebody from afar. The answer is hardly bigger than the question: nobody is flooded by it.
fn refuse_stranger(asked: &ParsedQuestion) -> Vec<u8> {
    let why = ExtendedError::new(
        ExtendedErrorCode::Prohibited,
        "only private networks are answered here",
    );
    asked.encode_answer(ResponseCode::Refused, Vec::new(), Some(&why))
}

fn question_kind(kind: RecordType) -> QuestionKind {
    match kind {
        RecordType::A => QuestionKind::Of(QueryKind::Addresses(IpFamily::V4)),
        RecordType::AAAA => QuestionKind::Of(QueryKind::Addresses(IpFamily::V6)),
        RecordType::TXT => QuestionKind::Of(QueryKind::Txt),
        RecordType::SRV => QuestionKind::Of(QueryKind::Srv),
        RecordType::MX => QuestionKind::Of(QueryKind::Mx),
        RecordType::PTR => QuestionKind::Of(QueryKind::Ptr),
        RecordType::CNAME => QuestionKind::Alias,
        RecordType::ANY => QuestionKind::Any,
        _ => QuestionKind::Other,
    }
}

fn address_data(ip: &IpAddr) -> RData {
    match ip {
        IpAddr::V4(v4) => RData::A(A(*v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
    }
}

fn answer_records(
    asked: &rr::Name,
    wanted: QuestionKind,
    aliases: impl Iterator<Item = rr::Name>,
    data: impl Iterator<Item = RData>,
    left: Duration,
) -> Vec<Record> {
    let seconds = left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
    let ttl = u32::try_from(seconds.max(SHORTEST)).unwrap_or(u32::MAX);
    if wanted == QuestionKind::Any {
        return vec![Record::from_rdata(asked.clone(), ttl, RData::HINFO(minimal_hinfo()))];
    }
    // Who asks for an alias wants the next one alone.
    let alone = wanted == QuestionKind::Alias;
    let mut owner = asked.clone();
    let mut records = Vec::new();
    for alias in aliases.take(if alone { 1 } else { usize::MAX }) {
        let of = std::mem::replace(&mut owner, alias.clone());
        records.push(Record::from_rdata(of, ttl, RData::CNAME(CNAME(alias))));
    }
    if !alone {
        records.extend(data.map(|data| Record::from_rdata(owner.clone(), ttl, data)));
    }
    records
}

/// What stands for everything there is (RFC 8482 section 4.2).
fn minimal_hinfo() -> HINFO {
    HINFO::new("RFC8482".to_owned(), String::new())
}
