//! The private service: an HTTP origin that says hello, sends a large file, and sums what it gets.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::process::PATIENCE;
use crate::tailnet::{LATER, PORT};
use crate::wait::pause;

/// Bytes sent each way in the bulk cases: 200 MiB.
pub const BULK: u64 = 200 << 20;

/// How long `/slow` takes to say hello.
const SLOW: Duration = Duration::from_secs(2);

/// The large file both sides know.
pub struct Origin {
    pub file: PathBuf,
    pub sum: String,
}

impl Origin {
    /// Makes the file and serves it at `addresses`; call it in the namespace they belong to.
    pub fn start(dir: &Path, addresses: &[&str]) -> Origin {
        let file = dir.join("bulk");
        write_noise(&file);
        let sum = sum(File::open(&file).expect("the bulk file")).1;
        for at in addresses.iter().flat_map(|address| [(*address, PORT), (*address, LATER)]) {
            let listener = TcpListener::bind(at).expect("the origin's port");
            let shared = Arc::new(file.clone());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let file = Arc::clone(&shared);
                    thread::spawn(move || serve(&stream, &file));
                }
            });
        }
        Origin { file, sum }
    }
}

/// Length and SHA-256, in hexadecimal, of all that `from` yields.
pub fn sum(mut from: impl Read) -> (u64, String) {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut block = vec![0; 256 << 10];
    loop {
        match from.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                hash.update(&block[..n]);
                length += n as u64;
            }
        }
    }
    (length, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Fills the file with bytes that repeat nowhere: xorshift64 from a fixed seed.
fn write_noise(path: &Path) {
    let mut file = File::create(path).expect("the bulk file");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..BULK >> 20 {
        let mut block = Vec::with_capacity(1 << 20);
        for _ in 0..(1 << 20) / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).expect("the bulk file");
    }
}

/// Answers requests on one connection until the peer leaves.
fn serve(stream: &TcpStream, file: &Path) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader) {
        if answer(&request, &mut reader, stream, file).is_err() || request.is_last {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn answer(
    request: &Request,
    body: &mut impl Read,
    mut to: &TcpStream,
    file: &Path,
) -> std::io::Result<()> {
    if request.expects_continue {
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.method == "PUT" {
        let (length, sum) = sum(body.take(request.length));
        return write_text(to, &format!("{length} {sum}\n"));
    }
    if request.path == "/bulk" {
        write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {BULK}\r\n\r\n")?;
        return std::io::copy(&mut File::open(file)?, &mut to).map(|_| ());
    }
    if request.path == "/drip" {
        return drip(to);
    }
    if request.path == "/slow" {
        pause(SLOW);
    }
    let here = to.local_addr()?;
    write_text(to, &format!("hello from {here} to {}\n", request.host))
}

/// Some bytes now and then, until the peer has enough of it.
fn drip(mut to: &TcpStream) -> std::io::Result<()> {
    to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let until = Instant::now() + PATIENCE * 2;
    while Instant::now() < until {
        to.write_all(b"drip\n")?;
        pause(Duration::from_millis(100));
    }
    Ok(())
}

/// In one piece, so that no part of it waits for an acknowledgement of another.
fn write_text(mut to: &TcpStream, text: &str) -> std::io::Result<()> {
    let length = text.len();
    to.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}").as_bytes())
}

/// As much of a request head as this origin looks at.
#[derive(Default)]
struct Request {
    method: String,
    path: String,
    host: String,
    length: u64,
    expects_continue: bool,
    is_last: bool,
}

impl Request {
    fn read(from: &mut impl std::io::BufRead) -> Option<Request> {
        let mut lines = from.take(64 << 10);
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut request = Request { method, path, ..Request::default() };
        loop {
            line.clear();
            lines.read_line(&mut line).ok().filter(|n| *n > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value.trim().to_owned(),
                "content-length" => request.length = value.trim().parse().ok()?,
                "expect" => request.expects_continue = true,
                "connection" => request.is_last = value.trim().eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Some(request)
    }
}
