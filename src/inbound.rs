//! Who speaks what: the first bytes of a client become a request.
//!
//! One port takes SOCKS4, SOCKS5, HTTP CONNECT and HTTP forward. Parsers touch no socket; `read`
//! feeds them. This module knows neither policy nor upstream.
#![forbid(unsafe_code)]

pub mod chunked;
pub mod client_hello;
pub mod connect;
pub mod framing;
pub mod head;
pub mod http_forward;
pub mod label;
pub mod parse;
pub mod reply;
pub mod sniff;
pub mod socks4;
pub mod socks5;

mod request_reader;

use bytes::Bytes;

use crate::outcome::Outcome;
use crate::target::Target;

pub use self::label::Label;
pub use self::parse::{ParseError, Parsed};
pub use self::reply::ReplyProtocol;
pub use self::request_reader::{InboundRequest, read_request};
pub use crate::labels::Inbound as Kind;

impl Kind {
    /// What the first bytes tell, as soon as they tell anything: the first one, or of an HTTP request the first
    /// one behind empty lines. Nobody else sends those.
    pub fn of_first_bytes(bytes: &[u8]) -> Parsed<Self> {
        let value = match head::empty_lines(bytes) {
            head::LeadingLines::Undecided => return Parsed::Incomplete,
            head::LeadingLines::Malformed(_) => Self::Http,
            head::LeadingLines::Begun(at) => match (bytes.get(at), at) {
                (Some(&socks4::VERSION), 0) => Self::Socks4,
                (Some(&socks5::VERSION), 0) => Self::Socks5,
                (Some(b'A'..=b'Z'), _) => Self::Http,
                _ => Self::Unknown,
            },
        };
        Parsed::Whole { value, used: 0 }
    }
}

/// One tunnel asked for.
#[derive(Debug)]
pub struct RequestedTunnel {
    /// What the client speaks.
    pub kind: Kind,
    /// Where to.
    pub target: Target,
    /// The user name, as a label of the work.
    pub label: Option<Label>,
    /// A Host field named somebody else.
    pub host_mismatch: bool,
    /// Client bytes that came after the request.
    pub early: Bytes,
    /// How to answer.
    pub reply: ReplyProtocol,
}

impl RequestedTunnel {
    /// The request of a static forward's client, which says nothing to us.
    pub fn of_static_forward(target: Target) -> Self {
        Self {
            kind: Kind::Forward,
            target,
            label: None,
            host_mismatch: false,
            early: Bytes::new(),
            reply: ReplyProtocol::Opaque,
        }
    }
}

/// A connection that asked for nothing we could carry.
#[derive(Debug)]
pub struct InboundFailure {
    /// What it spoke.
    pub kind: Kind,
    /// How it ends.
    pub outcome: Outcome,
    /// The sentence for the client.
    pub message: String,
    /// How to say so.
    pub reply: FailureReply,
    /// What a SOCKS client sent in place of a host, escaped. HTTP's may hold a credential.
    pub asked: Option<String>,
}

/// What a failed connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReply {
    /// The outcome's words.
    Words(ReplyProtocol),
    /// These bytes (negotiation replies that are no REP).
    Bytes([u8; 2]),
    /// Nothing: no protocol is agreed on.
    Nothing,
}

impl InboundFailure {
    /// A head that never became whole: what it was so far decides what is said.
    pub fn of_incomplete_head(so_far: &[u8], outcome: Outcome) -> Self {
        let kind = match Kind::of_first_bytes(so_far) {
            Parsed::Whole { value, .. } => value,
            Parsed::Incomplete => Kind::Unknown,
        };
        let reply = match kind {
            Kind::Http => FailureReply::Words(ReplyProtocol::Http),
            Kind::Socks4 => FailureReply::Words(ReplyProtocol::Socks4),
            Kind::Socks5 if socks5::is_negotiated(so_far) => {
                FailureReply::Words(ReplyProtocol::Socks5)
            }
            _ => FailureReply::Nothing,
        };
        let message = match outcome {
            Outcome::HeadTimeout => "the request head was not complete in time: send it at once",
            Outcome::Overloaded => {
                "too many connections at once: close some, or raise limits.max_connections or limits.per_client"
            }
            Outcome::Draining => "the gateway is shutting down: try again when it is back",
            _ => "the request could not be read",
        };
        Self { kind, outcome, message: message.to_owned(), reply, asked: None }
    }

    /// The bytes to say.
    pub fn reply_bytes(&self, id: &str) -> Bytes {
        match self.reply {
            FailureReply::Words(reply) => reply.failure_bytes(self.outcome, &self.message, id),
            FailureReply::Bytes(bytes) => Bytes::copy_from_slice(&bytes),
            FailureReply::Nothing => Bytes::new(),
        }
    }
}
