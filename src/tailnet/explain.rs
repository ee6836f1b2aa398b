//! Plain words for every fault: symptom, cause and fix.
//!
//! The one place where these sentences live; doctor, status, HTTP bodies and the log share them.
//! Pure: facts in, words out.
#![forbid(unsafe_code)]

mod words;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::state::TailnetPhase;
use crate::api::FaultAnswer;
use crate::labels::ErrorDetail;
use crate::outcome::{Outcome, Unreachable};

/// Something wrong between a client and its target.
#[derive(Debug, Clone, PartialEq)]
pub enum TailnetFault {
    /// The binary is not there, or cannot be run.
    Binary {
        /// Its path, as the settings have it.
        binary: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// tailscaled ended after it had come up.
    Ended {
        /// By what: `exit status 1`, `signal 9`.
        how: String,
        /// The last line it wrote.
        last: Option<String>,
    },
    /// tailscaled ends as soon as it starts.
    CrashLoop {
        /// By what: `exit status 1`, `signal 9`.
        how: String,
        /// The last line it wrote.
        last: Option<String>,
    },
    /// tailscaled does not know a flag of ours.
    UnknownFlag {
        /// The flag as it was given.
        flag: String,
        /// Its version, or what stood in for it.
        version: String,
    },
    /// tailscaled's LocalAPI does not answer.
    LocalApi {
        /// The path of its socket.
        socket: PathBuf,
        /// What the kernel said, or what was answered.
        why: String,
    },
    /// A managed tailscaled is up, but its socket lets us not write.
    NotPermitted {
        /// The path of its socket.
        socket: PathBuf,
    },
    /// Its SOCKS5 port belongs to another process.
    PortStolen {
        /// Where that port is.
        port: SocketAddr,
        /// Who holds it, where it is known.
        owner: Option<u32>,
    },
    /// No SOCKS5 port is known yet.
    NoPort,
    /// No gateway runs, so no tailscaled of its own either.
    NoGateway {
        /// Where it was looked for.
        admin: SocketAddr,
        /// What the kernel said, or what was answered.
        why: String,
    },
    /// There is no key to log in with.
    NoKey,
    /// The key cannot be had: its file, or the exchange of an OAuth secret for one.
    KeyUnavailable {
        /// What was tried and what was said.
        why: String,
    },
    /// The control server refused the key.
    KeyRefused {
        /// In which way it was refused.
        refusal: KeyRefusal,
        /// The words of the control server.
        said: String,
    },
    /// The control server wants us to wait.
    RateLimited {
        /// How long, where it says so.
        wait: Option<String>,
    },
    /// The node waits for an admin.
    NeedsApproval,
    /// The control server cannot be reached.
    Control {
        /// The control server, as set.
        server: String,
        /// What tailscaled says of it.
        why: String,
    },
    /// Registered, but no relay (DERP) and no peer can be reached.
    NoRelay {
        /// tailscaled's words, where it has some.
        why: Option<String>,
    },
    /// The tailnet wants logs that we switched off.
    LogsRequired,
    /// The preferences were refused (LocalAPI `check-prefs`).
    Preferences {
        /// What tailscaled says of them.
        why: String,
    },
    /// The node's key came to its end.
    NodeExpired,
    /// The node is logged out, and nobody logs it in.
    LoggedOut,
    /// Somebody took the node down.
    Stopped,
    /// Not running yet, and nothing is known to be wrong.
    NotYet {
        /// How far it has come.
        phase: TailnetPhase,
    },
    /// Nobody knows the name, and no DNS route covers its domain.
    NoDnsRoute {
        /// The name that was asked for.
        name: String,
        /// Who was asked instead.
        asked: String,
    },
    /// The nameservers of the domain all have a form that is not asked.
    NoNameserver {
        /// The name that was asked for.
        name: String,
        /// The domain of the DNS route.
        domain: String,
        /// Its nameservers, as written.
        skipped: String,
    },
    /// The domain's nameserver says there is no such name.
    NameUnknown {
        /// The name that was asked for.
        name: String,
        /// Who says so: nameservers, or `MagicDNS`.
        asked: String,
    },
    /// The nameserver answered with an error, or with nonsense.
    NameserverFailed {
        /// The name that was asked for.
        name: String,
        /// Who was asked for it.
        asked: String,
        /// What came back instead of an answer.
        why: String,
    },
    /// The domain's nameserver does not answer.
    NameserverSilent {
        /// The name that was asked for.
        name: String,
        /// Who was asked for it.
        asked: String,
        /// How long was waited.
        after: Duration,
    },
    /// Where there is no tailnet, this host's resolver does not know the name.
    NameUnknownHere {
        /// The name that was asked for.
        name: String,
        /// Who says that there is none.
        asked: String,
    },
    /// Where there is no tailnet, this host's resolver does not answer.
    ResolverSilent {
        /// The name that was asked for.
        name: String,
        /// Who was asked for it.
        asked: String,
        /// How long was waited.
        after: Duration,
    },
    /// The address is one of `dns.synthetic`, and no name has it now.
    UnassignedSynthetic {
        /// The address that was to be dialled.
        address: IpAddr,
    },
    /// No peer and no subnet route covers the address, and `outside_tailnet` is `refuse`.
    NoRoute {
        /// The address that was to be dialled.
        address: IpAddr,
    },
    /// No peer and no subnet route covers the address, and this host's own network has no way either.
    NoWayOutside {
        /// The address that was to be dialled.
        address: IpAddr,
    },
    /// The peer is not connected to the tailnet.
    PeerOffline {
        /// The name it has in the tailnet.
        peer: String,
    },
    /// The host answered: nothing listens there.
    Refused {
        /// The address and port that were dialled.
        target: SocketAddr,
    },
    /// Silence: an ACL that drops, or a host that is down.
    Silent {
        /// The address and port that were dialled.
        target: SocketAddr,
        /// The peer that leads there, if it is in the tailnet.
        peer: Option<String>,
        /// How long was waited.
        after: Duration,
    },
}

/// In which way a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Unknown, revoked or misspelt.
    Invalid,
    /// Its life is over.
    Expired,
    /// A single-use key that was used.
    UsedUp,
    /// The tags are not its owner's to give.
    Tags,
    /// In words that are not known here.
    Other,
}

