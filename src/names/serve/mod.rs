//! The DNS server for clients of this host: questions in, answers out, sizes and codes.
//!
//! What is answered, somebody else decides ([`Answers`]): this part knows no policy and asks nobody.
//! hickory parses, serializes and cuts to size.
#![forbid(unsafe_code)]

mod sockets;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, LowerQuery, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_server::proto::rr::{self, DNSClass, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::Semaphore;

use super::Family;
use crate::target::Name;

pub use self::sockets::{tcp, udp};

/// Questions under way at once; whoever asks beyond that is told to try again.
const IN_FLIGHT: usize = 1024;
/// The biggest datagram: one that no network cuts (DNS flag day 2020; RFC 9715 section 3.1).
const DATAGRAM: u16 = 1232;
/// Seconds. What holds for less would be asked for again and again.
const SHORTEST: u64 = 1;

/// Who knows the answers.
pub trait Answers: Send + Sync + 'static {
    /// Answers one question.
    fn answer(&self, question: Question) -> BoxFuture<'static, Reply>;
}

/// What a client wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Of this name.
    pub name: Name,
    /// This.
    pub wanted: Wanted,
    /// Who asks.
    pub client: IpAddr,
}

/// What a client wants to know of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Addresses (A, AAAA).
    Addresses(Family),
    /// What it is an alias of (CNAME).
    Alias,
    /// Something that nobody is asked for; may the name be heard of at all?
    Other,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Aliases in their order, then addresses; none of either: nothing of this kind (NODATA).
    Records {
        /// The whole name that a bare one stands for: an alias too, before all others.
        whole: Option<Name>,
        /// From there.
        aliases: Vec<rr::Name>,
        /// Of the last of them.
        addresses: Vec<IpAddr>,
        /// How long it holds.
        left: Duration,
    },
    /// There is no such name, or none this client may hear of (NXDOMAIN).
    NoSuchName,
    /// Nobody knows now (SERVFAIL).
    Failed,
}

impl Reply {
    /// Nothing of this kind, whatever the name.
    pub const NOTHING: Self = Self::Records {
        whole: None,
        aliases: Vec::new(),
        addresses: Vec::new(),
        left: Duration::ZERO,
    };
}

/// Turns requests into questions and replies into responses. One serves every socket.
#[derive(Clone)]
pub struct Handler {
    answers: Arc<dyn Answers>,
    in_flight: Arc<Semaphore>,
}

impl Handler {
    /// A server of these answers.
    pub fn new(answers: Arc<dyn Answers>) -> Self {
        Self { answers, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    async fn respond(&self, request: &Request) -> (ResponseCode, Vec<Record>) {
        let query = match well_formed(request) {
            Ok(query) => query,
            Err(code) => return (code, Vec::new()),
        };
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return (ResponseCode::ServFail, Vec::new());
        };
        // A name that is no host's is nobody's: nobody is asked for it.
        let Ok(name) = Name::parse(query.name().to_ascii().as_bytes()) else {
            return (ResponseCode::NXDomain, Vec::new());
        };
        let wanted = wanted(query.query_type());
        let client = request.src().ip();
        match self.answers.answer(Question { name, wanted, client }).await {
            Reply::NoSuchName => (ResponseCode::NXDomain, Vec::new()),
            Reply::Failed => (ResponseCode::ServFail, Vec::new()),
            Reply::Records { whole, aliases, addresses, left } => {
                let whole = whole.and_then(|name| rr::Name::from_ascii(format!("{name}.")).ok());
                let aliases = whole.into_iter().chain(aliases);
                let asked = query.original().name();
                (ResponseCode::NoError, records(asked, wanted, aliases, &addresses, left))
            }
        }
    }
}

/// The one question of a request, or the code that says why it is none we answer.
fn well_formed(request: &Request) -> Result<&LowerQuery, ResponseCode> {
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [query] = request.queries.queries() else { return Err(ResponseCode::FormErr) };
    let whole_zones = [RecordType::ANY, RecordType::AXFR, RecordType::IXFR];
    match query.query_class() {
        DNSClass::IN if !whole_zones.contains(&query.query_type()) => Ok(query),
        _ => Err(ResponseCode::NotImp),
    }
}

fn wanted(kind: RecordType) -> Wanted {
    match kind {
        RecordType::A => Wanted::Addresses(Family::V4),
        RecordType::AAAA => Wanted::Addresses(Family::V6),
        RecordType::CNAME => Wanted::Alias,
        _ => Wanted::Other,
    }
}

fn records(
    asked: &rr::Name,
    wanted: Wanted,
    aliases: impl Iterator<Item = rr::Name>,
    addresses: &[IpAddr],
    left: Duration,
) -> Vec<Record> {
    let seconds = left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
    let ttl = u32::try_from(seconds.max(SHORTEST)).unwrap_or(u32::MAX);
    // Who asks for an alias wants the next one alone.
    let most = if wanted == Wanted::Alias { 1 } else { usize::MAX };
    let mut owner = asked.clone();
    let mut records = Vec::with_capacity(addresses.len() + 1);
    for alias in aliases.take(most) {
        let of = std::mem::replace(&mut owner, alias.clone());
        records.push(Record::from_rdata(of, ttl, RData::CNAME(CNAME(alias))));
    }
    let address = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => RData::A(A(*v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
    };
    let addresses = addresses.iter().filter(|_| wanted != Wanted::Alias).map(address);
    records.extend(addresses.map(|data| Record::from_rdata(owner.clone(), ttl, data)));
    records
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let (code, answers) = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        metadata.response_code = code;
        let edns = request.edns.as_ref().map(edns);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let message = builder.build(metadata, answers.iter(), [], [], []);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                // The client is gone.
                tracing::debug!(%error, "a DNS answer could not be sent");
                ResponseInfo::from(hickory_server::proto::op::Header {
                    metadata,
                    counts: Default::default(),
                })
            }
        }
    }
}

/// Our OPT record (RFC 6891 section 6.1.1). Its size bounds our own datagram too.
fn edns(theirs: &Edns) -> Edns {
    let mut ours = Edns::new();
    ours.set_max_payload(theirs.max_payload().clamp(512, DATAGRAM));
    ours.set_dnssec_ok(theirs.flags().dnssec_ok); // RFC 3225 section 3: copied
    ours
}
