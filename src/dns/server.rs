//! One nameserver: a connection that all questions of the moment share, and one question over it.
//!
//! hickory frames, multiplexes and parses. Its `Resolver` is not used: that one takes the first
//! server's SERVFAIL for an answer (D2), accepts over TCP an answer to another question (D4), keeps
//! its connections for good and answers some names by itself.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt as _, StreamExt as _};
use hickory_net::DnsMultiplexer;
use hickory_net::h2::HttpsClientStream;
use hickory_net::runtime::{RuntimeProvider as _, Spawn as _, TokioHandle};
use hickory_net::tcp::{TcpClientStream, TcpStream};
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsExchange, DnsHandle as _};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, Query};
use tokio::time::Instant;

use super::answer::{self, AnswerRecords, ServerFault};
use super::dial::NameserverRuntime;
use super::https::{self, HttpsEndpoint, TrustStore};
use super::system::SystemResolver;
use super::{NameserverAddress, NameserverWay, TailnetZone};
use crate::target::Host;

/// A connection nobody used for so long is closed (RFC 7766 section 6.2.3: a few seconds at most).
const IDLE: Duration = Duration::from_secs(1);
/// Questions on one connection at once: more than ever wait (D10, two types each).
const MOST_ACTIVE: usize = 1024;
/// Answers to other questions that are passed over.
const MOST_FOREIGN: usize = 4;
/// For one of several addresses of a nameserver.
const ONE_ADDRESS: Duration = Duration::from_secs(1);

/// What is asked for on the way to nameservers; shared by all of them.
pub(super) struct NameserverContext {
    pub(super) way: Option<Arc<dyn NameserverWay>>,
    pub(super) system: SystemResolver,
    pub(super) trust: TrustStore,
    /// For one name, everything included.
    pub(super) timeout: Duration,
    /// `SO_MARK` of connections that leave by this host's network.
    pub(super) mark: Option<u32>,
}

pub(super) struct NameserverClient {
    label: String,
    at: NameserverTransport,
    /// Asked for what a datagram had no room for.
    whole: Option<Arc<NameserverClient>>,
    outside: Arc<NameserverContext>,
    slot: Mutex<ConnectionSlot>,
}

/// How a nameserver is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NameserverTransport {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Https(HttpsEndpoint),
}

/// The present connection; each has a number of its own.
#[derive(Default)]
struct ConnectionSlot {
    number: u64,
    line: Option<SharedConnection>,
}

/// A connection, wanted by several at once while it is made.
type SharedConnection = Shared<BoxFuture<'static, Result<Arc<OpenConnection>, ServerFault>>>;

struct OpenConnection {
    exchange: DnsExchange<NameserverRuntime>,
    /// Ends the connection's tasks with it.
    _tasks: TokioHandle,
    times: Mutex<ConnectionTimes>,
}

/// When a connection last carried anything, and when an answer.
#[derive(Clone, Copy)]
struct ConnectionTimes {
    used: Instant,
    answered: Instant,
}

/// How a nameserver is called in sentences: `100.64.0.1`, with a port where it is not 53; of a URL
/// the host alone, because the rest may be somebody's key.
pub(super) fn label(nameserver: &NameserverAddress) -> String {
    match nameserver {
        NameserverAddress::Address(at) if at.port() == 53 => at.ip().to_string(),
        NameserverAddress::Address(at) => at.to_string(),
        NameserverAddress::Https { url, .. } => https::public_label(url),
        NameserverAddress::Other(text) => text.clone(),
    }
}

impl NameserverClient {
    /// None: it has a form that is not asked, or a host inside the tailnet that nobody knows.
    pub(super) fn new(
        nameserver: &NameserverAddress,
        zone: &TailnetZone,
        outside: &Arc<NameserverContext>,
    ) -> Option<Arc<Self>> {
        let at = match nameserver {
            NameserverAddress::Address(at) => NameserverTransport::Tcp(*at),
            NameserverAddress::Https { url, bootstrap } => {
                NameserverTransport::Https(HttpsEndpoint::parse(url, bootstrap, zone)?)
            }
            NameserverAddress::Other(_) => return None,
        };
        Some(Self::with_transport(label(nameserver), at, outside))
    }

