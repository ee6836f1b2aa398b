//! Scripted servers behind the upstream: what each does with a connection, and what it saw.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::raw_connection::{ConnectionEnd, abort, length_until, wait_delivered};
use super::server::{Server, peer_left, spawn};
use super::wait::{PATIENCE, eventually, pause};

/// Bytes of a visit that are kept as they are; the digest and the count cover all.
const KEPT: usize = 4 << 20;

/// What one connection to an origin brought.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRecord {
    /// The first 4 MiB received.
    pub received: Vec<u8>,
    /// All bytes received.
    pub total: u64,
    /// How the sending side ended; `None` while it has not.
    pub end: Option<ConnectionEnd>,
    digest: Sha256,
}

impl ConnectionRecord {
    /// SHA-256 of all received bytes, in hex.
    pub fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.received.len());
        self.received.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.total += bytes.len() as u64;
        self.digest.update(bytes);
    }
}

/// SHA-256 of `bytes`, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One connection, as the script of an origin handles it: reads are written down.
pub struct OriginConnection {
    /// The connection.
    pub stream: TcpStream,
    number: usize,
    visits: Arc<Mutex<Vec<ConnectionRecord>>>,
}

impl OriginConnection {
    /// Reads once and writes it down; 0 at the end, whichever it was.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        let result = loop {
            match self.stream.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let mut visits = self.visits.lock().unwrap();
        let visit = &mut visits[self.number];
        match result {
            Ok(0) => visit.end = Some(ConnectionEnd::Fin),
            Ok(n) => visit.take(&buf[..n]),
            Err(_) => visit.end = Some(ConnectionEnd::Reset),
        }
        result.unwrap_or(0)
    }

    /// Reads to the end and writes it down.
    pub fn read_to_end(&mut self) {
        let mut chunk = vec![0; 65_536];
        while self.read(&mut chunk) > 0 {}
    }

    /// Reads exactly `n` bytes; false if the end came before.
    pub fn read_n(&mut self, n: usize) -> bool {
        let mut left = n;
        let mut chunk = vec![0; 65_536];
        while left > 0 {
            let want = left.min(chunk.len());
            match self.read(&mut chunk[..want]) {
                0 => return false,
                got => left -= got,
            }
        }
        true
    }

    /// Reads up to and including `end`, not a byte more; none if the connection ended before.
    pub fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let (mut raw, mut chunk) = (Vec::new(), vec![0; 16_384]);
        while !raw.ends_with(end) {
            let wanted = match self.stream.peek(&mut chunk) {
                Ok(seen @ 1..) => length_until(&raw, &chunk[..seen], end),
                _ => 1, // the read says and writes down what is there
            };
            match self.read(&mut chunk[..wanted]) {
                0 => return None,
                got => raw.extend_from_slice(&chunk[..got]),
            }
        }
        Some(raw)
    }

    /// Sends; a peer that is gone is no error here.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends FIN.
    pub fn fin(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A signal a test gives to a script that waits for it.
#[derive(Clone, Default)]
pub struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    /// A closed gate.
    pub fn new() -> Latch {
        Latch::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open (a minute at most, so that a failed test leaves no thread behind).
    pub fn wait(&self) {
        let shut = self.0.0.lock().unwrap();
        let _ = self.0.1.wait_timeout_while(shut, Duration::from_secs(60), |open| !*open);
    }
}

/// A scripted server.
pub struct Origin {
    server: Server,
    visits: Arc<Mutex<Vec<ConnectionRecord>>>,
}

impl Origin {
    /// Runs `script` for every connection.
    pub fn start(script: impl Fn(&mut OriginConnection) + Send + Sync + 'static) -> Origin {
        Origin::on("127.0.0.1:0".parse().unwrap(), script)
    }

    /// The same on a given address.
    pub fn on(
        address: SocketAddr,
        script: impl Fn(&mut OriginConnection) + Send + Sync + 'static,
    ) -> Origin {
        let visits = Arc::new(Mutex::new(Vec::new()));
        let seen = visits.clone();
        let server = Server::on(address, move |stream| {
            let number = {
                let mut list = seen.lock().unwrap();
                list.push(ConnectionRecord::default());
                list.len() - 1
            };
            script(&mut OriginConnection { stream, number, visits: seen.clone() });
        });
        Origin { server, visits }
    }

    /// Sends back what it gets; FIN for FIN.
    pub fn echo() -> Origin {
        Origin::echo_on("127.0.0.1:0".parse().unwrap())
    }

    /// The same on a given address.
    pub fn echo_on(address: SocketAddr) -> Origin {
        Origin::on(address, |guest| {
            let mut chunk = vec![0; 65_536];
            loop {
                match guest.read(&mut chunk) {
                    0 => return guest.fin(),
                    n => {
                        if !guest.send(&chunk[..n]) {
                            return;
                        }
                    }
                }
            }
        })
    }

    /// Speaks first: `bytes`, then FIN, then reads to the end.
    pub fn send(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Origin::start(move |guest| {
            guest.send(&bytes);
            guest.fin();
            guest.read_to_end();
        })
    }

    /// Reads to FIN, and only then sends `bytes` and FIN.
    pub fn send_after_eof(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Origin::start(move |guest| {
            guest.read_to_end();
            guest.send(&bytes);
            guest.fin();
        })
    }

    /// Sends `bytes`, waits until the next hop's kernel has them, then resets.
    pub fn send_then_reset(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Origin::start(move |guest| {
            guest.send(&bytes);
            wait_delivered(&guest.stream);
            abort(&guest.stream);
        })
    }

    /// Sends `bytes`, and resets when `gate` opens: through several hops only the last knows that they came.
    pub fn send_and_reset_at(bytes: impl Into<Vec<u8>>, gate: &Latch) -> Origin {
        let (bytes, gate) = (bytes.into(), gate.clone());
        Origin::start(move |guest| {
            guest.send(&bytes);
            gate.wait();
            abort(&guest.stream);
        })
    }

    /// Reads `n` bytes, then resets.
    pub fn reset_after_reading(n: usize) -> Origin {
        Origin::start(move |guest| {
            guest.read_n(n);
            abort(&guest.stream);
        })
    }

    /// Reads `piece` bytes, rests, and so on; FIN for FIN.
    pub fn slow_reader(piece: usize, rest: Duration) -> Origin {
        Origin::start(move |guest| {
            let mut chunk = vec![0; piece];
            while guest.read(&mut chunk) > 0 {
                pause(rest);
            }
            guest.fin();
        })
    }

    /// Never reads, never sends, keeps the connection while its peer does.
    pub fn never_reader() -> Origin {
        Origin::start(|guest| while !peer_left(&guest.stream, Duration::from_millis(200)) {})
    }

    /// Reads all, sends nothing but FIN at the end.
    pub fn sink() -> Origin {
        Origin::start(|guest| {
            guest.read_to_end();
            guest.fin();
        })
    }

    /// Sends `down` and reads at the same time; FIN when sent, reads to the end.
    pub fn both_ways(down: impl Into<Vec<u8>>) -> Origin {
        let down = Arc::new(down.into());
        Origin::start(move |guest| {
            let (mut out, bytes) = (guest.stream.try_clone().unwrap(), down.clone());
            spawn(move || {
                let _ = out.write_all(&bytes);
                let _ = out.shutdown(Shutdown::Write);
            });
            guest.read_to_end();
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Every connection so far.
    pub fn visits(&self) -> Vec<ConnectionRecord> {
        self.visits.lock().unwrap().clone()
    }

    /// The only visit, once it has ended.
    #[track_caller]
    pub fn only_visit(&self) -> ConnectionRecord {
        eventually("the origin's one visit has ended", PATIENCE, || {
            self.visits.lock().unwrap().first().is_some_and(|v| v.end.is_some())
        });
        let visits = self.visits();
        assert_eq!(visits.len(), 1, "visits to the origin");
        visits.into_iter().next().unwrap()
    }

    /// Resets every connection.
    pub fn reset_all(&self) {
        self.server.reset_all();
    }

    /// Closes the port.
    pub fn stop_listening(&self) {
        self.server.stop_listening();
    }
}
