//! The answers of the admin listener: what the gateway serialises is what the commands read.
//!
//! Keys are public (docs/requirements.md). Where an answer says `null`, the field is an `Option`; an answer
//! goes out with its keys in alphabetical order, whatever the order here. A command may be newer than the gateway
//! it asks: a key that is added later is `#[serde(default)]`.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::{
    HalfClose, Inbound, NodeIdentity, PolicyMode, ReadinessPart, ResolvedBy, Route, Stage, Symptom,
    TailnetPhase, UpstreamKind, Verdict,
};
use crate::lifecycle::run_dir::Listening;

/// The answer of `/healthz`, whose status is always 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthAnswer {
    /// Always `ok`: a gateway that answers is alive.
    pub status: Cow<'static, str>,
}

/// `/readyz` with status 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyAnswer {
    /// Always `ready`, the word a probe may look for.
    pub status: Cow<'static, str>,
    /// Always empty here: what is missing stands in [`NotReadyAnswer::pending`].
    pub pending: Vec<ReadinessPart>,
}

/// `/readyz` with status 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReadyAnswer {
    /// The tailnet's state, `upstream_down` or `draining`.
    pub error: Cow<'static, str>,
    /// A sentence a person can act on.
    pub message: String,
    /// What is missing, in alphabetical order.
    pub pending: Vec<ReadinessPart>,
}

/// What a question gets that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// One word, such as `bad_request`; an outcome's label where the proxy port refuses.
    pub error: Cow<'static, str>,
    /// A sentence a person can act on.
    pub message: String,
}

/// `/api/v1/status`: what the running gateway is, and what it has done since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The version of the gateway, as Cargo.toml has it.
    pub version: Cow<'static, str>,
    /// The commit it was built from.
    pub commit: Cow<'static, str>,
    /// The target it was built for.
    pub target: Cow<'static, str>,
    /// The gateway's process id.
    pub pid: u32,
    /// Seconds since it began to serve.
    pub uptime_seconds: u64,
    /// Whether a connection would be carried.
    pub ready: bool,
    /// What is missing, in alphabetical order.
    pub pending: Vec<ReadinessPart>,
    /// Every address as bound.
    pub listeners: Listening,
    /// How connections leave this gateway, and whether they can.
    pub upstream: UpstreamAnswer,
    /// The tailnet, with the upstream kinds that lead into one.
    pub tailnet: Option<TailnetAnswer>,
    /// The policy in force.
    pub policy: PolicyAnswer,
    /// What happened since the start.
    pub counters: Counters,
}

/// The way out, in `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamAnswer {
    /// The kind that `upstream.kind` came to.
    pub kind: UpstreamKind,
    /// The address or socket it is reached at, where there is one.
    pub address: Option<String>,
    /// Whether it was reachable when last tried.
    pub up: bool,
    /// Connections held open to it.
    pub pool: PoolAnswer,
    /// Whether tailscaled has a SOCKS5 port: who finds that passes the policy by.
    pub internal_port_exposed: bool,
}

/// Upstream connections held open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolAnswer {
    /// Ready to be taken.
    pub idle: usize,
    /// Being dialled or greeted.
    pub filling: usize,
}

/// The policy in force, in `/api/v1/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAnswer {
    /// What the allow-lists do.
    pub mode: PolicyMode,
}

/// The tailnet, in `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailnetAnswer {
    /// Whether this gateway started tailscaled.
    pub managed: bool,
    /// Where a managed node's identity is kept.
    pub identity: Option<NodeIdentity>,
    /// How far this node has come.
    pub state: TailnetPhase,
    /// This node's MagicDNS name.
    pub name: Option<String>,
    /// This node's addresses in the tailnet.
    pub addresses: Vec<IpAddr>,
    /// This node's ACL tags, each with its `tag:`; empty before the login, and for a user's own node.
    pub tags: Vec<String>,
    /// When the node's key ends (RFC 3339); `None` for a key that does not.
    pub key_expiry: Option<String>,
    /// The version that tailscaled reports of itself, while that is known.
    pub version: Option<String>,
    /// What a client's FIN does with this tailscaled.
    pub half_close: HalfClose,
    /// How changes are learned of; `None` while that is not known.
    pub news: Option<NewsAnswer>,
    /// The process id of tailscaled, where it is known.
    pub process: Option<u32>,
    /// tailscaled's own health warnings.
    pub health: Vec<String>,
    /// How often a managed tailscaled was started again.
    pub restarts: u64,
    /// Why the node is not running, or what to worry about although it is.
    pub fault: Option<FaultAnswer>,
    /// The other nodes, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<PeerAnswer>>,
}

