//! The closed lists of words that access lines, metric labels and API answers are made of.
//!
//! A fact is one of these values from where it is found to where it is written; its word is known here
//! alone. No series is ever named by a host, an address or an error text, because no such value has a label.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One word of a closed list.
pub trait LabelValue: Copy + Eq + 'static {
    /// Every value of the list, in the order in which they are declared.
    const ALL: &'static [Self];

    /// The word in the log, in metrics and in JSON.
    fn label(self) -> &'static str;

    /// Where the value stands in [`LabelValue::ALL`].
    fn index(self) -> usize;
}

/// Declares a closed list: the enum, its words, and both directions of serde by them.
macro_rules! closed_list {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$meaning])* $value,)+
        }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: [Self; [$(Self::$value),+].len()] = [$(Self::$value),+];

            /// The word in the log, in metrics and in JSON.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl LabelValue for $name {
            const ALL: &'static [Self] = &Self::ALL;

            fn label(self) -> &'static str {
                self.label()
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.label())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.label())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(ValueVisitor::<Self>(PhantomData))
            }
        }
    };
}

closed_list! {
    /// The protocol a client speaks to us.
    Inbound {
        /// SOCKS4 or 4a.
        Socks4 = "socks4",
        /// SOCKS version 5 (RFC 1928).
        Socks5 = "socks5",
        /// An HTTP tunnel (RFC 9110 section 9.3.6).
        Connect = "connect",
        /// HTTP requests in absolute form.
        Http = "http",
        /// Redirected by netfilter: nothing is spoken to us.
        Transparent = "transparent",
        /// A static forward: nothing is spoken to us, and the settings name the target.
        Forward = "forward",
        /// Nothing we know, or nothing yet.
        Unknown = "unknown",
    }
}

closed_list! {
    /// Which way bytes go.
    Direction {
        /// Towards the target.
        Up = "up",
        /// Towards the client.
        Down = "down",
    }
}

closed_list! {
    /// Who vouches for the name of a target.
    HostFrom {
        /// The client said it in its request.
        Client = "client",
        /// The server name of a ClientHello (RFC 6066 section 3).
        Sni = "sni",
        /// The `Host` field of a redirected HTTP request.
        HttpHost = "http_host",
        /// Our own DNS answer had the address that was dialled.
        Dns = "dns",
        /// Nobody named it.
        None = "none",
    }
}

closed_list! {
    /// Where a dialled address leads.
    Route {
        /// To a peer, or through a subnet route.
        Tailnet = "tailnet",
        /// Neither: tailscaled dials it from this host's own network.
        Outside = "outside",
        /// Dialled from this host, without a tailnet.
        Direct = "direct",
    }
}

closed_list! {
    /// The way out that `upstream.kind` came to.
    UpstreamKind {
        /// Through tailscaled's SOCKS5 port.
        Tailscaled = "tailscaled",
        /// Through tailscaled's LocalAPI, without any port.
        LocalApi = "localapi",
        /// Through some SOCKS5 server.
        Socks5 = "socks5",
        /// From this host.
        Direct = "direct",
    }
}

closed_list! {
    /// What a client's FIN does.
    HalfClose {
        /// Passed on as it comes.
        Propagate = "propagate",
        /// Held back until the upstream ends, or until the client has left for good: an old tailscaled
        /// would cut the answer off.
        Defer = "defer",
    }
}

closed_list! {
    /// What the allow-lists do. `deny_nets` and loops hold in every mode.
    PolicyMode {
        /// They are not asked.
        Off = "off",
        /// Say what enforcement would have done.
        Log = "log",
        /// Refuse what they do not allow.
        Enforce = "enforce",
    }
}

closed_list! {
    /// What policy decided about a target or an address.
    Verdict {
        /// It is carried.
        Allow = "allow",
        /// Carried, but enforcement would refuse it.
        WouldDeny = "would_deny",
        /// It is refused.
        Deny = "deny",
    }
}

