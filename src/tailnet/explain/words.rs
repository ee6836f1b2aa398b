//! The words themselves: symptom, cause and fix of each fault.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{KeyRefusal, TailnetFault};
use crate::labels::Symptom;

/// The symptom, its cause and what mends it.
type Words = (Symptom, String, &'static str);

impl TailnetFault {
    pub(super) fn words_of_fault(&self) -> Words {
        self.of_process().or_else(|| self.of_login()).unwrap_or_else(|| self.of_target())
    }

    /// Faults of tailscaled itself.
    fn of_process(&self) -> Option<Words> {
        Some(match self {
            Self::Binary { binary, why } => (
                Symptom::NotStarted,
                format!("{} cannot be run ({why})", binary.display()),
                "install tailscaled, or set tailnet.tailscaled to its path",
            ),
            Self::Ended { how, last } => (
                Symptom::NotStarted,
                format!("tailscaled ended with {how}{}", quoted_words(last.as_deref())),
                "it is started again; log.level = \"debug\" shows what it says itself",
            ),
            Self::CrashLoop { how, last } => (
                Symptom::NotStarted,
                format!(
                    "tailscaled ends as soon as it starts, with {how}{}",
                    quoted_words(last.as_deref())
                ),
                "mend what its last line says; it is tried again every minute",
            ),
            Self::UnknownFlag { flag, version } => (
                Symptom::NotStarted,
                format!("this tailscaled ({version}) does not know {flag}"),
                "install tailscaled 1.60 or newer, or set tailnet.tailscaled to one",
            ),
            Self::LocalApi { socket, why } => (
                Symptom::NotStarted,
                format!("tailscaled does not answer at {} ({why})", socket.display()),
                "start it, or set tailnet.socket to its LocalAPI socket",
            ),
            Self::NotPermitted { socket } => (
                Symptom::NotStarted,
                format!("{} does not let this user change tailscaled", socket.display()),
                "run the gateway as tailscaled's user, or let it start its own (tailnet.manage)",
            ),
            Self::PortStolen { port, owner } => (
                Symptom::NotStarted,
                match owner {
                    Some(pid) => {
                        format!("{port} is held by process {pid}, which is not tailscaled")
                    }
                    None => format!("{port} is not held by tailscaled"),
                },
                "end that process, or leave upstream.socks5 out so that a free port is picked",
            ),
            Self::NoPort => (
                Symptom::NotStarted,
                "tailscaled has not said where its SOCKS5 port is".to_owned(),
                "wait for it, or set upstream.socks5 to the port it was started with",
            ),
            _ => return None,
        })
    }

    /// The way into the tailnet.
    fn of_login(&self) -> Option<Words> {
        Some(match self {
            Self::NoGateway { admin, why } => (
                Symptom::NoNode,
                format!("nothing was started: no gateway answers at {admin} ({why})"),
                "start it with `tailrace up`, or name its settings with --config",
            ),
            Self::NoKey => (
                Symptom::NoNode,
                "there is no key to log in with".to_owned(),
                "set TS_AUTHKEY, or tailnet.auth_key_file to a file with one",
            ),
            Self::KeyUnavailable { why } => (
                Symptom::KeyRefused,
                why.clone(),
                "mend that, then send SIGHUP so that the key is read again",
            ),
            Self::KeyRefused { refusal, said } => {
                let (cause, fix) = key_refusal_words(*refusal);
                (Symptom::KeyRefused, format!("{cause} (the control server says: {said})"), fix)
            }
            Self::RateLimited { wait } => (
                Symptom::RateLimited,
                match wait {
                    Some(wait) => {
                        format!("too many logins; the control server wants {wait} to pass")
                    }
                    None => "too many logins; the control server wants us to wait".to_owned(),
                },
                "wait, it is tried again by itself; for a fleet set tailnet.start_jitter",
            ),
            Self::NeedsApproval => (
                Symptom::NoNode,
                "the node has registered and waits for an admin's approval".to_owned(),
                "approve it in the admin console, or use a key that is pre-approved",
            ),
            Self::Control { server, why } => (
                Symptom::NoNode,
                format!("the control server {server} cannot be reached ({why})"),
                "open the way there, or set tailnet.login_server or tailnet.control_proxy",
            ),
            Self::NoRelay { why } => (
                Symptom::NoNode,
                format!(
                    "the node has registered but reaches no relay (DERP) and no peer{}",
                    quoted_words(why.as_deref())
                ),
                "let this machine reach the relays: HTTPS to the hosts of the tailnet's DERP map",
            ),
            Self::LogsRequired => (
                Symptom::NoNode,
                "this tailnet asks its nodes to upload logs, which we switch off".to_owned(),
                "switch network flow logs off for the tailnet, or run tailscaled yourself (tailnet.manage = false)",
            ),
            Self::Preferences { why } => (
                Symptom::NoNode,
                format!("tailscaled does not take our preferences ({why})"),
                "correct what it names under [tailnet]",
            ),
            Self::NodeExpired => (
                Symptom::LeftTailnet,
                "the node's key has expired".to_owned(),
                "use a reusable key, with which the node comes back by itself, or a tagged one, whose nodes do not expire",
            ),
            Self::LoggedOut => (
                Symptom::LeftTailnet,
                "the node is logged out".to_owned(),
                "log it in with `tailscale up`, or give the gateway a key",
            ),
            Self::Stopped => (
                Symptom::LeftTailnet,
                "somebody took the node down".to_owned(),
                "bring it back with `tailscale up`",
            ),
            Self::NotYet { phase } => (
                Symptom::NoNode,
                format!("the tailnet is not up yet (state {})", phase.label()),
                "wait for it; `tailrace doctor` says what is missing",
            ),
            _ => return None,
        })
    }

    /// Names and hosts inside.
    fn of_target(&self) -> Words {
        match self {
            Self::NoNameserver { name, domain, skipped } => (
                Symptom::NameUnresolved,
                format!("{name}: no nameserver of {domain} can be asked ({skipped})"),
                "give the DNS route a nameserver by address or by https://",
            ),
            Self::NoDnsRoute { name, asked } => (
                Symptom::NameUnresolved,
                format!("no DNS route of the tailnet covers {name}, and {asked} does not know it"),
                "add a split-DNS route for its domain in the admin console, or check the spelling",
            ),
            Self::NameUnknown { name, asked } => (
                Symptom::NameUnresolved,
                format!("{name} is unknown to {asked}"),
                "check the spelling, and that the record exists there",
            ),
            Self::NameserverFailed { name, asked, why } => (
                Symptom::NameUnresolved,
                format!("{asked} could not say where {name} is ({why})"),
                "look at that nameserver; try again",
            ),
            Self::NameserverSilent { name, asked, after } => (
                Symptom::NameUnresolved,
                format!("{asked} did not answer for {name} within {}", spoken_duration(*after)),
                "let this node's tag reach it on port 53 over TCP (ACL grant, subnet route), and see whether it runs",
            ),
            Self::NameUnknownHere { name, asked } => (
                Symptom::NameUnresolved,
                format!("{name} has no address: {asked} knows none"),
                "check the spelling, and that this host resolves its domain",
            ),
            Self::ResolverSilent { name, asked, after } => (
                Symptom::NameUnresolved,
                format!("{asked} gave no answer for {name} within {}", spoken_duration(*after)),
                "see whether the nameservers of this host can be reached",
            ),
            Self::UnassignedSynthetic { address } => (
                Symptom::NameUnresolved,
                format!(
                    "{address} is a synthetic address of this gateway (dns.synthetic), and no name has it \
                     now"
                ),
                "look the name up again",
            ),
            Self::NoRoute { address } => (
                Symptom::HostUnreachable,
                format!("no peer and no accepted subnet route covers {address}"),
                "advertise and approve a subnet route for it, and see that the ACLs let this node's tag use it",
            ),
            Self::NoWayOutside { address } => (
                Symptom::HostUnreachable,
                format!("{address} is outside the tailnet and this host has no route to it"),
                "advertise and approve a subnet route for it",
            ),
            Self::PeerOffline { peer } => (
                Symptom::HostUnreachable,
                format!("{peer} is offline"),
                "start it, or its tailscaled",
            ),
            Self::Refused { target } => (
                Symptom::HostUnreachable,
                format!("{target} refused the connection"),
                "see whether the service runs and listens on that port",
            ),
            Self::Silent { target, peer: Some(peer), after } => (
                Symptom::HostUnreachable,
                format!("{target} (by {peer}) did not answer within {}", spoken_duration(*after)),
                "grant this node's tag that port in the ACLs; if it has it, the host or its firewall is silent",
            ),
            Self::Silent { target, after, .. } => (
                Symptom::HostUnreachable,
                format!(
                    "{target}, which is outside the tailnet, did not answer within {}",
                    spoken_duration(*after)
                ),
                "if it should be inside, advertise and approve a subnet route for it",
            ),
            // Every other fault has its words above: a test walks them all.
            _ => (Symptom::NoNode, format!("{self:?}"), "see `tailrace status`"),
        }
    }
}

fn key_refusal_words(refusal: KeyRefusal) -> (&'static str, &'static str) {
    match refusal {
        KeyRefusal::Invalid => (
            "the key is invalid",
            "make a new one (reusable, ephemeral, tagged) and check that it is whole",
        ),
        KeyRefusal::Expired => ("the key has expired", "make a new one with a longer life"),
        KeyRefusal::UsedUp => ("the key is used up", "restarts need a reusable key: make one"),
        KeyRefusal::Tags => (
            "the tags are not permitted for this key",
            "leave tailnet.tags empty to take the key's own, or let its owner own them (tagOwners)",
        ),
        KeyRefusal::Other => {
            ("the key was not accepted", "make a new one, and see what the server says")
        }
    }
}

/// `5 s`, `2.5 s`.
pub(super) fn spoken_duration(after: Duration) -> String {
    let tenths = (after.as_millis() + 50) / 100;
    match tenths % 10 {
        0 => format!("{} s", tenths / 10),
        part => format!("{}.{part} s", tenths / 10),
    }
}

fn quoted_words(words: Option<&str>) -> String {
    words.map(|words| format!(", saying \"{words}\"")).unwrap_or_default()
}