    /// One of this host's own resolvers, asked as libc asks it.
    pub(super) fn of_system(to: SocketAddr, outside: &Arc<NameserverContext>) -> Arc<Self> {
        let label = label(&NameserverAddress::Address(to));
        let whole =
            Some(Self::with_transport(label.clone(), NameserverTransport::Tcp(to), outside));
        let (at, outside) = (NameserverTransport::Udp(to), Arc::clone(outside));
        Arc::new(Self { label, at, whole, outside, slot: Mutex::default() })
    }

    fn with_transport(
        label: String,
        at: NameserverTransport,
        outside: &Arc<NameserverContext>,
    ) -> Arc<Self> {
        let outside = Arc::clone(outside);
        Arc::new(Self { label, at, whole: None, outside, slot: Mutex::default() })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Asks once; once more when the connection broke under the question (RFC 7766 section 6.2.4:
    /// a server may close after any answer).
    pub(super) async fn ask_nameserver(
        self: &Arc<Self>,
        query: &Query,
    ) -> Result<AnswerRecords, ServerFault> {
        match (self.ask_once(query).await, &self.whole) {
            (Err(ServerFault::Truncated), Some(whole)) => whole.ask_once(query).await, // D5
            (Err(ServerFault::Lost(_)), _) => self.ask_once(query).await,
            (said, _) => said,
        }
    }

    async fn ask_once(self: &Arc<Self>, query: &Query) -> Result<AnswerRecords, ServerFault> {
        let mut hold = self.hold_connection();
        let answer = hold.ask(query).await;
        hold.end = if answer.is_ok() { QueryEnd::Good } else { QueryEnd::Bad };
        answer::read_answer(&answer?, query)
    }

    fn hold_connection(self: &Arc<Self>) -> QueryHold<'_> {
        let mut slot = self.lock_slot();
        let line = match &slot.line {
            Some(line) => line.clone(),
            None => {
                slot.number += 1;
                let (server, number) = (Arc::clone(self), slot.number);
                let line = async move { server.open_connection(number).await }.boxed().shared();
                slot.line.insert(line).clone()
            }
        };
        let (number, since) = (slot.number, Instant::now());
        QueryHold { server: self, number, line, since, open: None, end: QueryEnd::Left }
    }

    fn hang_up(&self, number: u64) {
        let mut slot = self.lock_slot();
        let line = if slot.number == number { slot.line.take() } else { None };
        drop(slot);
        // Outside the lock: it may be the last hold on tasks and sockets.
        drop(line);
    }

    fn lock_slot(&self) -> MutexGuard<'_, ConnectionSlot> {
        // A panic between the slot's operations cannot leave it half changed.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_connection(
        self: Arc<Self>,
        number: u64,
    ) -> Result<Arc<OpenConnection>, ServerFault> {
        let mut tasks = TokioHandle::default();
        let NameserverContext { way, mark, .. } = &*self.outside;
        let dialler = NameserverRuntime { way: way.clone(), mark: *mark, tasks: tasks.clone() };
        let exchange = match &self.at {
            NameserverTransport::Tcp(to) => self.over_tcp(*to, dialler).await?,
            NameserverTransport::Udp(to) => self.over_udp(*to, dialler),
            NameserverTransport::Https(at) => self.over_https(at, dialler).await?,
        };
        let now = Instant::now();
        let times = Mutex::new(ConnectionTimes { used: now, answered: now });
        let open = Arc::new(OpenConnection { exchange, times, _tasks: tasks.clone() });
        tasks.spawn_bg(close_when_idle(Arc::downgrade(&self), Arc::downgrade(&open), number));
        Ok(open)
    }

    async fn over_tcp(
        &self,
        to: SocketAddr,
        dialler: NameserverRuntime,
    ) -> Result<DnsExchange<NameserverRuntime>, ServerFault> {
        // There is one deadline for a name, and the caller has it.
        let dialled = dialler.connect_tcp(to, None, None).await;
        let dialled = dialled.map_err(|error| ServerFault::Dial(error.to_string()))?;
        // By its own constructor hickory queues 32 questions and fails the next one.
        let (stream, queue) = TcpStream::from_stream_with_buffer_size(dialled, to, MOST_ACTIVE);
        let questions = DnsMultiplexer::new(TcpClientStream::from_stream(stream), queue)
            // Twice the deadline, so that it is never this clock that ends a question.
            .with_timeout(self.outside.timeout * 2)
            .with_max_active_requests(MOST_ACTIVE);
        let (exchange, work) = DnsExchange::from_stream(questions);
        dialler.create_handle().spawn_bg(work);
        Ok(exchange)
    }