closed_list! {
    /// By which route a name is asked.
    DnsRoute {
        /// The netmap has it, or says that there is none.
        Magicdns = "magicdns",
        /// The nameservers of a split-DNS route.
        Split = "split",
        /// The tailnet's global resolvers.
        Global = "global",
        /// This host's resolver.
        System = "system",
        /// An answer that still holds.
        Cache = "cache",
    }
}

closed_list! {
    /// What came of a DNS question.
    DnsResult {
        /// There is an answer.
        Ok = "ok",
        /// Everybody who was asked failed.
        Error = "error",
        /// There is no such name, or none with an address.
        Nxdomain = "nxdomain",
        /// Nobody answered in time.
        Timeout = "timeout",
        /// Policy refused it, so nobody was asked.
        Refused = "refused",
    }
}

closed_list! {
    /// A word of the access line that says more than its outcome.
    ErrorDetail {
        /// The request names one host in its target and another in its `Host` field.
        HostMismatch = "host_mismatch",
        /// Another process holds the port that tailscaled's SOCKS5 server was to have.
        InternalPortStolen = "internal_port_stolen",
    }
}

closed_list! {
    /// How far a target has come, or had when it ended.
    Stage {
        /// The client is saying what it wants.
        Head = "head",
        /// Policy is asked.
        Policy = "policy",
        /// The name is being resolved.
        Dns = "dns",
        /// The far side is being connected.
        Dial = "dial",
        /// The client is being answered.
        Reply = "reply",
        /// Bytes flow both ways.
        Relay = "relay",
        /// One side is done; the other is given time.
        Linger = "linger",
    }
}

closed_list! {
    /// What a held upstream connection is good for.
    PoolState {
        /// Greeted, ready to be taken.
        Idle = "idle",
        /// Being dialled or greeted.
        Filling = "filling",
    }
}

closed_list! {
    /// How far this node has come in the tailnet.
    TailnetPhase {
        /// tailscaled starts, or logs in.
        Starting = "starting",
        /// It runs, and is not logged in.
        NeedsLogin = "needs_login",
        /// An admin has to approve the node.
        NeedsApproval = "needs_approval",
        /// The node is in the tailnet: connections are carried.
        Running = "running",
        /// Somebody took the node down (`tailscale down`).
        Stopped = "stopped",
        /// The control server refused the key.
        AuthFailed = "auth_failed",
        /// The control server wants us to wait.
        RateLimited = "rate_limited",
        /// tailscaled ends as soon as it is started.
        CrashLoop = "crash_loop",
        /// tailscaled, or the control server behind it, does not answer.
        Unreachable = "unreachable",
    }
}

closed_list! {
    /// Why a managed tailscaled was started again.
    RestartCause {
        /// It ended by itself.
        Exit = "exit",
        /// A signal ended it.
        Signal = "signal",
        /// It no longer answered.
        Hang = "hang",
        /// The kernel killed it for want of memory.
        Oom = "oom",
    }
}

closed_list! {
    /// Where a managed node's identity is kept (`tailnet.state`).
    NodeIdentity {
        /// Nowhere: each tailscaled is a new node.
        Ephemeral = "ephemeral",
        /// In this gateway's memory.
        Memory = "memory",
        /// In a folder on disk.
        Folder = "folder",
    }
}

closed_list! {
    /// What a connection needs before it would be carried.
    ReadinessPart {
        /// The gateway is not shutting down.
        Drain = "drain",
        /// The node is in its tailnet.
        Tailnet = "tailnet",
        /// The upstream can be reached.
        Upstream = "upstream",
    }
}

closed_list! {
    /// Why a direction that wanted to splice copied.
    SpliceFallback {
        /// No pipe to be had.
        Pipe = "pipe",
        /// An urgent byte lay in the way.
        Urgent = "urgent",
        /// The kernel refused to splice these sockets.
        Error = "error",
        /// `relay.splice` is off.
        Off = "off",
    }
}