/// How changes at tailscaled are learned of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum NewsAnswer {
    /// Its IPN bus tells them.
    Bus,
    /// Its status is read every second.
    Polling {
        /// What it answered to the question for its bus.
        why: String,
    },
}

/// Another node of the tailnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// Its MagicDNS name without the trailing dot; `None` where it has no valid one.
    pub name: Option<String>,
    /// What it calls itself.
    pub host: String,
    /// Its own addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Networks it routes as a subnet router; the default routes of an exit node are left out.
    pub routes: Vec<IpNet>,
    /// Whether the control server sees it.
    pub online: bool,
}

/// A fault in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultAnswer {
    /// What one sees, in the words of the troubleshooting table.
    pub symptom: Symptom,
    /// The most likely cause, in a sentence.
    pub cause: String,
    /// What the operator can do about it, in a sentence.
    pub fix: String,
}

/// Sums since the start; the log's last line has them too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Targets asked for, and connections that asked for none, that have ended.
    pub targets: u64,
    /// Client connections open now.
    pub active: u64,
    /// Bytes towards targets, of ended targets.
    pub bytes_up: u64,
    /// Bytes towards clients, of ended targets.
    pub bytes_down: u64,
    /// Bytes read from one side that the other never took.
    pub lost_bytes: u64,
    /// Lines of the gateway's own log that were never written: its buffer was full, or the file failed.
    pub log_dropped: u64,
    /// How many ended in which way, by the outcome's label; outcomes that never happened are left out.
    pub outcomes: BTreeMap<Cow<'static, str>, u64>,
}

/// A program on this host that holds a client's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientProcess {
    /// Its id, as the gateway sees it.
    pub pid: u32,
    /// The file name of the program it runs. A stranger chose it: escape it where it is shown.
    pub name: String,
    /// When it was started, RFC 3339, to 10 ms. Together with the id it names one process for good.
    pub started: String,
}

/// One row of `/api/v1/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionAnswer {
    /// The id its access line will carry.
    pub id: String,
    /// The protocol the client speaks.
    pub inbound: Inbound,
    /// Address and port the client connects from.
    pub client: SocketAddr,
    /// The client program, where it is known.
    pub process: Option<ClientProcess>,
    /// The host asked for.
    pub host: Option<String>,
    /// The port asked for.
    pub port: Option<u16>,
    /// The address dialled, where we dialled one.
    pub address: Option<IpAddr>,
    /// What policy said of the target; `None` until it was asked.
    pub verdict: Option<Verdict>,
    /// Bytes towards the target so far.
    pub bytes_up: u64,
    /// Bytes towards the client so far.
    pub bytes_down: u64,
    /// Milliseconds since the client's connection was accepted.
    pub age_ms: u64,
    /// How far it has come.
    pub stage: Stage,
}

/// `/api/v1/explain`: the decision about one target, without dialling it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// The target as it is judged.
    pub target: String,
    /// The target as it was asked for.
    pub asked: String,
    /// What policy says of the host.
    pub policy: DecisionAnswer,
    /// Whether a connection would be refused.
    pub refused: bool,
    /// How the name is asked for; `None` for an address, and where nobody may be asked.
    pub dns: Option<DnsAnswer>,
    /// The addresses found, each judged.
    pub addresses: Vec<AddressAnswer>,
    /// The tailnet, with the upstream kinds that lead into one.
    pub tailnet: Option<TailnetStateAnswer>,
    /// What is known to be wrong before anything is dialled.
    pub fault: Option<FaultAnswer>,
    /// Who has connections to the target open now, those with most first.
    pub clients: Vec<ClientAnswer>,
}

/// What policy says of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionAnswer {
    /// What the allow-lists do; `None` where they were not asked.
    pub mode: Option<PolicyMode>,
    /// What they decided; `None` where they were not asked.
    pub verdict: Option<Verdict>,
    /// The rule that decided, as written; `None` when no rule spoke.
    pub rule: Option<String>,
}

/// By which way a name is asked for, and what came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// The DNS route; `upstream` where names are passed on.
    pub route: ResolvedBy,
    /// The domain of the tailnet that covers the name.
    pub suffix: Option<String>,
    /// Who is asked, in this order.
    pub nameservers: Vec<String>,
    /// Nameservers with a form that is not asked, as written.
    pub skipped: Vec<String>,
    /// The addresses that came back.
    pub addresses: Vec<IpAddr>,
    /// Milliseconds until the answer.
    pub took_ms: u64,
    /// Why there is none.
    pub error: Option<String>,
}

