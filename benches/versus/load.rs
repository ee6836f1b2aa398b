//! What the client does: bulk, short connections, round trips, idle connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::far_end::{send, swallow};
use crate::targets::{Speech, Started};

/// A bulk transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk {
    pub(crate) way: Way,
    pub(crate) streams: u64,
    /// Of all streams together.
    pub(crate) bytes: u64,
}

/// Where bulk goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Down,
    Up,
}

/// The door a client knocks at, and the host it asks for there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    port: u16,
    speech: Speech,
}

impl From<&Started> for Door {
    fn from(target: &Started) -> Door {
        Door { port: target.port, speech: target.speech }
    }
}

pub(crate) const HOST: &str = "far.example.com";

/// A tunnel to the far end through the target.
async fn open(door: Door, host: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", door.port)).await?;
    stream.set_nodelay(true)?;
    match door.speech {
        Speech::Nothing => {}
        Speech::Socks5 => {
            let name = [&[3, host.len() as u8][..], host.as_bytes()].concat();
            ask_socks5(&mut stream, &name).await?;
        }
        Speech::Socks5Address => ask_socks5(&mut stream, &[1, 192, 0, 2, 7]).await?,
        Speech::Connect => ask_connect(&mut stream, host).await?,
    }
    Ok(stream)
}

async fn ask_socks5(stream: &mut TcpStream, address: &[u8]) -> io::Result<()> {
    stream.write_all(&[5, 1, 0]).await?;
    stream.read_exact(&mut [0; 2]).await?;
    stream.write_all(&[&[5, 1, 0][..], address, &[0, 80]].concat()).await?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await?;
    if reply[1] == 0 { Ok(()) } else { Err(refused(&reply)) }
}

async fn ask_connect(stream: &mut TcpStream, host: &str) -> io::Result<()> {
    let request = format!("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut have) = ([0; 512], 0);
    while !head[..have].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[have..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let yes = head.starts_with(b"HTTP/1.") && head[8..].starts_with(b" 200");
    if yes { Ok(()) } else { Err(refused(&head[..have])) }
}

fn refused(said: &[u8]) -> io::Error {
    io::Error::other(format!("refused: {}", String::from_utf8_lossy(said)))
}

async fn carry(door: Door, way: Way, bytes: u64) -> io::Result<()> {
    let mut stream = open(door, HOST).await?;
    let order = match way {
        Way::Down => b'D',
        Way::Up => b'U',
    };
    stream.write_all(&[&[order][..], &bytes.to_be_bytes()].concat()).await?;
    match way {
        Way::Down => {
            swallow(&mut stream, bytes).await?;
            stream.write_all(b".").await
        }
        Way::Up => {
            send(&mut stream, bytes).await?;
            stream.read_u8().await.map(drop)
        }
    }
}

/// Waits for all; the first failure is the whole's.
async fn join<T: 'static>(mut tasks: JoinSet<io::Result<T>>) -> io::Result<Vec<T>> {
    let mut done = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        done.push(ended.map_err(io::Error::other)??);
    }
    Ok(done)
}

/// Carries `bulk`, its streams at the same time.
pub(crate) async fn bulk(target: &Started, bulk: Bulk) -> io::Result<()> {
    let mut streams = JoinSet::new();
    for _ in 0..bulk.streams {
        streams.spawn(carry(target.into(), bulk.way, bulk.bytes / bulk.streams));
    }
    join(streams).await.map(drop)
}

/// A tunnel that has had one byte echoed.
async fn echoed(door: Door, host: &str) -> io::Result<TcpStream> {
    let mut stream = open(door, host).await?;
    stream.write_all(b"E.").await?;
    stream.read_u8().await?;
    Ok(stream)
}

/// Connects, has one byte echoed, closes; the first such exchange is the start's last part too.
pub(crate) async fn once(door: Door, host: &str) -> io::Result<()> {
    echoed(door, host).await.map(drop)
}

/// Connections made within `time`, `at_once` at a time.
pub(crate) async fn connections(
    target: &Started,
    at_once: usize,
    time: Duration,
) -> io::Result<usize> {
    let (door, end) = (Door::from(target), Instant::now() + time);
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        workers.spawn(async move {
            let mut made = 0;
            while Instant::now() < end {
                once(door, HOST).await?;
                made += 1;
            }
            Ok(made)
        });
    }
    Ok(join(workers).await?.iter().sum())
}

/// One connection to each of `n` different hosts, 32 at a time, numbered from `first`.
pub(crate) async fn hosts(target: &Started, first: usize, n: usize) -> io::Result<()> {
    let (door, next) = (Door::from(target), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..32 {
        let next = Arc::clone(&next);
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= n {
                    return Ok(());
                }
                once(door, &format!("h{}.example.com", first + number)).await?;
            }
        });
    }
    join(workers).await.map(drop)
}

/// Seconds of each of `n` round trips of 64 bytes on one connection, in order of length.
pub(crate) async fn round_trips(target: &Started, n: usize) -> io::Result<Vec<f64>> {
    let mut stream = open(target.into(), HOST).await?;
    stream.write_all(b"E").await?;
    let (mut seconds, mut bytes) = (Vec::with_capacity(n), [1; 64]);
    for _ in 0..n {
        let began = Instant::now();
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// `n` connections that have had a byte echoed and then rest; made 16 at a time.
pub(crate) async fn idle(target: &Started, n: usize) -> io::Result<Vec<TcpStream>> {
    let (door, next) = (Door::from(target), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..16 {
        let next = Arc::clone(&next);
        workers.spawn(async move {
            let mut held = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < n {
                held.push(echoed(door, HOST).await?);
            }
            Ok(held)
        });
    }
    Ok(join(workers).await?.into_iter().flatten().collect())
}