closed_list! {
    /// The `errno(3)` of a failed accept(2).
    AcceptErrno {
        /// The client left before it was accepted.
        ConnectionAborted = "ECONNABORTED",
        /// This process has no descriptor left.
        ProcessFiles = "EMFILE",
        /// The system has no descriptor left.
        SystemFiles = "ENFILE",
        /// No buffer space.
        NoBuffers = "ENOBUFS",
        /// No memory.
        NoMemory = "ENOMEM",
        /// A firewall rule forbids it.
        NotPermitted = "EPERM",
        /// Any other.
        Other = "other",
    }
}

closed_list! {
    /// What came of reading the settings again.
    ReloadResult {
        /// They are in force.
        Ok = "ok",
        /// The old ones stay.
        Error = "error",
    }
}

closed_list! {
    /// Whose log lines were dropped.
    LogStream {
        /// The gateway's own: access lines and what it says of itself.
        Access = "access",
        /// tailscaled's.
        Child = "child",
    }
}

closed_list! {
    /// What one sees of a fault, in the words of the troubleshooting table.
    Symptom {
        /// tailscaled is not there, or ends.
        NotStarted = "tailscaled does not run",
        /// The control server, or an OAuth exchange, refuses it.
        KeyRefused = "the key is refused",
        /// The node has not joined.
        NoNode = "no autoheal-* node appears in the tailnet",
        /// The control server wants us to wait.
        RateLimited = "the control server limits the rate of logins",
        /// The node was in the tailnet.
        LeftTailnet = "the node has left the tailnet",
        /// Nobody has an address for it.
        NameUnresolved = "the internal name does not resolve",
        /// The tailnet is up, the target is not reached.
        HostUnreachable = "joined, but the host is not reachable",
        /// The same where the upstream leads into no tailnet of ours (kinds `direct` and `socks5`): there no
        /// sentence speaks of one.
        HostUnreachableAlone = "the host is not reachable",
        /// The way out itself is down.
        UpstreamUnreachable = "the upstream is not reachable",
        /// A command finds none.
        NoGateway = "no gateway runs",
        /// The lists of `[policy]` refuse the target.
        PolicyRefuses = "the policy refuses the host",
        /// IPv6 is redirected here, IPv4 is not.
        Ipv4Bypass = "IPv4 connections pass the gateway by",
        /// IPv4 is redirected here, IPv6 is not.
        Ipv6Bypass = "IPv6 connections pass the gateway by",
    }
}

closed_list! {
    /// One link of the chain that `doctor` walks.
    ChainLink {
        /// A gateway runs and answers.
        Gateway = "gateway",
        /// The tailscaled binary is there and can be run.
        Binary = "binary",
        /// tailscaled runs.
        Process = "process",
        /// The control server answers.
        Login = "login",
        /// The control server takes the key.
        Key = "key",
        /// The node has its netmap.
        Netmap = "netmap",
        /// The way out is up, where no tailnet of ours is.
        Upstream = "upstream",
        /// Both families are redirected, where one is.
        Redirect = "redirect",
        /// The target's name resolves.
        Dns = "dns",
        /// Policy lets the target pass.
        Policy = "policy",
        /// Something leads to the target's address.
        Route = "route",
        /// The tailnet's rules let this node reach the host.
        Acl = "acl",
        /// The port is open.
        Port = "port",
        /// The port speaks TLS.
        Tls = "tls",
    }
}

/// Who found the addresses of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResolvedBy {
    /// The target is an address.
    Literal,
    /// The name was passed on, and the upstream finds out.
    Upstream,
    /// A DNS question by this route.
    Dns(DnsRoute),
}

impl ResolvedBy {
    /// The word of the access line's `resolved_by`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Literal => "literal",
            Self::Upstream => "upstream",
            Self::Dns(route) => route.label(),
        }
    }

    /// The DNS route, where a name was asked.
    pub const fn dns_route(self) -> Option<DnsRoute> {
        match self {
            Self::Literal | Self::Upstream => None,
            Self::Dns(route) => Some(route),
        }
    }
}

