//! What the client does: bulk, short connections, round trips, idle connections.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::far_end::{send, swallow};
use crate::targets::{Speech, Target};

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

/// A tunnel to the far end through the target.
async fn open(port: u16, speech: Speech) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match speech {
        Speech::Nothing => {}
        Speech::Socks5 => ask_socks5(&mut stream).await,
        Speech::Connect => ask_connect(&mut stream).await,
    }
    stream
}

async fn ask_socks5(stream: &mut TcpStream) {
    stream.write_all(&[5, 1, 0]).await.unwrap();
    stream.read_exact(&mut [0; 2]).await.unwrap();
    let request = [&[5, 1, 0, 3, 15][..], b"far.example.com", &[0, 80]].concat();
    stream.write_all(&request).await.unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..2], [5, 0], "refused");
}

async fn ask_connect(stream: &mut TcpStream) {
    let request = "CONNECT far.example.com:80 HTTP/1.1\r\nHost: far.example.com:80\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut head, mut have) = ([0; 256], 0);
    while !head[..have].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[have..]).await.unwrap() {
            0 => panic!("the target closed during its answer"),
            n => have += n,
        }
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "refused");
}

async fn carry(port: u16, speech: Speech, way: Way, bytes: u64) {
    let mut stream = open(port, speech).await;
    let order = match way {
        Way::Down => b'D',
        Way::Up => b'U',
    };
    stream.write_all(&[&[order][..], &bytes.to_be_bytes()].concat()).await.unwrap();
    match way {
        Way::Down => {
            swallow(&mut stream, bytes).await.unwrap();
            stream.write_all(b".").await.unwrap();
        }
        Way::Up => {
            send(&mut stream, bytes).await.unwrap();
            stream.read_u8().await.unwrap();
        }
    }
}

/// Waits for all; a failed one fails the run.
async fn join(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Carries `bulk`, its streams at the same time.
pub(crate) async fn bulk(target: &Target, bulk: Bulk) {
    let mut streams = JoinSet::new();
    for _ in 0..bulk.streams {
        let each = bulk.bytes / bulk.streams;
        streams.spawn(carry(target.port(), target.speech(), bulk.way, each));
    }
    join(streams).await;
}

/// Connects, has one byte echoed, closes: `n` times, 32 at a time.
pub(crate) async fn connections(target: &Target, n: usize) {
    let (port, speech) = (target.port(), target.speech());
    let mut workers = JoinSet::new();
    for _ in 0..32 {
        workers.spawn(async move {
            for _ in 0..n / 32 {
                let mut stream = open(port, speech).await;
                stream.write_all(b"E.").await.unwrap();
                stream.read_u8().await.unwrap();
            }
        });
    }
    join(workers).await;
}

/// Seconds of each of `n` round trips of 64 bytes on one connection.
pub(crate) async fn round_trips(target: &Target, n: usize) -> Vec<f64> {
    let mut stream = open(target.port(), target.speech()).await;
    stream.write_all(b"E").await.unwrap();
    let (mut seconds, mut bytes) = (Vec::with_capacity(n), [1; 64]);
    for _ in 0..n {
        let began = Instant::now();
        stream.write_all(&bytes).await.unwrap();
        stream.read_exact(&mut bytes).await.unwrap();
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds
}

/// `n` connections that have had a byte echoed and then rest.
pub(crate) async fn idle(target: &Target, n: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(n);
    for _ in 0..n {
        let mut stream = open(target.port(), target.speech()).await;
        stream.write_all(b"E.").await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    held
}
