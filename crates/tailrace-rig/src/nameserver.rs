//! A nameserver by a test's script: DNS over TCP (RFC 7766), built byte by byte so that it shares no
//! code with what it tests. It writes down every question.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::origin::Latch;
use super::server::{Server, spawn};
use super::system_nameserver::{self, A, AAAA, CNAME, SOA};
use super::wait::{PATIENCE, eventually, pause};

/// Response, recursion desired and available (RFC 1035 section 4.1.1).
const ANSWER: u16 = 0x8180;
/// Bits of the header's second word.
pub const QR: u16 = 0x8000;
/// Truncation.
pub const TC: u16 = 0x0200;
/// Response codes.
pub const SERVFAIL: u16 = 2;
/// No such name.
pub const NXDOMAIN: u16 = 3;
/// Not for you.
pub const REFUSED: u16 = 5;
/// Seconds an answer may be remembered where the test does not care.
pub const TTL: u32 = 60;

/// What a question gets.
pub enum NameserverAction {
    /// These messages, each behind its length.
    Bytes(Vec<Vec<u8>>),
    /// Nothing, for ever.
    Silence,
    /// The connection's end.
    Close,
    /// The same so much later.
    Late(Duration, Box<NameserverAction>),
    /// The same once the gate is open.
    When(Latch, Box<NameserverAction>),
}

/// A question as it came.
pub struct ReceivedQuestion {
    /// Lower case, without the last dot.
    pub name: String,
    /// A is 1, AAAA is 28.
    pub kind: u16,
    /// The whole message.
    pub packet: Vec<u8>,
    end: usize,
}

/// An answer under construction.
#[derive(Clone)]
pub struct DnsAnswer {
    /// Repeats the question's.
    pub id: u16,
    /// The header's second word.
    pub flags: u16,
    /// The question section.
    pub question: Vec<u8>,
    kind: u16,
    answers: Vec<Vec<u8>>,
    authorities: Vec<Vec<u8>>,
}

impl ReceivedQuestion {
    /// The name's first label.
    pub fn label(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// NOERROR with nothing in it.
    pub fn told(&self) -> DnsAnswer {
        let id = u16::from_be_bytes([self.packet[0], self.packet[1]]);
        let question = self.packet[12..self.end].to_vec();
        let (kind, answers, authorities) = (self.kind, Vec::new(), Vec::new());
        DnsAnswer { id, flags: ANSWER, question, kind, answers, authorities }
    }

    /// These addresses, as far as they are of the asked type.
    pub fn at(&self, addresses: &[&str]) -> DnsAnswer {
        let told = self.told();
        addresses.iter().fold(told, |told, address| told.address(&self.name, address, TTL))
    }

    /// This response code.
    pub fn code(&self, code: u16) -> DnsAnswer {
        let mut told = self.told();
        told.flags |= code;
        told
    }
}

impl DnsAnswer {
    /// An address of `of`, if it is of the asked type.
    pub fn address(mut self, of: &str, address: &str, ttl: u32) -> DnsAnswer {
        let (kind, data) = match address.parse().expect("rig: an address") {
            IpAddr::V4(ip) => (A, ip.octets().to_vec()),
            IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
        };
        if kind == self.kind {
            self.answers.push(system_nameserver::resource(
                &system_nameserver::encode(of),
                kind,
                ttl,
                &data,
            ));
        }
        self
    }

    /// `of` is an alias of `to`.
    pub fn alias(mut self, of: &str, to: &str) -> DnsAnswer {
        self.answers.push(system_nameserver::resource(
            &system_nameserver::encode(of),
            CNAME,
            TTL,
            &system_nameserver::encode(to),
        ));
        self
    }

    /// Who says that there is nothing may be remembered for so long (RFC 2308).
    pub fn negative(mut self, seconds: u32) -> DnsAnswer {
        let names = [
            system_nameserver::encode("ns.corp.example"),
            system_nameserver::encode("root.corp.example"),
        ]
        .concat();
        let numbers = [1u32, 60, 60, 60, seconds].map(u32::to_be_bytes).concat();
        let data = [names, numbers].concat();
        let owner = system_nameserver::encode("corp.example");
        self.authorities.push(system_nameserver::resource(&owner, SOA, seconds, &data));
        self
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let count = |list: &[Vec<u8>]| list.len() as u16;
        let asked = u16::from(!self.question.is_empty());
        let counts = [asked, count(&self.answers), count(&self.authorities), 0];
        let mut bytes = [self.id, self.flags].map(u16::to_be_bytes).concat();
        bytes.extend(counts.map(u16::to_be_bytes).concat());
        bytes.extend(&self.question);
        bytes.extend(self.answers.concat());
        bytes.extend(self.authorities.concat());
        bytes
    }
}

impl From<DnsAnswer> for NameserverAction {
    fn from(told: DnsAnswer) -> NameserverAction {
        NameserverAction::Bytes(vec![told.bytes()])
    }
}

#[derive(Default)]
struct Seen {
    questions: Mutex<Vec<(String, u16)>>,
    /// A questions that are not answered yet, and the most there were.
    unanswered: Mutex<(usize, usize)>,
    answered: Mutex<Option<Instant>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

/// The nameserver. Stops when dropped.
pub struct Nameserver {
    server: Server,
    seen: Arc<Seen>,
}

impl Nameserver {
    /// On a port the kernel picks.
    pub fn start(
        script: impl Fn(&ReceivedQuestion) -> NameserverAction + Send + Sync + 'static,
    ) -> Nameserver {
        Nameserver::on("127.0.0.1:0".parse().unwrap(), script)
    }

