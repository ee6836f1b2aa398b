//! How the way out can fail, with the cause kept to the edge.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;

use super::Endpoint;
use crate::localapi::dial::DialFailure;
use crate::outcome::{Outcome, Unreachable};

/// Why there is no connection to the target.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream itself does not take connections, or there is none at the moment.
    #[error("{}", down_sentence(endpoint.as_ref(), source))]
    Down {
        /// The upstream; `None` when nothing is known of where it is.
        endpoint: Option<Endpoint>,
        /// What `connect(2)` said.
        source: io::Error,
    },
    /// The upstream did not take the connection, or did not say a word, in time.
    #[error("upstream {endpoint} did not answer within {after:?}: see whether it hangs")]
    LocalTimeout {
        /// The upstream.
        endpoint: Endpoint,
        /// `upstream.local_timeout`.
        after: Duration,
    },
    /// No answer from the far side in time.
    #[error(
        "no answer within {after:?} (upstream.connect_timeout): see whether the host is up and its \
         port open from here"
    )]
    Timeout {
        /// `upstream.connect_timeout`.
        after: Duration,
        /// The address asked for, the first of several; `None` for a name passed on.
        address: Option<SocketAddr>,
    },
    /// The way to the far side timed out, says the upstream or the kernel.
    #[error("the far side did not answer: see whether the host is up and its port open")]
    Expired,
    /// The upstream could not connect and did not say why, in a way that names an outcome.
    #[error("the upstream could not connect ({}): see its own log", words.as_deref().unwrap_or("no reason given"))]
    Failed {
        /// REP (RFC 1928 section 6); LocalAPI has none and counts as 01.
        rep: u8,
        /// What it said in words, where it has words.
        words: Option<String>,
        /// The address asked for; `None` for a name passed on.
        address: Option<SocketAddr>,
        /// How long it took to say so: what fails at once was refused, what takes as long as
        /// the upstream's own patience met silence.
        after: Duration,
    },
    /// The upstream found no address for a name passed on.
    #[error("the upstream could not resolve the name ({words}): see that it is spelt right")]
    Unresolved {
        /// What it said.
        words: String,
    },
    /// The target is none of the tailnet's, and only those may be dialled.
    #[error("{} is in no part of the tailnet: see which subnet routes there are, or set \
             upstream.outside_tailnet", address.map_or("the target".to_owned(), |a| a.to_string()))]
    Outside {
        /// The address asked for; `None` for a name passed on.
        address: Option<SocketAddr>,
    },
    /// The upstream closed or reset the connection instead of answering.
    #[error("the upstream closed the connection without an answer: see its own log")]
    Closed {
        /// The reset, if it was one.
        #[source]
        source: Option<io::Error>,
    },
    /// The far side refused.
    #[error("the far side refused the connection: nothing listens on that port")]
    Refused,
    /// No route to the network.
    #[error("no route to that address: see which networks are reachable from here")]
    NoRoute,
    /// The host is not there.
    #[error("the host cannot be reached: see whether it is up")]
    HostUnreachable,
    /// The upstream broke its protocol.
    #[error("upstream {endpoint} does not speak as we need it: {what}")]
    Protocol {
        /// The upstream.
        endpoint: Endpoint,
        /// What is wrong with what it said.
        what: &'static str,
    },
    /// Our own bound or the system's: connections, descriptors, ports or memory.
    #[error("no room for a further upstream connection ({what}): raise it, or try again")]
    Full {
        /// What ran out.
        what: &'static str,
    },
    /// This host's kernel refused the dial for a reason of its own.
    #[error("dialling {address} failed: {source}")]
    Dial {
        /// The address dialled.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing to dial: a name came unresolved to `direct`, or with no address.
    #[error("there is no address to dial: resolve the name first")]
    NoAddress,
}

