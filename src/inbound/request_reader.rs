//! Feeds the parsers from a socket until one is satisfied; bytes read are never lost.
//!
//! The buffer belongs to the caller: a dropped future leaves it with everything that came.
#![forbid(unsafe_code)]

use bytes::BytesMut;

use super::head::{self, MessageHead, MessageKind};
use super::http_forward::ForwardSession;
use super::label::Label;
use super::parse::{ParseError, Parsed};
use super::{
    FailureReply, InboundFailure, Kind, ReplyProtocol, RequestedTunnel, connect, socks4, socks5,
};
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
pub enum InboundRequest {
    /// One tunnel.
    Tunnel(Box<RequestedTunnel>),
    /// Requests to forward, one after another.
    Forward(Box<ForwardSession>),
}

/// Reads a client's first request, whose HTTP head has at most `max_head` bytes. The caller sets the deadline and
/// keeps the buffer.
///
/// # Errors
/// [`InboundFailure`] with what to say; a client that leaves is [`Outcome::ClientGone`].
pub async fn read_request(
    stream: &Stream,
    buffer: &mut BytesMut,
    max_head: usize,
) -> Result<InboundRequest, InboundFailure> {
    buffer.reserve(DIALOGUE);
    let mut wire = RequestReader { stream, buffer, at: 0, kind: Kind::Unknown };
    wire.kind = wire.read_until_parsed(|bytes| Ok(Kind::of_first_bytes(bytes))).await?;
    match wire.kind {
        Kind::Socks5 => wire.read_socks5().await,
        Kind::Socks4 => wire.read_socks4().await,
        Kind::Http => wire.read_http(max_head).await,
        _ => {
            let message = "the first byte is neither SOCKS nor HTTP: send one of them; TLS goes inside CONNECT or SOCKS";
            Err(wire.failure(Outcome::BadRequest, message, FailureReply::Nothing))
        }
    }
}

struct RequestReader<'a> {
    stream: &'a Stream,
    buffer: &'a mut BytesMut,
    /// What lies before was understood; it stays, so that a deadline still sees what it cuts off.
    at: usize,
    kind: Kind,
}