    /// On this address.
    pub fn on(
        address: SocketAddr,
        script: impl Fn(&ReceivedQuestion) -> NameserverAction + Send + Sync + 'static,
    ) -> Nameserver {
        let seen = Arc::new(Seen::default());
        let (noted, script) = (Arc::clone(&seen), Arc::new(script));
        let server = Server::on(address, move |stream| {
            noted.connections.fetch_add(1, Ordering::SeqCst);
            noted.open.fetch_add(1, Ordering::SeqCst);
            converse(stream, &*script, &noted);
            noted.open.fetch_sub(1, Ordering::SeqCst);
        });
        Nameserver { server, seen }
    }

    /// Gives every name these addresses.
    pub fn at(addresses: &'static [&'static str]) -> Nameserver {
        Nameserver::start(move |question| question.at(addresses).into())
    }

    /// Answers every question with this code.
    pub fn saying(code: u16) -> Nameserver {
        Nameserver::start(move |question| question.code(code).into())
    }

    /// Never says a word.
    pub fn silent() -> Nameserver {
        Nameserver::start(|_| NameserverAction::Silence)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Names and types asked so far.
    pub fn questions(&self) -> Vec<(String, u16)> {
        self.seen.questions.lock().unwrap().clone()
    }

    /// How often `name` was asked for, all types.
    pub fn asked(&self, name: &str) -> usize {
        self.questions().iter().filter(|(of, _)| of == name).count()
    }

    /// Waits until `count` questions came.
    #[track_caller]
    pub fn wait_asked(&self, count: usize) {
        let what = format!("{count} questions");
        eventually(&what, PATIENCE, || self.seen.questions.lock().unwrap().len() >= count);
    }

    /// The most A questions it owed an answer at a time.
    pub fn most_unanswered(&self) -> usize {
        self.seen.unanswered.lock().unwrap().1
    }

    /// When the latest answer went out.
    pub fn answered(&self) -> Instant {
        self.seen.answered.lock().unwrap().expect("rig: nothing was answered")
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Closes the port and every connection.
    pub fn stop(&self) {
        self.server.stop_listening();
        self.server.reset_all();
    }
}

fn converse(
    mut stream: TcpStream,
    script: &dyn Fn(&ReceivedQuestion) -> NameserverAction,
    seen: &Arc<Seen>,
) {
    let writer = Arc::new(Mutex::new(stream.try_clone().expect("rig: clone")));
    while let Some(question) = read(&mut stream) {
        seen.questions.lock().unwrap().push((question.name.clone(), question.kind));
        if question.kind == A {
            let (now, most) = &mut *seen.unanswered.lock().unwrap();
            *now += 1;
            *most = (*now).max(*most);
        }
        let say = script(&question);
        let (writer, seen) = (Arc::clone(&writer), Arc::clone(seen));
        match say {
            NameserverAction::Close => return,
            NameserverAction::Silence => {}
            now @ NameserverAction::Bytes(_) => answer(now, question.kind, &writer, &seen),
            later => spawn(move || answer(later, question.kind, &writer, &seen)),
        }
    }
}

fn answer(say: NameserverAction, kind: u16, writer: &Mutex<TcpStream>, seen: &Seen) {
    let mut say = say;
    let messages = loop {
        match say {
            NameserverAction::Bytes(messages) => break messages,
            NameserverAction::Late(after, then) => {
                pause(after);
                say = *then;
            }
            NameserverAction::When(gate, then) => {
                gate.wait();
                say = *then;
            }
            NameserverAction::Silence | NameserverAction::Close => return,
        }
    };
    if kind == A {
        seen.unanswered.lock().unwrap().0 -= 1;
    }
    *seen.answered.lock().unwrap() = Some(Instant::now());
    let framed = |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    let bytes: Vec<u8> = messages.iter().flat_map(framed).collect();
    // The gateway may have hung up: that is its affair.
    let _ = writer.lock().unwrap().write_all(&bytes);
}

fn read(stream: &mut TcpStream) -> Option<ReceivedQuestion> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut packet = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut packet).ok()?;
    let (name, kind, end) = system_nameserver::question(&packet)?;
    Some(ReceivedQuestion { name, kind, packet, end })
}