impl UpstreamError {
    /// How the connection ends for the client.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Down { .. } => Outcome::UpstreamDown,
            Self::LocalTimeout { .. } | Self::Timeout { .. } | Self::Expired => {
                Outcome::ConnectTimeout
            }
            Self::Failed { .. } | Self::Closed { .. } | Self::Dial { .. } => {
                Outcome::UpstreamFailed
            }
            Self::Refused => Outcome::Refused,
            Self::Unresolved { .. } => Outcome::DnsError,
            Self::NoRoute | Self::Outside { .. } => Outcome::Unreachable(Unreachable::NoRoute),
            Self::HostUnreachable => Outcome::Unreachable(Unreachable::Host),
            Self::Protocol { .. } => Outcome::UpstreamProtocol,
            Self::Full { .. } => Outcome::Overloaded,
            Self::NoAddress => Outcome::Internal,
        }
    }

    /// Whether the upstream itself is not there.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }

    /// Whether trying another address of the same target makes no sense.
    pub(super) fn is_final(&self) -> bool {
        use UpstreamError::{Down, Full, LocalTimeout, Protocol};
        matches!(self, Down { .. } | LocalTimeout { .. } | Full { .. } | Protocol { .. })
    }

    /// The upstream is not there, as far as we were told.
    pub(super) fn no_endpoint() -> Self {
        Self::Down { endpoint: None, source: io::ErrorKind::NotConnected.into() }
    }

    /// What a reply code says (RFC 1928 section 6), given `after` so long.
    pub(super) fn of_reply(rep: u8, address: Option<SocketAddr>, after: Duration) -> Self {
        match rep {
            3 => Self::NoRoute,
            4 => Self::HostUnreachable,
            5 => Self::Refused,
            6 => Self::Expired,
            rep => Self::Failed { rep, words: None, address, after },
        }
    }

    /// What LocalAPI says of a dial that failed, said `after` so long.
    pub(super) fn of_failure(
        failure: DialFailure,
        address: Option<SocketAddr>,
        after: Duration,
    ) -> Self {
        match failure {
            DialFailure::Refused => Self::Refused,
            DialFailure::Expired => Self::Expired,
            DialFailure::HostUnreachable => Self::HostUnreachable,
            DialFailure::NoRoute => Self::NoRoute,
            DialFailure::Unresolved(words) => Self::Unresolved { words },
            DialFailure::Other(words) => {
                Self::Failed { rep: 1, words: Some(words), address, after }
            }
        }
    }

    /// What a failed dial to the upstream itself says.
    pub(super) fn of_local_dial(endpoint: &Endpoint, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(errno) if exhausted_resource(errno).is_some() => Self::of_exhausted(errno),
            _ => Self::Down { endpoint: Some(endpoint.clone()), source },
        }
    }

    /// What a failed dial to the far side says.
    pub(super) fn of_far_dial(address: SocketAddr, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => Self::Refused,
            Some(Errno::NETUNREACH | Errno::AFNOSUPPORT | Errno::NETDOWN) => Self::NoRoute,
            Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => Self::HostUnreachable,
            Some(Errno::TIMEDOUT) => Self::Expired,
            Some(errno) if exhausted_resource(errno).is_some() => Self::of_exhausted(errno),
            _ => Self::Dial { address, source },
        }
    }

    fn of_exhausted(errno: Errno) -> Self {
        Self::Full { what: exhausted_resource(errno).unwrap_or("the system's memory") }
    }
}

fn down_sentence(endpoint: Option<&Endpoint>, source: &io::Error) -> String {
    match endpoint {
        None => "the upstream does not run: see why tailscaled is not up".to_owned(),
        Some(endpoint @ Endpoint::Port(_)) => {
            format!("upstream {endpoint} is down ({source}): start it, or correct upstream.socks5")
        }
        Some(endpoint @ Endpoint::Socket(_)) => {
            format!(
                "tailscaled at {endpoint} is down ({source}): start it, or correct tailnet.socket"
            )
        }
    }
}

fn exhausted_resource(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::MFILE => Some("this process's limit on open files"),
        Errno::NFILE => Some("the system's limit on open files"),
        Errno::ADDRNOTAVAIL | Errno::AGAIN => Some("free local ports"),
        Errno::NOBUFS | Errno::NOMEM => Some("the system's memory"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_codes_keep_their_meaning() {
        let outcome = |rep| UpstreamError::of_reply(rep, None, Duration::ZERO).outcome();
        assert_eq!(outcome(1), Outcome::UpstreamFailed);
        assert_eq!(outcome(2), Outcome::UpstreamFailed);
        assert_eq!(outcome(3), Outcome::Unreachable(Unreachable::NoRoute));
        assert_eq!(outcome(4), Outcome::Unreachable(Unreachable::Host));
        assert_eq!(outcome(5), Outcome::Refused);
        assert_eq!(outcome(6), Outcome::ConnectTimeout);
        assert_eq!(outcome(8), Outcome::UpstreamFailed);
    }

    #[test]
    fn r14_exhaustion_is_overloaded_on_both_ways() {
        let address = ([127, 0, 0, 1], 9).into();
        let endpoint = Endpoint::Port(address);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS] {
            let near = UpstreamError::of_local_dial(&endpoint, errno.into());
            let far = UpstreamError::of_far_dial(address, errno.into());
            assert_eq!((near.outcome(), far.outcome()), (Outcome::Overloaded, Outcome::Overloaded));
        }
    }
}
