//! The relay over real loopback sockets. The peers are plain tokio streams.
#![forbid(unsafe_code)]

mod ends;
mod exact;
mod inspection;
mod killed;
mod left;
mod pool;
mod unix;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{
    HalfClose, InspectionVerdict, Meter, PipePool, RelaySettings, RelaySummary, StreamInspector,
};
use crate::lifecycle::connection_cut::Cut;
use crate::sys::{Exiting, Stream};

/// How the relay moves bytes in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Copy,
    Splice,
    /// Switched on and off every few milliseconds.
    Mixed,
}

const MODES: [Mode; 3] = [Mode::Copy, Mode::Splice, Mode::Mixed];

/// A relay under test between two peers, and every handle on it.
struct Bench<Origin = TcpStream> {
    client: TcpStream,
    origin: Origin,
    relay: JoinHandle<RelaySummary>,
    cut: Arc<Cut>,
    pipes: Arc<PipePool>,
    meter: Arc<Meter>,
    upstream_process: Arc<ArcSwapOption<Exiting>>,
}

/// What a test may choose.
struct Choice {
    mode: Mode,
    half_close: HalfClose,
    idle: Duration,
    linger: Duration,
    early_up: Bytes,
    early_down: Bytes,
    buffers: Option<usize>,
    pipes: Arc<PipePool>,
    upstream_process: Option<Exiting>,
    inspector: Option<Script>,
}

/// An inspector by a test's script.
struct Script(Box<Looking>);

type Looking = dyn FnMut(&[u8], bool) -> InspectionVerdict + Send;

impl StreamInspector for Script {
    fn inspect(&mut self, bytes: &[u8], over: bool) -> InspectionVerdict {
        self.0(bytes, over)
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            mode: Mode::Splice,
            half_close: HalfClose::Propagate,
            idle: Duration::from_secs(60),
            linger: Duration::from_secs(60),
            early_up: Bytes::new(),
            early_down: Bytes::new(),
            buffers: None,
            pipes: PipePool::new(8, 4),
            upstream_process: None,
            inspector: None,
        }
    }
}

impl Mode {
    fn bench(self) -> Choice {
        Choice { mode: self, ..Choice::default() }
    }
}

impl Choice {
    async fn start(self) -> Bench {
        let upstream = pair(self.buffers).await;
        self.start_to(upstream).await
    }

    /// To an upstream given as its own end and the relay's.
    async fn start_to<Origin>(self, (origin, theirs): (Origin, Stream)) -> Bench<Origin> {
        let (client, ours) = pair(self.buffers).await;
        let (cut, meter) = (Arc::new(Cut::new()), Arc::new(Meter::default()));
        let splice = Arc::new(AtomicBool::new(self.mode != Mode::Copy));
        let upstream_process = Arc::new(ArcSwapOption::from_pointee(self.upstream_process));
        let settings = RelaySettings {
            idle: self.idle,
            half_close_timeout: self.linger,
            splice: Arc::clone(&splice),
            upstream_process: Arc::clone(&upstream_process),
        };
        let toggle = (self.mode == Mode::Mixed).then(|| tokio::spawn(flip(splice)));
        let pipes = Arc::clone(&self.pipes);
        let (relay_cut, relay_meter) = (Arc::clone(&cut), Arc::clone(&meter));
        let mut inspector = self.inspector;
        let relay = tokio::spawn(async move {
            let relayed = super::relay_streams(
                &ours,
                &theirs,
                self.early_up,
                self.early_down,
                inspector.as_mut().map(|inspector| inspector as &mut dyn StreamInspector),
                self.half_close,
                &settings,
                &self.pipes,
                &relay_meter,
                &relay_cut,
            )
            .await;
            toggle.inspect(JoinHandle::abort);
            relayed
        });
        Bench { client, origin, relay, cut, pipes, meter, upstream_process }
    }
}

async fn flip(splice: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(Duration::from_millis(3)).await;
        splice.fetch_xor(true, Ordering::Relaxed);
    }
}

/// A connected pair: the peer's end, and ours as the relay wants it.
async fn pair(buffers: Option<usize>) -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (peer, ours) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (peer, ours) = (peer.unwrap(), ours.unwrap().0);
    peer.set_nodelay(true).unwrap();
    if let Some(size) = buffers {
        for socket in [socket2::SockRef::from(&peer), socket2::SockRef::from(&ours)] {
            socket.set_recv_buffer_size(size).unwrap();
            socket.set_send_buffer_size(size).unwrap();
        }
    }
    let fd: OwnedFd = ours.into_std().unwrap().into();
    crate::sys::tune(&fd).unwrap();
    (peer, Stream::new(fd).unwrap())
}

/// A fixed stream of pseudo-random bytes (xorshift64), the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn sha(bytes: &[u8]) -> String {
    format!("{:x?}", Sha256::digest(bytes))
}

/// Writes all in random chunks of 1..70,000 bytes, then FIN.
async fn write_in_chunks(mut to: impl AsyncWriteExt + Unpin, bytes: Vec<u8>, seed: u64) {
    let (mut rest, mut state) = (&bytes[..], seed | 1);
    while !rest.is_empty() {
        let n = (next(&mut state) as usize % 70_000 + 1).min(rest.len());
        to.write_all(&rest[..n]).await.unwrap();
        rest = &rest[n..];
    }
    to.shutdown().await.unwrap();
}

async fn read_all(mut from: impl AsyncReadExt + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Reads until the end, and says with what it ended; bytes read before an error are kept.
async fn read_until_end(from: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, std::io::Result<()>) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return (bytes, Ok(())),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

/// A deadline on everything a test waits for.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within 20 s"),
    }
}

fn was_reset(end: &std::io::Result<()>) -> bool {
    end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}
