//! What is said on a connection to the gateway's proxy port.
//!
//! The protocol is the caller's: the gateway's own reader of such answers is tested and fuzzed, and a second one
//! here would have to agree with it.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;

/// The client's side of the proxy port's protocol. Pure: bytes in, bytes out.
pub trait ProxyClient: fmt::Debug + Sync {
    /// Everything that asks for a connection to `target`, to be sent at once.
    fn request(&self, target: SocketAddr) -> Vec<u8>;

    /// Reads what has come since, from the first byte on.
    fn parse(&self, received: &[u8]) -> ProxyAnswer;
}

/// What the gateway said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyAnswer {
    /// Nothing yet: more bytes are needed.
    Incomplete,
    /// The connection is made. The answer has this many bytes; those behind it are the far side's.
    Connected(usize),
    /// There is none, for this reason of RFC 1928 section 6.
    Refused(u8),
    /// This is no answer, whatever follows.
    Malformed,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A protocol of lines, which differ in length as real answers do: `+` and any text, or `-` and a reason.
    #[derive(Debug)]
    pub(crate) struct Lines;

    impl ProxyClient for Lines {
        fn request(&self, target: SocketAddr) -> Vec<u8> {
            format!("{target}\n").into_bytes()
        }

        fn parse(&self, received: &[u8]) -> ProxyAnswer {
            let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
                return ProxyAnswer::Incomplete;
            };
            match &received[..end] {
                [b'+', ..] => ProxyAnswer::Connected(end + 1),
                [b'-', reason] => ProxyAnswer::Refused(reason - b'0'),
                _ => ProxyAnswer::Malformed,
            }
        }
    }
}
