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
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "CONNECT {host}:{PORT} HTTP/1.1\r\n\r\n")?;
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

/// From connecting to a SOCKS5 port to the first byte of `/hello`; call it in the namespace.
pub fn first_byte(socks: &str, host: &str) -> Duration {
    let started = Instant::now();
    let mut stream = TcpStream::connect(socks).expect("the SOCKS5 port");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.write_all(&[5, 1, 0]).expect("a greeting");
    let mut greeted = [0; 2];
    stream.read_exact(&mut greeted).expect("the greeting's answer");
    let length = u8::try_from(host.len()).expect("a name");
    let request = [&[5, 1, 0, 3, length], host.as_bytes(), &PORT.to_be_bytes()].concat();
    stream.write_all(&request).expect("a request");
    skip_reply(&mut stream, host);
    write!(stream, "GET /hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_exact(&mut [0]).expect("a first byte");
    started.elapsed()
}

/// RFC 1928, 6: the address bound may be of any kind.
fn skip_reply(stream: &mut TcpStream, host: &str) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("a reply");
    assert_eq!(head[1], 0, "SOCKS5 refusal for {host}");
    let address = match head[3] {
        1 => 4,
        4 => 16,
        kind => panic!("address type {kind}"),
    };
    stream.read_exact(&mut vec![0; address + 2]).expect("the bound address");
}