impl RequestReader<'_> {
    /// Reads until `parse` has a whole message, then steps over its bytes.
    async fn read_until_parsed<T>(
        &mut self,
        mut parse: impl FnMut(&mut [u8]) -> Result<Parsed<T>, ParseError>,
    ) -> Result<T, InboundFailure> {
        loop {
            match parse(&mut self.buffer[self.at..]) {
                Ok(Parsed::Whole { value, used }) => {
                    self.at += used;
                    return Ok(value);
                }
                Ok(Parsed::Incomplete) => self.read_more().await?,
                Err(bad) => return Err(self.refused(bad)),
            }
        }
    }

    /// The bytes that nobody has understood yet.
    fn take_rest(&mut self) -> BytesMut {
        let rest = std::mem::take(self.buffer).split_off(std::mem::take(&mut self.at));
        // An empty part of the buffer would keep all of it for as long as the tunnel lives.
        if rest.is_empty() { BytesMut::new() } else { rest }
    }

    async fn read_more(&mut self) -> Result<(), InboundFailure> {
        match self.stream.read_more(self.buffer, ROOM).await {
            Ok(0) | Err(_) => {
                let message = "the client left before its request was complete";
                Err(self.failure(Outcome::ClientGone, message, FailureReply::Nothing))
            }
            Ok(_) => Ok(()),
        }
    }

    fn failure(
        &self,
        outcome: Outcome,
        message: impl Into<String>,
        reply: FailureReply,
    ) -> InboundFailure {
        InboundFailure { kind: self.kind, outcome, message: message.into(), reply, asked: None }
    }

    fn refused(&self, bad: ParseError) -> InboundFailure {
        let reply = match self.kind {
            Kind::Socks5 => FailureReply::Words(ReplyProtocol::Socks5),
            Kind::Socks4 => FailureReply::Words(ReplyProtocol::Socks4),
            Kind::Http | Kind::Connect => FailureReply::Words(ReplyProtocol::Http),
            Kind::Transparent | Kind::Forward | Kind::Unknown => FailureReply::Nothing,
        };
        let socks = matches!(self.kind, Kind::Socks4 | Kind::Socks5);
        let asked = bad.asked.filter(|_| socks);
        InboundFailure { asked, ..self.failure(bad.outcome, bad.message, reply) }
    }

    async fn write_reply(&self, bytes: &[u8]) -> Result<(), InboundFailure> {
        let gone = |_| {
            let message = "the client left during the negotiation";
            self.failure(Outcome::ClientGone, message, FailureReply::Nothing)
        };
        self.stream.write_all(bytes).await.map_err(gone)
    }

    fn tunnel_request(
        &mut self,
        target: Target,
        label: Option<Label>,
        mismatch: bool,
    ) -> InboundRequest {
        let reply = match self.kind {
            Kind::Socks4 => ReplyProtocol::Socks4,
            Kind::Socks5 => ReplyProtocol::Socks5,
            Kind::Connect | Kind::Http => ReplyProtocol::Http,
            Kind::Transparent | Kind::Forward | Kind::Unknown => ReplyProtocol::Opaque,
        };
        InboundRequest::Tunnel(Box::new(RequestedTunnel {
            kind: self.kind,
            target,
            label,
            host_mismatch: mismatch,
            early: self.take_rest().freeze(),
            reply,
        }))
    }

    async fn read_socks4(mut self) -> Result<InboundRequest, InboundFailure> {
        let request = self.read_until_parsed(|bytes| socks4::parse_request(bytes)).await?;
        Ok(self.tunnel_request(request.target, request.label, false))
    }

    async fn read_socks5(mut self) -> Result<InboundRequest, InboundFailure> {
        let negotiating = |failed: InboundFailure| InboundFailure {
            // Before the method is agreed on no REP can be said.
            reply: FailureReply::Nothing,
            ..failed
        };
        let method = self
            .read_until_parsed(|bytes| socks5::parse_greeting(bytes))
            .await
            .map_err(negotiating)?;
        if method == socks5::AuthMethod::Unacceptable {
            let message = "no method we know: offer 00 (none) or 02 (user name)";
            return Err(self.failure(
                Outcome::NoAuthMethod,
                message,
                FailureReply::Bytes(method.reply_bytes()),
            ));
        }
        self.write_reply(&method.reply_bytes()).await?;
        let label = match method {
            socks5::AuthMethod::UserName => self.user_name().await?,
            _ => None,
        };
        let target = self.read_until_parsed(|bytes| socks5::parse_request(bytes)).await?;
        Ok(self.tunnel_request(target, label, false))
    }

    async fn user_name(&mut self) -> Result<Option<Label>, InboundFailure> {
        let refused = |failed: InboundFailure| match failed.outcome {
            Outcome::BadRequest => {
                InboundFailure { reply: FailureReply::Bytes([0x01, 0x01]), ..failed }
            }
            _ => failed,
        };
        let stream = self.stream;
        let mut wipe = CredentialWiper { buffer: self.buffer, from: self.at, whole: false };
        let mut wire = RequestReader { stream, buffer: wipe.buffer, at: self.at, kind: self.kind };
        let label = wire.read_until_parsed(socks5::parse_user).await.map_err(refused)?;
        self.at = wire.at;
        wipe.whole = true;
        drop(wipe);
        self.write_reply(&[0x01, 0x00]).await?;
        Ok(label)
    }

    async fn read_http(mut self, max_head: usize) -> Result<InboundRequest, InboundFailure> {
        let head: MessageHead = self
            .read_until_parsed(|bytes| head::parse_head(bytes, MessageKind::Request, max_head))
            .await?;
        if head.first() == b"CONNECT" {
            self.kind = Kind::Connect;
            let asked = connect::parse_connect(&head).map_err(|bad| self.refused(bad))?;
            return Ok(self.tunnel_request(asked.target, asked.label, asked.host_mismatch));
        }
        let session = ForwardSession::new(head, self.take_rest());
        Ok(InboundRequest::Forward(Box::new(session)))
    }
}

/// Zeroes credentials that never became whole, also when the future is dropped; whole ones have been
/// zeroed by their parser.
struct CredentialWiper<'a> {
    buffer: &'a mut BytesMut,
    from: usize,
    whole: bool,
}

impl Drop for CredentialWiper<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.buffer[self.from..].fill(0);
        }
    }
}