impl KeyRefusal {
    /// Reads a control server's words, which reach us as they came: tailscale, control/controlclient/direct.go,
    /// takes `Error` of the answer to a registration, ipn/ipnlocal/local.go puts it into `ErrMessage`. They are
    /// unversioned, and headscale has others (juanfont/headscale#3371), so only parts of them count.
    pub fn of(said: &str) -> Self {
        let said = said.to_ascii_lowercase();
        let has = |words: &str| said.contains(words);
        if has("tags") && (has("not permitted") || has("invalid")) {
            Self::Tags
        } else if has("expired") {
            Self::Expired
        } else if has("already used")
            || has("already been used")
            || (has("api key") && has(" not valid"))
        {
            Self::UsedUp
        } else if has("invalid")
            || has("failed to parse")
            || has("does not exist")
            || has("not found")
        {
            Self::Invalid
        } else {
            Self::Other
        }
    }
}

impl TailnetFault {
    /// Symptom, cause and fix.
    pub fn advice(&self) -> FaultAnswer {
        let (symptom, cause, fix) = self.words_of_fault();
        FaultAnswer { symptom, cause, fix: fix.into() }
    }

    /// Cause and fix in one sentence, for an HTTP body or a log line.
    pub fn sentence(&self) -> String {
        let (_, cause, fix) = self.words_of_fault();
        format!("{cause}: {fix}")
    }

    /// How a connection ends for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoDnsRoute { .. }
            | Self::NoNameserver { .. }
            | Self::NameUnknown { .. }
            | Self::NameUnknownHere { .. }
            | Self::NameserverFailed { .. }
            | Self::UnassignedSynthetic { .. } => Outcome::DnsError,
            Self::NameserverSilent { .. } | Self::ResolverSilent { .. } => Outcome::DnsTimeout,
            Self::NoRoute { .. } | Self::NoWayOutside { .. } => {
                Outcome::Unreachable(Unreachable::NoRoute)
            }
            Self::PeerOffline { .. } => Outcome::Unreachable(Unreachable::Host),
            Self::Refused { .. } => Outcome::Refused,
            Self::Silent { .. } => Outcome::ConnectTimeout,
            _ => Outcome::UpstreamDown,
        }
    }

    /// One word for the access line's `error`, where it says more than the outcome.
    pub fn word(&self) -> Option<ErrorDetail> {
        matches!(self, Self::PortStolen { .. }).then_some(ErrorDetail::InternalPortStolen)
    }
}

#[cfg(test)]
mod tests;
