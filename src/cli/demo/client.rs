//! Clients of the demonstration: each speaks its protocol byte by byte, over real sockets.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::StepFailure;

/// Longest any one step may take, of a long stream any one piece.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many bytes went up and down.
pub(super) type BytesMoved = (u64, u64);

fn failed(error: impl std::fmt::Display) -> StepFailure {
    error.to_string()
}

async fn patient<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, StepFailure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(failed),
        Err(_) => Err(format!("no end within {PATIENCE:?}")),
    }
}

/// Opens a tunnel: sends each message, and expects each answer's beginning in full.
pub(super) async fn tunnel(
    proxy: SocketAddr,
    dialogue: &[(&[u8], usize, &[u8])],
) -> Result<TcpStream, StepFailure> {
    patient(async {
        let mut stream = TcpStream::connect(proxy).await?;
        for (ask, length, expected) in dialogue {
            stream.write_all(ask).await?;
            let mut answer = vec![0; *length];
            stream.read_exact(&mut answer).await?;
            if !answer.starts_with(expected) {
                return Err(io::Error::other(format!("answered {}", answer.escape_ascii())));
            }
        }
        Ok(stream)
    })
    .await
}

/// Sends `bytes` through a tunnel to the echo service, half-closes, and compares what comes back.
pub(super) async fn echo(mut stream: TcpStream, bytes: usize) -> Result<BytesMoved, StepFailure> {
    let sent: Vec<u8> = (0..bytes).map(|at| (at * 7 % 251) as u8).collect();
    let mut back = vec![0; bytes];
    patient(async {
        let (mut read, mut write) = stream.split();
        let (wrote, came) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        wrote?;
        came.map(drop)
    })
    .await?;
    if back == sent {
        Ok((bytes as u64, bytes as u64))
    } else {
        Err("the bytes that came back are others".to_owned())
    }
}

/// Sends one message and reads to the end.
pub(super) async fn whole(proxy: SocketAddr, ask: &[u8]) -> Result<Vec<u8>, StepFailure> {
    patient(async {
        let mut stream = TcpStream::connect(proxy).await?;
        stream.write_all(ask).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    })
    .await
}

/// Sends requests one after another over one connection, and reads each answer by its length.
pub(super) async fn requests(proxy: SocketAddr, asks: &[&str]) -> Result<Vec<String>, StepFailure> {
    patient(async {
        let mut stream = TcpStream::connect(proxy).await?;
        let mut answers = Vec::new();
        for ask in asks {
            stream.write_all(ask.as_bytes()).await?;
            answers.push(answer(&mut stream).await?);
        }
        Ok(answers)
    })
    .await
}

async fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(head + &String::from_utf8_lossy(&body))
}

/// Reads a stream to its end and counts what came; every byte of the body must be the same.
pub(super) async fn count_to_end(mut stream: TcpStream, ask: &[u8]) -> Result<u64, StepFailure> {
    patient(stream.write_all(ask)).await?;
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    loop {
        // How long all of it takes is the machine's affair.
        match patient(stream.read(&mut buffer)).await? {
            0 => return Ok(count),
            n => count += memchr::memchr_iter(0x5a, &buffer[..n]).count() as u64,
        }
    }
}

/// The series of `/metrics` with their values.
pub(super) async fn metrics(admin: SocketAddr) -> Result<BTreeMap<String, f64>, StepFailure> {
    let ask = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&whole(admin, ask.as_bytes()).await?).into_owned();
    let series = text.lines().filter(|line| line.starts_with("tailrace_"));
    Ok(series
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect())
}
