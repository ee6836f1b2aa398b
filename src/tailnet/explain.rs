//! Plain words for every fault: symptom, cause and fix.
//!
//! The one place where these sentences live; doctor, status, HTTP bodies and the log share them.
//! Pure: facts in, words out.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::state::Phase;
use crate::outcome::{Outcome, Unreachable};

/// Something wrong between a client and its target inside the tailnet.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The binary is not there, or cannot be run.
    Binary {
        /// As set.
        binary: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// tailscaled ended.
    Ended {
        /// By what: `exit status 1`, `signal 9`.
        how: String,
        /// The last line it wrote.
        last: Option<String>,
    },
    /// tailscaled ends as soon as it starts.
    CrashLoop {
        /// By what.
        how: String,
        /// The last line it wrote.
        last: Option<String>,
    },
    /// tailscaled does not know a flag of ours.
    UnknownFlag {
        /// The flag.
        flag: String,
        /// Its version, or what stood in for it.
        version: String,
    },
    /// tailscaled's LocalAPI does not answer.
    LocalApi {
        /// Its socket.
        socket: PathBuf,
        /// What the kernel said, or what was answered.
        why: String,
    },
    /// A managed tailscaled is up, but its socket lets us not write.
    NotPermitted {
        /// Its socket.
        socket: PathBuf,
    },
    /// Its SOCKS5 port belongs to another process.
    PortStolen {
        /// The port.
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
        /// In which way.
        refusal: Refusal,
        /// Its own words.
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
        /// Which.
        server: String,
        /// tailscaled's words.
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
        /// Its words.
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
        phase: Phase,
    },
    /// Nobody knows the name, and no DNS route covers its domain.
    NoDnsRoute {
        /// The name.
        name: String,
    },
    /// The domain's nameserver says there is no such name.
    NameUnknown {
        /// The name.
        name: String,
        /// Who says so: nameservers, or `MagicDNS`.
        asked: String,
    },
    /// The nameserver failed.
    NameserverFailed {
        /// The name.
        name: String,
        /// Who was asked.
        asked: String,
        /// What came back.
        why: String,
    },
    /// The domain's nameserver does not answer.
    NameserverSilent {
        /// The name.
        name: String,
        /// Who was asked.
        asked: String,
        /// How long was waited.
        after: Duration,
    },
    /// No peer and no subnet route covers the address, and `outside_tailnet` is `refuse`.
    NoRoute {
        /// The address.
        address: IpAddr,
    },
    /// No peer and no subnet route covers the address, and this host's own network has no way either.
    NoWayOutside {
        /// The address.
        address: IpAddr,
    },
    /// The peer is not connected to the tailnet.
    PeerOffline {
        /// Its name.
        peer: String,
    },
    /// The host answered: nothing listens there.
    Refused {
        /// Where.
        target: SocketAddr,
    },
    /// Silence: an ACL that drops, or a host that is down.
    Silent {
        /// Where.
        target: SocketAddr,
        /// The peer that leads there, if it is in the tailnet.
        peer: Option<String>,
        /// How long was waited.
        after: Duration,
    },
}

/// In which way a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown, revoked or misspelt.
    Invalid,
    /// Too old.
    Expired,
    /// A single-use key that was used.
    UsedUp,
    /// The tags are not its owner's to give.
    Tags,
    /// Something else.
    Other,
}

/// Symptom, cause, fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What one sees.
    pub symptom: &'static str,
    /// Why, most likely.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// The symptoms, in the words of the troubleshooting table.
pub(crate) const NOT_STARTED: &str = "tailscaled does not run";
pub(crate) const KEY: &str = "the key is refused";
const NO_NODE: &str = "no autoheal-* node appears in the tailnet";
const RATE: &str = "the control server limits the rate of logins";
const LOST: &str = "the node has left the tailnet";
pub(crate) const NAME: &str = "the internal name does not resolve";
pub(crate) const HOST: &str = "joined, but the host is not reachable";

impl Refusal {
    /// Reads a control server's words; they are unversioned, so only parts of them count
    /// (tailscale.md 2.1).
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

impl Fault {
    /// Symptom, cause and fix.
    pub fn advice(&self) -> Advice {
        let (symptom, cause, fix) = self.words();
        Advice { symptom, cause, fix: fix.into() }
    }

