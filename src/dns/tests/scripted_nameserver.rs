//! A nameserver by a test's script: DNS over TCP (RFC 7766) on loopback, and the way to it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::dns::{NameserverDial, NameserverWay};

/// What a question gets.
pub(super) enum DnsReply {
    /// A message.
    Say(Message),
    /// These bytes, behind their length.
    Bytes(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// The connection's end, at once.
    Close,
    /// The message once somebody else has let it go.
    When(Arc<tokio::sync::Semaphore>, Message),
}

type Script = Arc<dyn Fn(&Message) -> Vec<DnsReply> + Send + Sync>;

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<(String, RecordType)>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    unanswered: AtomicUsize,
    most_unanswered: AtomicUsize,
}

/// A nameserver on a port of its own, until the test's runtime ends.
pub(super) struct Standin {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

impl Standin {
    /// Answers each question with the replies that `script` gives, in order.
    pub(super) async fn new(
        script: impl Fn(&Message) -> Vec<DnsReply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
        let (script, noted): (Script, _) = (Arc::new(script), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                noted.connections.fetch_add(1, Ordering::Relaxed);
                noted.open.fetch_add(1, Ordering::Relaxed);
                let (script, noted) = (Arc::clone(&script), Arc::clone(&noted));
                tokio::spawn(async move {
                    converse(stream, script, &noted).await;
                    noted.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, seen }
    }

    /// How often `name` was asked for, all types.
    pub(super) fn asked(&self, name: &str) -> usize {
        let asked = self.seen.asked.lock().unwrap();
        asked.iter().filter(|(of, _)| of == name).count()
    }

    /// How many questions came.
    pub(super) fn questions(&self) -> usize {
        self.seen.asked.lock().unwrap().len()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    pub(super) fn most_unanswered(&self) -> usize {
        self.seen.most_unanswered.load(Ordering::Relaxed)
    }

    /// Waits until `count` questions came.
    pub(super) async fn until_asked(&self, count: usize) {
        until("questions", || self.questions() >= count).await;
    }

    /// Waits until nobody is connected.
    pub(super) async fn until_left(&self) {
        until("hang-up", || self.seen.open.load(Ordering::Relaxed) == 0).await;
    }
}

/// Waits for a condition, five seconds at most.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(5), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "no {what} in five seconds");
}

async fn converse(stream: TcpStream, script: Script, seen: &Arc<Seen>) {
    stream.set_nodelay(true).unwrap();
    let (mut read, write) = stream.into_split();
    let write = Arc::new(tokio::sync::Mutex::new(write));
    while let Some(question) = question(&mut read).await {
        let asked = &question.queries[0];
        let name = asked.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        seen.asked.lock().unwrap().push((name, asked.query_type()));
        let now = seen.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        seen.most_unanswered.fetch_max(now, Ordering::Relaxed);
        for reply in script(&question) {
            let (bytes, gate) = match reply {
                DnsReply::Say(message) => (message.to_vec().unwrap(), None),
                DnsReply::Bytes(bytes) => (bytes, None),
                DnsReply::Silence => continue,
                DnsReply::Close => return,
                DnsReply::When(gate, message) => (message.to_vec().unwrap(), Some(gate)),
            };
            let (write, seen) = (Arc::clone(&write), Arc::clone(seen));
            let answer = async move {
                if let Some(gate) = gate {
                    gate.acquire().await.unwrap().forget();
                }
                seen.unanswered.fetch_sub(1, Ordering::Relaxed);
                send(&write, &bytes).await;
            };
            tokio::spawn(answer);
        }
    }
}

async fn question(read: &mut OwnedReadHalf) -> Option<Message> {
    let length = read.read_u16().await.ok()?;
    let mut bytes = vec![0; length.into()];
    read.read_exact(&mut bytes).await.ok()?;
    Message::from_vec(&bytes).ok()
}

async fn send(write: &tokio::sync::Mutex<OwnedWriteHalf>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    let framed = [&length.to_be_bytes(), bytes].concat();
    // The gateway may have hung up: that is its affair.
    let _left = write.lock().await.write_all(&framed).await;
}

/// An answer without records.
pub(super) fn empty(question: &Message) -> Message {
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    answer
}

pub(super) fn code(question: &Message, code: ResponseCode) -> Message {
    let mut answer = empty(question);
    answer.metadata.response_code = code;
    answer
}

/// The records of the asked type that these addresses make, 60 s to live.
pub(super) fn addresses(question: &Message, addresses: &[&str]) -> Message {
    with_ttl(question, addresses, 60)
}

pub(super) fn with_ttl(question: &Message, addresses: &[&str], ttl: u32) -> Message {
    let (mut answer, asked) = (empty(question), &question.queries[0]);
    for address in addresses {
        let data = match address.parse().unwrap() {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        if data.record_type() == asked.query_type() {
            answer.add_answer(Record::from_rdata(asked.name().clone(), ttl, data));
        }
    }
    answer
}

pub(super) fn alias(question: &Message, to: &str) -> Message {
    let mut answer = empty(question);
    let cname = RData::CNAME(CNAME(Name::from_ascii(to).unwrap()));
    answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 60, cname));
    answer
}

pub(super) fn asked(question: &Message) -> String {
    question.queries[0].name().to_ascii().trim_end_matches('.').to_owned()
}

/// Leads to nameservers as the tailnet would: its addresses are stand-ins' here.
#[derive(Default)]
pub(super) struct Tunnel(pub(super) HashMap<IpAddr, SocketAddr>);

impl NameserverWay for Tunnel {
    fn covers(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    fn dial(&self, to: SocketAddr) -> NameserverDial {
        let to = self.0[&to.ip()];
        Box::pin(crate::sys::dial(to, None))
    }
}
