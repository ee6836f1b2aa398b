//! What a managed tailscaled writes to its standard error: read always, passed on within bounds.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::secret::redacted;

/// Longest line passed on, in bytes.
const LINE: usize = 4096;
/// Lines passed on in one second; what comes beyond is counted.
const LINES: u32 = 100;
/// Read at once.
const CHUNK: usize = 64 * 1024;

/// What is remembered of the present process.
#[derive(Debug)]
pub(super) struct ChildLog {
    port: watch::Sender<Option<SocketAddr>>,
    kept: Mutex<KeptLines>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct KeptLines {
    last: Option<String>,
    unknown_flag: Option<String>,
}

impl ChildLog {
    /// `dropped` counts the lines that were not passed on.
    pub(super) fn new(dropped: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { port: watch::Sender::new(None), kept: Mutex::default(), dropped })
    }

    /// The SOCKS5 port, once it was named.
    pub(super) async fn named_port(&self) -> SocketAddr {
        let mut port = self.port.subscribe();
        loop {
            let named = *port.borrow_and_update();
            match named {
                Some(port) => return port,
                None if port.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }

    /// The last line, without its time.
    pub(super) fn last_line(&self) -> Option<String> {
        self.lock_kept().last.clone()
    }

    /// The flag it does not know.
    pub(super) fn unknown_flag(&self) -> Option<String> {
        self.lock_kept().unknown_flag.clone()
    }

    /// Reads to the end. Never slower than the writer: a full pipe would stop it.
    pub(super) async fn read_to_end(self: Arc<Self>, mut from: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; CHUNK];
        let mut lines = LineSplitter::default();
        let mut rate = LineRate { second: Instant::now(), passed: 0 };
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            lines.split_lines(&chunk[..length], |line| self.take_line(line, &mut rate));
        }
        lines.take_last_line(|line| self.take_line(line, &mut rate));
    }

    fn take_line(&self, line: &[u8], rate: &mut LineRate) {
        let text = to_printable(line);
        let text = redacted(without_time(&text));
        if let Some((_, port)) = text.split_once("SOCKS5 listening on ") {
            self.port.send_replace(port.trim().parse().ok());
        }
        {
            let mut kept = self.lock_kept();
            if let Some((_, flag)) = text.split_once("flag provided but not defined: ") {
                kept.unknown_flag = Some(flag.trim().to_owned());
            }
            kept.last = Some(text.chars().take(300).collect());
        }
        if rate.may_pass(Instant::now()) {
            tracing::debug!(stream = "child", "tailscaled: {text}");
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock_kept(&self) -> MutexGuard<'_, KeptLines> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts lines together, each cut at [`LINE`].
#[derive(Default)]
struct LineSplitter {
    buffer: Vec<u8>,
}

impl LineSplitter {
    fn split_lines(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.keep_partial(&bytes[..at]);
            line(&self.buffer);
            self.buffer.clear();
            bytes = &bytes[at + 1..];
        }
        self.keep_partial(bytes);
    }

    fn take_last_line(&self, mut line: impl FnMut(&[u8])) {
        if !self.buffer.is_empty() {
            line(&self.buffer);
        }
    }

    fn keep_partial(&mut self, bytes: &[u8]) {
        let room = LINE - self.buffer.len();
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

struct LineRate {
    second: Instant,
    passed: u32,
}

impl LineRate {
    fn may_pass(&mut self, now: Instant) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self { second: now, passed: 0 };
        }
        self.passed += 1;
        self.passed <= LINES
    }
}

/// Text for a terminal: what is no text, and what steers one, is escaped.
fn to_printable(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if c.is_control() && c != '\t' => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// The line behind Go's `2006/01/02 15:04:05 `.
fn without_time(line: &str) -> &str {
    let shape = |text: &str| {
        text.bytes().zip("0000/00/00 00:00:00 ".bytes()).all(|(byte, like)| match like {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
    };
    match line.get(..20) {
        Some(time) if shape(time) => &line[20..],
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = LineSplitter::default();
        let mut seen = Vec::new();
        let mut take = |line: &[u8]| seen.push(redacted(&to_printable(line)).into_owned());
        for piece in pieces {
            lines.split_lines(piece, &mut take);
        }
        lines.take_last_line(&mut take);
        seen
    }

    #[test]
    fn k3_a_key_over_two_writes_is_made_unreadable() {
        let seen = read(&[b"key tskey-auth-CAN", b"ARY-1 not valid\nnext"]);
        assert_eq!(seen, ["key [redacted] not valid", "next"]);
        let long = [&vec![b'x'; LINE - 8][..], b"tskey-auth-CANARY\n"].concat();
        assert!(!read(&[&long])[0].contains("auth"));
    }

    #[test]
    fn t14_lines_are_cut_and_bytes_escaped() {
        assert_eq!(
            read(&[&[b'a'; 10_000], b"\n\x1b[2J\xff\n"]),
            ["a".repeat(LINE), "\\u{1b}[2J\\xff".to_owned()]
        );
    }

    #[test]
    fn t14_a_hundred_lines_a_second() {
        let start = Instant::now();
        let mut rate = LineRate { second: start, passed: 0 };
        assert_eq!((0..500).filter(|_| rate.may_pass(start)).count(), 100);
        assert!(rate.may_pass(start + Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn port_flag_and_last_line_are_noticed() {
        let log = ChildLog::new(Arc::default());
        let text = "2026/11/24 06:00:00 SOCKS5 listening on 127.0.0.1:4711\n\
                    flag provided but not defined: -no-logs-no-support\nUsage of tailscaled:";
        Arc::clone(&log).read_to_end(text.as_bytes()).await;
        assert_eq!(log.named_port().await, "127.0.0.1:4711".parse().unwrap());
        assert_eq!(log.unknown_flag().as_deref(), Some("-no-logs-no-support"));
        assert_eq!(log.last_line().as_deref(), Some("Usage of tailscaled:"));
    }
}
