//! A fake tailscaled SOCKS5 port that can misbehave in every way that chapter U of docs/requirements.md
//! names.
//!
//! It answers each request as scripted (by target, by turn, or by default) and writes down what it
//! saw. By default it dials the origin the target's name is mapped to, and relays.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::server::{Server, peer_left};
use super::socks_script::{self, AfterReply, HalfClose, Request};
use super::{raw_connection, transcript};

/// What the fake does with a new connection's greeting.
#[derive(Clone)]
pub enum UpstreamGreeting {
    /// `05 00`.
    Normal,
    /// Reads, never answers.
    Silent,
    /// Answers `05 00` a byte at a time.
    Dribble,
    /// Answers these bytes and goes on as if all were well.
    Bytes(Vec<u8>),
    /// Resets instead of answering.
    Reset,
    /// Closes instead of answering.
    Close,
    /// Answers `05 00`, then resets before any request is read.
    NormalThenReset,
}

/// What the fake does with a request.
#[derive(Clone)]
pub enum UpstreamReply {
    /// Dials the mapped origin (a literal address: itself), says REP 00, relays; REP 01 if it cannot.
    Connect,
    /// A ten-byte reply with this REP, then FIN.
    Rep(u8),
    /// These bytes in one segment.
    Bytes(Vec<u8>, AfterReply),
    /// These bytes, each in a segment of its own.
    Dribble(Vec<u8>, AfterReply),
    /// Never answers, keeps the connection.
    Silent,
    /// Resets.
    Reset,
    /// Closes without a byte.
    Close,
    /// The same, so much later.
    Late(Duration, Box<UpstreamReply>),
}

pub(super) struct Shared {
    greeting: Mutex<UpstreamGreeting>,
    answer: Mutex<UpstreamReply>,
    turns: Mutex<VecDeque<UpstreamReply>>,
    by_host: Mutex<HashMap<String, UpstreamReply>>,
    pub(super) origins: Mutex<HashMap<String, SocketAddr>>,
    pub(super) half_close: Mutex<HalfClose>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    greetings: AtomicUsize,
    open: AtomicUsize,
}

/// The fake. Stops, and resets what it holds, when dropped.
pub struct FakeUpstream {
    server: Server,
    shared: Arc<Shared>,
}

