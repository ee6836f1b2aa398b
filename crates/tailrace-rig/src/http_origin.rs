//! An HTTP origin that writes down requests byte for byte and answers canned ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::http::HttpHead;
use super::origin::{Origin, OriginConnection};

/// A request as the origin got it, byte for byte.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Its head.
    pub head: HttpHead,
    /// Its body with the framing that was on the wire (chunk sizes, trailers).
    pub body: Vec<u8>,
    /// Which connection to the origin, from 0.
    pub connection: usize,
}

/// What the HTTP origin does with a request.
#[derive(Clone)]
pub enum HttpReply {
    /// These bytes; the connection stays.
    Keep(Vec<u8>),
    /// These bytes, then FIN.
    Close(Vec<u8>),
    /// These bytes (a 101), then everything is echoed.
    Upgrade(Vec<u8>),
}

impl HttpReply {
    /// `200 OK` with a text body and its length.
    pub fn ok(body: &str) -> HttpReply {
        HttpReply::Keep(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(),
        )
    }
}

/// An HTTP/1.1 origin.
pub struct HttpOrigin {
    origin: Origin,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

impl HttpOrigin {
    /// Answers each whole request by `answer`; `Expect: 100-continue` gets its 100 first.
    pub fn start(answer: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static) -> HttpOrigin {
        HttpOrigin::with_interim(|_| None, answer)
    }

    /// `200 OK` with this body for every request.
    pub fn ok(body: &'static str) -> HttpOrigin {
        HttpOrigin::start(move |_| HttpReply::ok(body))
    }

    /// `interim` may say bytes when the head is there, before the body is read (1xx).
    pub fn with_interim(
        interim: impl Fn(&HttpHead) -> Option<Vec<u8>> + Send + Sync + 'static,
        answer: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static,
    ) -> HttpOrigin {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let connections = AtomicUsize::new(0);
        let origin = Origin::start(move |guest| {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            serve(guest, number, &interim, &answer, &seen);
        });
        HttpOrigin { origin, requests }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    /// Whole requests so far.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Everything every connection brought, whole request or not.
    pub fn visits(&self) -> Vec<super::origin::ConnectionRecord> {
        self.origin.visits()
    }
}

fn serve(
    guest: &mut OriginConnection,
    connection: usize,
    interim: &impl Fn(&HttpHead) -> Option<Vec<u8>>,
    answer: &impl Fn(&HttpRequest) -> HttpReply,
    seen: &Mutex<Vec<HttpRequest>>,
) {
    while let Some(head) = read_head(guest) {
        if let Some(bytes) = interim(&head) {
            guest.send(&bytes);
        } else if head.get("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
            guest.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Some(body) = read_body(guest, &head) else { return };
        let request = HttpRequest { head, body, connection };
        seen.lock().unwrap().push(request.clone());
        match answer(&request) {
            HttpReply::Keep(bytes) => {
                guest.send(&bytes);
            }
            HttpReply::Close(bytes) => {
                guest.send(&bytes);
                guest.fin();
                return guest.read_to_end();
            }
            HttpReply::Upgrade(bytes) => {
                guest.send(&bytes);
                return echo(guest);
            }
        }
    }
}

fn echo(guest: &mut OriginConnection) {
    let mut chunk = vec![0; 65_536];
    loop {
        match guest.read(&mut chunk) {
            0 => return guest.fin(),
            n => guest.send(&chunk[..n]),
        };
    }
}

fn read_head(guest: &mut OriginConnection) -> Option<HttpHead> {
    guest.read_until(b"\r\n\r\n").map(HttpHead::parse)
}

fn read_body(guest: &mut OriginConnection, head: &HttpHead) -> Option<Vec<u8>> {
    if head.get("transfer-encoding").is_some() {
        return read_chunked(guest);
    }
    let length: usize = head.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    read_exactly(guest, length)
}

fn read_exactly(guest: &mut OriginConnection, length: usize) -> Option<Vec<u8>> {
    let mut data = vec![0; length];
    let mut have = 0;
    while have < length {
        match guest.read(&mut data[have..]) {
            0 => return None,
            n => have += n,
        }
    }
    Some(data)
}

/// The chunked body as it is on the wire, trailers included.
fn read_chunked(guest: &mut OriginConnection) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    loop {
        let line = guest.read_until(b"\r\n")?;
        let digits = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
        let size = usize::from_str_radix(digits.split(';').next()?.trim(), 16).ok()?;
        raw.extend_from_slice(&line);
        if size == 0 {
            return read_trailers(guest, raw);
        }
        raw.extend(read_exactly(guest, size + 2)?);
    }
}

fn read_trailers(guest: &mut OriginConnection, mut raw: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let line = guest.read_until(b"\r\n")?;
        raw.extend_from_slice(&line);
        if line == b"\r\n" {
            return Some(raw);
        }
    }
}
