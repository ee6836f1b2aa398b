//! A stream of `watch-ipn-bus`, read by hand.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// An answer of `watch-ipn-bus`: its head is there once the watcher is registered.
pub struct IpnBus(BufReader<UnixStream>);

impl IpnBus {
    /// Asks with this mask, as it stands; the status and the body of an answer that is no stream.
    pub fn ask(socket: &Path, mask: &str, patience: Duration) -> Result<IpnBus, (u16, String)> {
        let mut stream = UnixStream::connect(socket).expect("LocalAPI's socket");
        stream.set_read_timeout(Some(patience)).expect("a timeout");
        let request = format!(
            "GET /localapi/v0/watch-ipn-bus?mask={mask} HTTP/1.1\r\nHost: local-tailscaled.sock\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("LocalAPI");
        let mut bus = IpnBus(BufReader::new(stream));
        let status = bus.line().split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.expect("an HTTP status");
        let mut length = 0;
        loop {
            let line = bus.line().to_ascii_lowercase();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        if status == 200 {
            return Ok(bus);
        }
        let mut body = vec![0; length];
        bus.0.read_exact(&mut body).expect("a body");
        Err((status, String::from_utf8_lossy(&body).trim().to_owned()))
    }

    /// The same where it has to be a stream.
    #[track_caller]
    pub fn open(socket: &Path, mask: u64, patience: Duration) -> IpnBus {
        IpnBus::ask(socket, &mask.to_string(), patience).unwrap_or_else(|(status, said)| {
            panic!("watch-ipn-bus?mask={mask} answered {status}: {said}")
        })
    }

    /// The next notification, a chunk that is one line; none at the stream's end.
    #[track_caller]
    pub fn next_message(&mut self) -> Option<Value> {
        self.try_next().expect("the bus")
    }

    /// The same; an error when nothing came in time. Only between two chunks can it be tried again.
    pub fn try_next(&mut self) -> io::Result<Option<Value>> {
        // A chunk is there whole or not at all: it is written at once.
        self.0.fill_buf()?;
        let size = usize::from_str_radix(self.line().trim(), 16).unwrap_or(0);
        let line = self.line();
        if size == 0 {
            return Ok(None);
        }
        assert_eq!(line.len(), size, "one line, one chunk: {line}");
        self.line();
        Ok(Some(serde_json::from_str(&line).expect("a line is JSON")))
    }

    /// How long the next reads wait.
    pub fn patience(&self, patience: Duration) {
        self.0.get_ref().set_read_timeout(Some(patience)).expect("a timeout");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line of the bus");
        line
    }
}
