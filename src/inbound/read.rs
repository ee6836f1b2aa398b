//! Feeds the parsers from a socket until one is satisfied; bytes read are never lost.
//!
//! The buffer belongs to the caller: a dropped future leaves it with everything that came.
#![forbid(unsafe_code)]

use bytes::BytesMut;

use super::head::{self, Head, Side};
use super::http_forward::Session;
use super::label::Label;
use super::parse::{Bad, Parsed};
use super::{Failed, Kind, Reply, Request, Saying, connect, socks4, socks5};
use crate::outcome::Outcome;
use crate::sys::Stream;
use crate::target::Target;

/// Bytes asked of the kernel at once while a head is read.
const ROOM: usize = 1024;

/// Room for the longest SOCKS5 dialogue (257 + 513 + 262 bytes) and one read beyond it: a password is
/// never copied by a growing buffer.
const DIALOGUE: usize = 2 * 1024;

/// What a client turned out to want.
#[derive(Debug)]
pub enum Read {
    /// One tunnel.
    Tunnel(Box<Request>),
    /// Requests to forward, one after another.
    Forward(Box<Session>),
}

/// Reads a client's first request, whose HTTP head has at most `max_head` bytes. The caller sets the deadline and
/// keeps the buffer.
///
/// # Errors
/// [`Failed`] with what to say; a client that leaves is [`Outcome::ClientGone`].
pub async fn read(stream: &Stream, buffer: &mut BytesMut, max_head: usize) -> Result<Read, Failed> {
    buffer.reserve(DIALOGUE);
    let mut wire = Wire { stream, buffer, at: 0, kind: Kind::Unknown };
    wire.kind = wire.until(|bytes| Ok(Kind::of_first_bytes(bytes))).await?;
    match wire.kind {
        Kind::Socks5 => wire.socks5().await,
        Kind::Socks4 => wire.socks4().await,
        Kind::Http => wire.http(max_head).await,
        _ => {
            let message = "the first byte is neither SOCKS nor HTTP: send one of them; TLS goes inside CONNECT or SOCKS";
            Err(wire.failed(Outcome::BadRequest, message, Saying::Nothing))
        }
    }
}

struct Wire<'a> {
    stream: &'a Stream,
    buffer: &'a mut BytesMut,
    /// What lies before was understood; it stays, so that a deadline still sees what it cuts off.
    at: usize,
    kind: Kind,
}