impl From<DnsRoute> for ResolvedBy {
    fn from(route: DnsRoute) -> Self {
        Self::Dns(route)
    }
}

impl fmt::Display for ResolvedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl Serialize for ResolvedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

impl<'de> Deserialize<'de> for ResolvedBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let words = [Self::Literal, Self::Upstream].into_iter();
        let mut all = words.chain(DnsRoute::ALL.map(Self::Dns));
        let unknown = || de::Error::invalid_value(de::Unexpected::Str(&word), &"a DNS route");
        all.find(|value| value.label() == word).ok_or_else(unknown)
    }
}

/// Finds a value of a closed list by its word.
struct ValueVisitor<L>(PhantomData<L>);

impl<L: LabelValue> de::Visitor<'_> for ValueVisitor<L> {
    type Value = L;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = L::ALL.iter().map(|value| value.label()).collect();
        write!(f, "one of {}", words.join(", "))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<L, E> {
        let value = L::ALL.iter().find(|value| value.label() == word);
        value.copied().ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
    }
}

/// One `T` for each value of a closed list, found without a search.
#[derive(Debug)]
pub struct PerLabel<L, T> {
    values: Box<[T]>,
    labels: PhantomData<fn(L)>,
}

impl<L: LabelValue, T> PerLabel<L, T> {
    /// Makes the value of each label.
    pub fn from_fn(make: impl FnMut(L) -> T) -> Self {
        Self { values: L::ALL.iter().copied().map(make).collect(), labels: PhantomData }
    }

    /// Each label with its value, in the order of the declaration.
    pub fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        L::ALL.iter().copied().zip(&self.values)
    }
}

impl<L: LabelValue, T> Index<L> for PerLabel<L, T> {
    type Output = T;

    fn index(&self, label: L) -> &T {
        &self.values[label.index()]
    }
}

impl<L: LabelValue, T> IndexMut<L> for PerLabel<L, T> {
    fn index_mut(&mut self, label: L) -> &mut T {
        &mut self.values[label.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back<L: LabelValue + Serialize + for<'de> Deserialize<'de> + fmt::Debug>() {
        for (at, value) in L::ALL.iter().copied().enumerate() {
            assert_eq!(value.index(), at, "{value:?}");
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(json, format!("\"{}\"", value.label()));
            assert_eq!(serde_json::from_str::<L>(&json).unwrap(), value);
            let twice = L::ALL.iter().filter(|other| other.label() == value.label()).count();
            assert_eq!(twice, 1, "{value:?}");
        }
    }

    #[test]
    fn every_word_reads_back_as_its_value() {
        reads_back::<Inbound>();
        reads_back::<HostFrom>();
        reads_back::<Route>();
        reads_back::<PolicyMode>();
        reads_back::<Verdict>();
        reads_back::<DnsRoute>();
        reads_back::<TailnetPhase>();
        reads_back::<AcceptErrno>();
        for by in [ResolvedBy::Literal, ResolvedBy::Upstream, DnsRoute::Split.into()] {
            let json = serde_json::to_string(&by).unwrap();
            assert_eq!(serde_json::from_str::<ResolvedBy>(&json).unwrap(), by);
        }
    }

    #[test]
    fn a4_a_word_that_is_not_of_the_list_is_no_value() {
        for word in ["\"Socks5\"", "\"\"", "\"a\\\"} 1\\nfake_metric 1\"", "1"] {
            assert!(serde_json::from_str::<Inbound>(word).is_err(), "{word}");
        }
        let error = serde_json::from_str::<Verdict>("\"maybe\"").unwrap_err().to_string();
        assert!(error.contains("one of allow, would_deny, deny"), "{error}");
    }

    #[test]
    fn each_label_has_its_own_place() {
        let mut counts = PerLabel::<Direction, u32>::from_fn(|_| 0);
        counts[Direction::Down] += 2;
        let counts: Vec<_> = counts.iter().map(|(label, count)| (label, *count)).collect();
        assert_eq!(counts, [(Direction::Up, 0), (Direction::Down, 2)]);
    }
}