    fn over_udp(
        &self,
        to: SocketAddr,
        dialler: NameserverRuntime,
    ) -> DnsExchange<NameserverRuntime> {
        let questions = UdpClientStream::builder(to, dialler.clone())
            .with_timeout(Some(self.outside.timeout * 2))
            .build();
        let (exchange, work) = DnsExchange::from_stream(questions);
        dialler.create_handle().spawn_bg(work);
        exchange
    }

    async fn over_https(
        &self,
        at: &HttpsEndpoint,
        dialler: NameserverRuntime,
    ) -> Result<DnsExchange<NameserverRuntime>, ServerFault> {
        let failed = |why: String| ServerFault::Dial(why);
        let config = self.outside.trust.client_config().await.map_err(|e| failed(e.to_string()))?;
        let mut last = failed(format!("{} has no address", at.host));
        for ip in self.https_addresses(at).await? {
            let builder = HttpsClientStream::builder(Arc::clone(&config), dialler.clone());
            let to = SocketAddr::new(ip, at.port);
            let open = builder.exchange(to, at.host.to_string().into(), Arc::clone(&at.path));
            last = match tokio::time::timeout(ONE_ADDRESS, open).await {
                Ok(Ok(exchange)) => return Ok(exchange),
                Ok(Err(error)) => failed(format!("{to}: {error}")),
                Err(_) => failed(format!("{to}: no answer within {ONE_ADDRESS:?}")),
            };
        }
        Err(last)
    }

    async fn https_addresses(&self, at: &HttpsEndpoint) -> Result<Vec<IpAddr>, ServerFault> {
        match &at.host {
            Host::Name(name) if at.bootstrap.is_empty() => {
                let found = self.outside.system.lookup_addresses(name).await;
                found.map_err(|error| ServerFault::Dial(error.to_string()))
            }
            _ => Ok(at.bootstrap.clone()),
        }
    }
}

impl OpenConnection {
    async fn ask(&self, query: &Query) -> Result<Message, ServerFault> {
        self.lock_times().used = Instant::now();
        let mut options = DnsRequestOptions::default();
        options.use_edns = false; // its one gain here, room in a datagram, TCP has anyway
        let mut answers = self.exchange.send(DnsRequest::from_query(query.clone(), options));
        for _ in 0..MOST_FOREIGN {
            match answers.next().await {
                Some(Ok(message)) if answer::answers_query(&message, query) => {
                    let now = Instant::now();
                    *self.lock_times() = ConnectionTimes { used: now, answered: now };
                    return Ok(message.into_message());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(ServerFault::Lost(error.to_string())),
                None => return Err(ServerFault::Silent),
            }
        }
        Err(ServerFault::Foreign)
    }

    fn lock_times(&self) -> MutexGuard<'_, ConnectionTimes> {
        // Two instants cannot be left half changed.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes an idle connection out of the server's hands; a question still on it keeps it open.
async fn close_when_idle(server: Weak<NameserverClient>, open: Weak<OpenConnection>, number: u64) {
    loop {
        let Some(idle_at) = open.upgrade().map(|open| open.lock_times().used + IDLE) else {
            return;
        };
        if idle_at <= Instant::now() {
            break;
        }
        tokio::time::sleep_until(idle_at).await;
    }
    if let Some(server) = server.upgrade() {
        server.hang_up(number);
    }
}

/// One question's hold on a connection.
struct QueryHold<'a> {
    server: &'a NameserverClient,
    number: u64,
    line: SharedConnection,
    since: Instant,
    open: Option<Arc<OpenConnection>>,
    end: QueryEnd,
}

/// How a question ended.
enum QueryEnd {
    Good,
    Bad,
    /// Nobody waits for it any more.
    Left,
}

impl QueryHold<'_> {
    async fn ask(&mut self, query: &Query) -> Result<Message, ServerFault> {
        let open = self.line.clone().await?;
        self.open.insert(open).ask(query).await
    }
}

/// Nobody else is led to a connection that failed a question, or was silent as long as one waited.
impl Drop for QueryHold<'_> {
    fn drop(&mut self) {
        let alive = match self.end {
            QueryEnd::Good => true,
            QueryEnd::Bad => false,
            QueryEnd::Left => {
                self.open.as_ref().is_some_and(|open| open.lock_times().answered > self.since)
            }
        };
        if !alive {
            self.server.hang_up(self.number);
        }
    }
}