impl FakeUpstream {
    /// Starts one that behaves well.
    pub fn start() -> FakeUpstream {
        let shared = Arc::new(Shared {
            greeting: Mutex::new(UpstreamGreeting::Normal),
            answer: Mutex::new(UpstreamReply::Connect),
            turns: Mutex::default(),
            by_host: Mutex::default(),
            origins: Mutex::default(),
            half_close: Mutex::new(HalfClose::Keep),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            greetings: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let inner = shared.clone();
        let server = Server::start(move |stream| serve(stream, &inner));
        FakeUpstream { server, shared }
    }

    /// One that maps `host` to `origin`: the commonest start of a test.
    pub fn with(host: &str, origin: SocketAddr) -> FakeUpstream {
        let fake = FakeUpstream::start();
        fake.map(host, origin);
        fake
    }

    /// Its SOCKS5 address.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `host` (a name, lower case, or an address) leads to `origin`, whatever the port asked for; with
    /// port 0 there, to the port asked for.
    pub fn map(&self, host: &str, origin: SocketAddr) {
        self.shared.origins.lock().unwrap().insert(host.into(), origin);
    }

    /// Every further greeting is met like this.
    pub fn greet(&self, greeting: UpstreamGreeting) {
        *self.shared.greeting.lock().unwrap() = greeting;
    }

    /// Every further request is met like this.
    pub fn answer(&self, answer: UpstreamReply) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Requests for `host` are met like this.
    pub fn answer_for(&self, host: &str, answer: UpstreamReply) {
        self.shared.by_host.lock().unwrap().insert(host.into(), answer);
    }

    /// The next requests are met like these, one each, before the rules above count again.
    pub fn answer_in_turn(&self, answers: impl IntoIterator<Item = UpstreamReply>) {
        self.shared.turns.lock().unwrap().extend(answers);
    }

    /// How further relays treat a half-close.
    pub fn half_close(&self, rule: HalfClose) {
        *self.shared.half_close.lock().unwrap() = rule;
    }

    /// Every request read so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Hosts asked for so far.
    pub fn hosts(&self) -> Vec<String> {
        self.requests().into_iter().map(|r| r.host).collect()
    }

    /// TCP connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Whole greetings read so far.
    pub fn greetings(&self) -> usize {
        self.shared.greetings.load(Ordering::SeqCst)
    }

    /// Connections whose peer has not left yet.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Resets every connection, as a killed process does.
    pub fn reset_all(&self) {
        self.server.reset_all();
    }

    /// Closes the port; established connections stay.
    pub fn stop_listening(&self) {
        self.server.stop_listening();
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- fake tailscaled: {} connections, {} greetings",
                self.connections(),
                self.greetings()
            );
            for r in self.shared.requests.lock().map(|r| r.clone()).unwrap_or_default() {
                eprintln!(
                    "connection {} asked {}:{} ({})",
                    r.connection,
                    r.host,
                    r.port,
                    transcript::escape(&r.raw)
                );
            }
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Arc<Shared>) {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _ = converse(&mut stream, number, shared);
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

fn converse(stream: &mut TcpStream, number: usize, shared: &Arc<Shared>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let first = fill(stream, &mut bytes, |b| b.len() >= 2 && b.len() >= 2 + b[1] as usize)?;
    let greeting: Vec<u8> = bytes.drain(..2 + bytes[1] as usize).collect();
    let one_segment = first > greeting.len();
    shared.greetings.fetch_add(1, Ordering::SeqCst);
    if !greet(stream, shared)? {
        return Ok(());
    }
    fill(stream, &mut bytes, |b| socks_script::request_len(b).is_some_and(|n| b.len() >= n))?;
    let early = bytes.split_off(socks_script::request_len(&bytes).unwrap_or(bytes.len()));
    let (host, port) = socks_script::request_target(&bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "rig: no SOCKS request"))?;
    let (atyp, at) = (bytes[3], Instant::now());
    let answer = shared.pick(&host);
    let request = Request { connection: number, raw: bytes, host, port, atyp, one_segment, at };
    shared.requests.lock().unwrap().push(request.clone());
    socks_script::play(stream, &request, early, answer, shared)
}

/// Reads until `enough`; returns the length of the first read.
fn fill(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    let mut first = 0;
    while !enough(bytes) {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        first = if first == 0 { n } else { first };
        bytes.extend_from_slice(&chunk[..n]);
    }
    Ok(first)
}

/// Answers the greeting; false when the conversation is over.
fn greet(stream: &mut TcpStream, shared: &Shared) -> io::Result<bool> {
    let greeting = shared.greeting.lock().unwrap().clone();
    match greeting {
        UpstreamGreeting::Normal => socks_script::say(stream, &[5, 0])?,
        UpstreamGreeting::Dribble => socks_script::dribble(stream, &[5, 0])?,
        UpstreamGreeting::Bytes(bytes) => socks_script::say(stream, &bytes)?,
        UpstreamGreeting::Close => return Ok(false),
        UpstreamGreeting::Silent => {
            hold(stream);
            return Ok(false);
        }
        UpstreamGreeting::Reset => {
            raw_connection::abort(stream);
            return Ok(false);
        }
        UpstreamGreeting::NormalThenReset => {
            socks_script::say(stream, &[5, 0])?;
            raw_connection::abort(stream);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps a connection without reading it until its peer leaves.
pub(super) fn hold(stream: &TcpStream) {
    while !peer_left(stream, Duration::from_millis(200)) {}
}

impl Shared {
    fn pick(&self, host: &str) -> UpstreamReply {
        if let Some(answer) = self.turns.lock().unwrap().pop_front() {
            return answer;
        }
        let by_host = self.by_host.lock().unwrap().get(host).cloned();
        by_host.unwrap_or_else(|| self.answer.lock().unwrap().clone())
    }
}