/// One address of a target: what policy says of it, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAnswer {
    /// One address that the target has, or is.
    pub address: IpAddr,
    /// What policy decided about it.
    pub verdict: Verdict,
    /// The rule that decided, as written.
    pub rule: Option<String>,
    /// Where it leads, where that is known.
    pub route: Option<Route>,
    /// The peer that has the address or routes to it.
    pub peer: Option<String>,
    /// The peer's own address, or the subnet route that covers this one.
    pub net: Option<IpNet>,
    /// Whether the control server sees the peer.
    pub online: Option<bool>,
}

/// The tailnet, in `/api/v1/explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailnetStateAnswer {
    /// How far this node has come.
    pub state: TailnetPhase,
}

/// A program with connections to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAnswer {
    /// The program; `None` stands for all that are not known.
    pub process: Option<ClientProcess>,
    /// How many it has open now.
    pub connections: usize,
}

#[cfg(test)]
pub(crate) mod samples {
    //! Answers as a gateway gives them, for tests of those who read them.

    use super::{ExplainAnswer, StatusAnswer};

    /// `/api/v1/status?peers=true` of a managed gateway.
    pub(crate) const STATUS: &str = r#"{"commit":"0123abcd","counters":{"active":1,"bytes_down":9,"bytes_up":8,"log_dropped":0,"lost_bytes":0,"outcomes":{"denied":1,"fin_fin":2},"targets":3},"listeners":{"admin":"127.0.0.1:9155","dns":"127.0.0.1:41000","dns_clients":null,"forward":[{"listen":"127.0.0.1:5432","target":"db.corp.example:5432"}],"proxy":["127.0.0.1:1055","[::1]:1055"],"tproxy":[]},"pending":[],"pid":7,"policy":{"mode":"enforce"},"ready":true,"tailnet":{"addresses":["100.64.0.2"],"fault":null,"half_close":"defer","health":["w"],"identity":"memory","key_expiry":null,"managed":true,"name":"autoheal-1.lab.ts.net","news":{"by":"polling","why":"404"},"peers":[{"addresses":["100.64.0.1","fd7a::1"],"host":"svc","name":"svc.lab.ts.net","online":true,"routes":["10.50.0.0/24"]},{"addresses":[],"host":"x","name":null,"online":false,"routes":[]}],"process":8,"restarts":0,"state":"running","tags":["tag:autoheal-sandbox"],"version":"1.98.9"},"target":"x86_64-unknown-linux-gnu","upstream":{"address":"127.0.0.1:1080","internal_port_exposed":true,"kind":"tailscaled","pool":{"filling":0,"idle":8},"up":true},"uptime_seconds":60,"version":"0.1.0"}"#;

    /// `/api/v1/explain` of a name behind a split-DNS route, whose host is offline.
    pub(crate) const EXPLANATION: &str = r#"{"addresses":[{"address":"100.64.0.1","net":"100.64.0.1/32","online":false,"peer":"svc","route":"tailnet","rule":null,"verdict":"allow"}],"asked":"grafana.corp.example:8080","clients":[{"connections":2,"process":{"name":"psql","pid":7,"started":"2025-01-02T03:04:05.60Z"}},{"connections":1,"process":null}],"dns":{"addresses":["100.64.0.1"],"error":null,"nameservers":["100.64.0.1:53"],"route":"split","skipped":["tls://1.1.1.1"],"suffix":"corp.example","took_ms":4},"fault":{"cause":"svc is offline","fix":"start it","symptom":"joined, but the host is not reachable"},"policy":{"mode":"log","rule":"no allowed suffix or glob","verdict":"would_deny"},"refused":false,"tailnet":{"state":"running"},"target":"grafana.corp.example:8080"}"#;

    pub(crate) fn status() -> StatusAnswer {
        serde_json::from_str(STATUS).unwrap()
    }

    pub(crate) fn explanation() -> ExplainAnswer {
        serde_json::from_str(EXPLANATION).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_back_as_they_were_written() {
        let status = serde_json::to_value(samples::status()).unwrap();
        assert_eq!(status.to_string(), samples::STATUS);
        let explanation = serde_json::to_value(samples::explanation()).unwrap();
        assert_eq!(explanation.to_string(), samples::EXPLANATION);
    }

    #[test]
    fn peers_that_were_not_asked_for_are_no_key() {
        let mut status = samples::status();
        status.tailnet.as_mut().unwrap().peers = None;
        let text = serde_json::to_string(&status).unwrap();
        assert!(!text.contains("peers"), "{text}");
        assert_eq!(serde_json::from_str::<StatusAnswer>(&text).unwrap(), status);
    }
}
