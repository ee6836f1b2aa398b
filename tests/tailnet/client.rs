//! Clients made of bytes, where curl hides what matters: when the first byte comes, and how a
//! connection ends.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::PATIENCE;
use crate::tailnet::PORT;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Rst,
}

/// A tunnel by HTTP CONNECT to an origin that drips; call it in the sandbox's namespace.
pub fn dripping(proxy: &str, host: &str) -> io::Result<TcpStream> {
    let stream = tunnel(proxy, host)?;
    write!(&stream, "GET /drip HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    // The answer has begun: the stream is live.
    BufReader::new(&stream).read_line(&mut String::new())?;
    Ok(stream)
}

/// A tunnel by HTTP CONNECT; call it in the sandbox's namespace.
pub fn tunnel(proxy: &str, host: &str) -> io::Result<TcpStream> {
    tunnel_within(PATIENCE, proxy, host)
}

fn tunnel_within(limit: Duration, proxy: &str, host: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(limit))?;
    let request = format!("CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        reader.read_to_string(&mut line)?;
        return Err(io::Error::other(line));
    }
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    Ok(stream)
}

/// Reads to the end of it.
pub fn end(stream: &TcpStream) -> End {
    rest(stream).1
}

/// What is still to be read, and how it ends.
pub fn rest(mut stream: &TcpStream) -> (String, End) {
    let mut got = Vec::new();
    let text = |got: &[u8]| String::from_utf8_lossy(got).into_owned();
    let mut block = [0; 4096];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return (text(&got), End::Fin),
            Ok(length) => got.extend_from_slice(&block[..length]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return (text(&got), End::Rst);
            }
            Err(error) => panic!("neither FIN nor RST: {error}"),
        }
    }
}

/// How long an answer may take: a handshake that tailscaled loses is not said again within it.
const FIRST_BYTE: Duration = Duration::from_secs(2);

/// From connecting to a SOCKS5 port to the answer of `/hello`; call it in the namespace.
pub fn first_byte(socks: &str, host: &str) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(socks)?;
    stream.set_read_timeout(Some(FIRST_BYTE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[5, 1, 0])?;
    stream.read_exact(&mut [0; 2])?;
    let length = u8::try_from(host.len()).map_err(io::Error::other)?;
    let request = [&[5, 1, 0, 3, length], host.as_bytes(), &PORT.to_be_bytes()].concat();
    stream.write_all(&request)?;
    skip_reply(&mut stream)?;
    hello(&stream, host)?;
    Ok(started.elapsed())
}

/// The same by HTTP CONNECT.
pub fn first_byte_by_connect(proxy: &str, host: &str) -> io::Result<Duration> {
    let started = Instant::now();
    let stream = tunnel_within(FIRST_BYTE, proxy, host)?;
    stream.set_nodelay(true)?;
    hello(&stream, host)?;
    Ok(started.elapsed())
}

/// The whole answer is read and the client leaves first: see `Curl::at`.
fn hello(stream: &TcpStream, host: &str) -> io::Result<()> {
    let mut to = stream;
    to.write_all(format!("GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut lines = BufReader::new(stream).lines();
    lines.by_ref().map_while(Result::ok).find(|line| line.is_empty());
    lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())).map(drop)
}

/// RFC 1928, 6: the address bound may be of any kind.
fn skip_reply(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let address = match head {
        [_, 0, _, 1] => 4,
        [_, 0, _, 4] => 16,
        [_, said, ..] => return Err(io::Error::other(format!("SOCKS5 reply {said}"))),
    };
    stream.read_exact(&mut vec![0; address + 2])
}