    /// Cause and fix in one sentence, for an HTTP body or a log line.
    pub fn sentence(&self) -> String {
        let (_, cause, fix) = self.words();
        format!("{cause}: {fix}")
    }

    /// How a connection ends for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoDnsRoute { .. } | Self::NameUnknown { .. } | Self::NameserverFailed { .. } => {
                Outcome::DnsError
            }
            Self::NameserverSilent { .. } => Outcome::DnsTimeout,
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
    pub fn word(&self) -> Option<&'static str> {
        matches!(self, Self::PortStolen { .. }).then_some("internal_port_stolen")
    }

    fn words(&self) -> (&'static str, String, &'static str) {
        self.of_process().or_else(|| self.of_login()).unwrap_or_else(|| self.of_target())
    }

    /// tailscaled itself.
    fn of_process(&self) -> Option<(&'static str, String, &'static str)> {
        Some(match self {
            Self::Binary { binary, why } => (
                NOT_STARTED,
                format!("{} cannot be run ({why})", binary.display()),
                "install tailscaled, or set tailnet.tailscaled to its path",
            ),
            Self::Ended { how, last } => (
                NOT_STARTED,
                format!("tailscaled ended with {how}{}", said(last.as_deref())),
                "it is started again; if it keeps ending, its own log says why",
            ),
            Self::CrashLoop { how, last } => (
                NOT_STARTED,
                format!(
                    "tailscaled ends as soon as it starts, with {how}{}",
                    said(last.as_deref())
                ),
                "mend what its last line says; it is tried again every minute",
            ),
            Self::UnknownFlag { flag, version } => (
                NOT_STARTED,
                format!("this tailscaled ({version}) does not know {flag}"),
                "install tailscaled 1.60 or newer, or set tailnet.tailscaled to one",
            ),
            Self::LocalApi { socket, why } => (
                NOT_STARTED,
                format!("tailscaled does not answer at {} ({why})", socket.display()),
                "start it, or set tailnet.socket to its LocalAPI socket",
            ),
            Self::NotPermitted { socket } => (
                NOT_STARTED,
                format!("{} does not let this user change tailscaled", socket.display()),
                "run the gateway as tailscaled's user, or let it start its own (tailnet.manage)",
            ),
            Self::PortStolen { port, owner } => (
                NOT_STARTED,
                match owner {
                    Some(pid) => {
                        format!("{port} is held by process {pid}, which is not tailscaled")
                    }
                    None => format!("{port} is not held by tailscaled"),
                },
                "end that process, or leave upstream.socks5 out so that a free port is picked",
            ),
            Self::NoPort => (
                NOT_STARTED,
                "tailscaled has not said where its SOCKS5 port is".to_owned(),
                "wait for it, or set upstream.socks5 to the port it was started with",
            ),
            _ => return None,
        })
    }

    /// The way into the tailnet.
    fn of_login(&self) -> Option<(&'static str, String, &'static str)> {
        Some(match self {
            Self::NoGateway { admin, why } => (
                NO_NODE,
                format!("nothing was started: no gateway answers at {admin} ({why})"),
                "start it with `tailrace up`, or name its settings with --config",
            ),
            Self::NoKey => (
                NO_NODE,
                "there is no key to log in with".to_owned(),
                "set TS_AUTHKEY, or tailnet.auth_key_file to a file with one",
            ),
            Self::KeyUnavailable { why } => {
                (KEY, why.clone(), "mend that, then send SIGHUP so that the key is read again")
            }
            Self::KeyRefused { refusal, said } => {
                let (cause, fix) = refused(*refusal);
                (KEY, format!("{cause} (the control server says: {said})"), fix)
            }
            Self::RateLimited { wait } => (
                RATE,
                match wait {
                    Some(wait) => {
                        format!("too many logins; the control server wants {wait} to pass")
                    }
                    None => "too many logins; the control server wants us to wait".to_owned(),
                },
                "wait, it is tried again by itself; for a fleet set tailnet.start_jitter",
            ),
            Self::NeedsApproval => (
                NO_NODE,
                "the node has registered and waits for an admin's approval".to_owned(),
                "approve it in the admin console, or use a key that is pre-approved",
            ),
            Self::Control { server, why } => (
                NO_NODE,
                format!("the control server {server} cannot be reached ({why})"),
                "open the way there, or set tailnet.login_server or tailnet.control_proxy",
            ),
            Self::NoRelay { why } => (
                NO_NODE,
                format!(
                    "the node has registered but reaches no relay (DERP) and no peer{}",
                    said(why.as_deref())
                ),
                "let this machine reach the relays: HTTPS to the hosts of the tailnet's DERP map",
            ),
            Self::LogsRequired => (
                NO_NODE,
                "this tailnet asks its nodes to upload logs, which we switch off".to_owned(),
                "switch network flow logs off for the tailnet, or run tailscaled yourself (tailnet.manage = false)",
            ),
            Self::Preferences { why } => (
                NO_NODE,
                format!("tailscaled does not take our preferences ({why})"),
                "correct what it names under [tailnet]",
            ),
            Self::NodeExpired => (
                LOST,
                "the node's key has expired".to_owned(),
                "use a reusable key, with which the node comes back by itself, or a tagged one, whose nodes do not expire",
            ),
            Self::LoggedOut => (
                LOST,
                "the node is logged out".to_owned(),
                "log it in with `tailscale up`, or give the gateway a key",
            ),
            Self::Stopped => (
                LOST,
                "somebody took the node down".to_owned(),
                "bring it back with `tailscale up`",
            ),
            Self::NotYet { phase } => (
                NO_NODE,
                format!("the tailnet is not up yet (state {})", phase.label()),
                "wait for it; `tailrace doctor` says what is missing",
            ),
            _ => return None,
        })
    }

    /// Names and hosts inside.
    fn of_target(&self) -> (&'static str, String, &'static str) {
        match self {
            Self::NoDnsRoute { name } => (
                NAME,
                format!("no DNS route of the tailnet covers {name}, and nobody else knows it"),
                "add a split-DNS route for its domain in the admin console, or check the spelling",
            ),
            Self::NameUnknown { name, asked } => (
                NAME,
                format!("{name} is unknown to {asked}"),
                "check the spelling, and that the record exists there",
            ),
            Self::NameserverFailed { name, asked, why } => (
                NAME,
                format!("{asked} could not say where {name} is ({why})"),
                "look at that nameserver; try again",
            ),
            Self::NameserverSilent { name, asked, after } => (
                NAME,
                format!("{asked} did not answer for {name} within {after:?}"),
                "let this node's tag reach it on port 53 over TCP (ACL grant, subnet route), and see whether it runs",
            ),
            Self::NoRoute { address } => (
                HOST,
                format!("no peer and no accepted subnet route covers {address}"),
                "advertise and approve a subnet route for it, and see that the ACLs let this node's tag use it",
            ),
            Self::NoWayOutside { address } => (
                HOST,
                format!("{address} is outside the tailnet and this host has no route to it"),
                "advertise and approve a subnet route for it",
            ),
            Self::PeerOffline { peer } => {
                (HOST, format!("{peer} is offline"), "start it, or its tailscaled")
            }
            Self::Refused { target } => (
                HOST,
                format!("{target} refused the connection"),
                "see whether the service runs and listens on that port",
            ),
            Self::Silent { target, peer: Some(peer), after } => (
                HOST,
                format!("{target} (by {peer}) did not answer within {after:?}"),
                "grant this node's tag that port in the ACLs; if it has it, the host or its firewall is silent",
            ),
            Self::Silent { target, after, .. } => (
                HOST,
                format!("{target}, which is outside the tailnet, did not answer within {after:?}"),
                "if it should be inside, advertise and approve a subnet route for it",
            ),
            // Every other fault has its words above: a test walks them all.
            _ => (NO_NODE, format!("{self:?}"), "see `tailrace status`"),
        }
    }
}

fn refused(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::Invalid => (
            "the key is invalid",
            "make a new one (reusable, ephemeral, tagged) and check that it is whole",
        ),
        Refusal::Expired => ("the key has expired", "make a new one with a longer life"),
        Refusal::UsedUp => ("the key is used up", "restarts need a reusable key: make one"),
        Refusal::Tags => (
            "the tags are not permitted for this key",
            "leave tailnet.tags empty to take the key's own, or let its owner own them (tagOwners)",
        ),
        Refusal::Other => {
            ("the key was not accepted", "make a new one, and see what the server says")
        }
    }
}

fn said(words: Option<&str>) -> String {
    words.map(|words| format!(", saying \"{words}\"")).unwrap_or_default()
}