impl Wire<'_> {
    /// Reads until `parse` has a whole message, then steps over its bytes.
    async fn until<T>(
        &mut self,
        mut parse: impl FnMut(&mut [u8]) -> Result<Parsed<T>, Bad>,
    ) -> Result<T, Failed> {
        loop {
            match parse(&mut self.buffer[self.at..]) {
                Ok(Parsed::Whole { value, used }) => {
                    self.at += used;
                    return Ok(value);
                }
                Ok(Parsed::Incomplete) => self.more().await?,
                Err(bad) => return Err(self.bad(bad)),
            }
        }
    }

    /// The bytes that nobody has understood yet.
    fn rest(&mut self) -> BytesMut {
        let rest = std::mem::take(self.buffer).split_off(std::mem::take(&mut self.at));
        // An empty part of the buffer would keep all of it for as long as the tunnel lives.
        if rest.is_empty() { BytesMut::new() } else { rest }
    }

    async fn more(&mut self) -> Result<(), Failed> {
        match self.stream.read_more(self.buffer, ROOM).await {
            Ok(0) | Err(_) => {
                let message = "the client left before its request was complete";
                Err(self.failed(Outcome::ClientGone, message, Saying::Nothing))
            }
            Ok(_) => Ok(()),
        }
    }

    fn failed(&self, outcome: Outcome, message: impl Into<String>, reply: Saying) -> Failed {
        Failed { kind: self.kind, outcome, message: message.into(), reply, asked: None }
    }

    fn bad(&self, bad: Bad) -> Failed {
        let reply = match self.kind {
            Kind::Socks5 => Saying::Words(Reply::Socks5),
            Kind::Socks4 => Saying::Words(Reply::Socks4),
            Kind::Http | Kind::Connect => Saying::Words(Reply::Http),
            Kind::Transparent | Kind::Forward | Kind::Unknown => Saying::Nothing,
        };
        let socks = matches!(self.kind, Kind::Socks4 | Kind::Socks5);
        let asked = bad.asked.filter(|_| socks);
        Failed { asked, ..self.failed(bad.outcome, bad.message, reply) }
    }

    async fn say(&self, bytes: &[u8]) -> Result<(), Failed> {
        let gone = |_| {
            let message = "the client left during the negotiation";
            self.failed(Outcome::ClientGone, message, Saying::Nothing)
        };
        self.stream.write_all(bytes).await.map_err(gone)
    }

    fn tunnel(&mut self, target: Target, label: Option<Label>, mismatch: bool) -> Read {
        let reply = match self.kind {
            Kind::Socks4 => Reply::Socks4,
            Kind::Socks5 => Reply::Socks5,
            Kind::Connect | Kind::Http => Reply::Http,
            Kind::Transparent | Kind::Forward | Kind::Unknown => Reply::Opaque,
        };
        Read::Tunnel(Box::new(Request {
            kind: self.kind,
            target,
            label,
            host_mismatch: mismatch,
            early: self.rest().freeze(),
            reply,
        }))
    }

    async fn socks4(mut self) -> Result<Read, Failed> {
        let request = self.until(|bytes| socks4::parse(bytes)).await?;
        Ok(self.tunnel(request.target, request.label, false))
    }

    async fn socks5(mut self) -> Result<Read, Failed> {
        let negotiating = |failed: Failed| Failed {
            // Before the method is agreed on no REP can be said.
            reply: Saying::Nothing,
            ..failed
        };
        let method =
            self.until(|bytes| socks5::parse_greeting(bytes)).await.map_err(negotiating)?;
        if method == socks5::Method::Unacceptable {
            let message = "no method we know: offer 00 (none) or 02 (user name)";
            return Err(self.failed(Outcome::NoAuthMethod, message, Saying::Bytes(method.reply())));
        }
        self.say(&method.reply()).await?;
        let label = match method {
            socks5::Method::UserName => self.user_name().await?,
            _ => None,
        };
        let target = self.until(|bytes| socks5::parse_request(bytes)).await?;
        Ok(self.tunnel(target, label, false))
    }

    async fn user_name(&mut self) -> Result<Option<Label>, Failed> {
        let refused = |failed: Failed| match failed.outcome {
            Outcome::BadRequest => Failed { reply: Saying::Bytes([0x01, 0x01]), ..failed },
            _ => failed,
        };
        let stream = self.stream;
        let mut wipe = Wipe { buffer: self.buffer, from: self.at, whole: false };
        let mut wire = Wire { stream, buffer: wipe.buffer, at: self.at, kind: self.kind };
        let label = wire.until(socks5::parse_user).await.map_err(refused)?;
        self.at = wire.at;
        wipe.whole = true;
        drop(wipe);
        self.say(&[0x01, 0x00]).await?;
        Ok(label)
    }

    async fn http(mut self, max_head: usize) -> Result<Read, Failed> {
        let head: Head = self.until(|bytes| head::parse(bytes, Side::Request, max_head)).await?;
        if head.first() == b"CONNECT" {
            self.kind = Kind::Connect;
            let asked = connect::read(&head).map_err(|bad| self.bad(bad))?;
            return Ok(self.tunnel(asked.target, asked.label, asked.host_mismatch));
        }
        let session = Session::new(head, self.rest());
        Ok(Read::Forward(Box::new(session)))
    }
}

/// Zeroes credentials that never became whole, also when the future is dropped; whole ones have been
/// zeroed by their parser.
struct Wipe<'a> {
    buffer: &'a mut BytesMut,
    from: usize,
    whole: bool,
}

impl Drop for Wipe<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.buffer[self.from..].fill(0);
        }
    }
}
