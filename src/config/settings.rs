//! The settings as the gateway consumes them: typed, checked, every default filled in.
//!
//! Meanings and defaults are those of `config.toml`; nothing here knows how they were written.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::log_filter::LogFilter;
pub use crate::labels::PolicyMode;
use crate::labels::{self, closed_list};
use crate::policy::suffix::Suffix;
use crate::target::Forward;

/// Everything the gateway may be told, after all checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Folder of `gateway.json`; 0700, ours.
    pub run_dir: PathBuf,
    /// `[listen]`: the addresses to bind.
    pub listen: Listen,
    /// Each `[[forward]]`, in the order of the file.
    pub forwards: Vec<Forward>,
    /// `[transparent]`: how redirected clients are read.
    pub transparent: Transparent,
    /// `[upstream]`: which way connections leave, and within which times.
    pub upstream: Upstream,
    /// `[tailnet]`, with the kinds that have one.
    pub tailnet: Option<Tailnet>,
    /// `[dns]`: who resolves names, and how long answers are remembered.
    pub dns: Dns,
    /// `[policy]`: which targets may be reached.
    pub policy: Policy,
    /// `[limits]`: the most clients, the largest heads and the deadlines of clients.
    pub limits: Limits,
    /// `[relay]`: by which means bytes are moved.
    pub relay: Relay,
    /// `[record]`: what is noted of the calling programs.
    pub record: Record,
    /// `[log]`: which lines are written, in which form, and where to.
    pub log: Log,
}

/// Where the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The one proxy port, on each of these addresses; port 0 lets the kernel pick.
    pub proxy: Vec<SocketAddr>,
    /// `IP_TRANSPARENT` listeners, for connections led here by TPROXY.
    pub tproxy: Vec<SocketAddr>,
    /// The listener for metrics, health and the API; port 0 lets the kernel pick.
    pub admin: SocketAddr,
    /// `Host` values accepted on the admin listener beyond the built-in ones.
    pub admin_hosts: Vec<String>,
    /// A DNS server for clients, UDP and TCP; `None`: none of their own.
    pub dns: Option<SocketAddr>,
    /// Addresses beyond loopback were asked for on purpose.
    pub allow_remote: bool,
}

/// How connections are treated that netfilter redirected here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transparent {
    /// Silence after which a redirected client is taken to wait for the server.
    pub server_first: Duration,
}

/// Which way connections leave, and within which times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Which upstream, already resolved from `auto`.
    pub kind: UpstreamKind,
    /// For the far side to be connected.
    pub connect_timeout: Duration,
    /// For the upstream itself to be reached.
    pub local_timeout: Duration,
    /// What a client's FIN does.
    pub half_close: HalfCloseChoice,
    /// Most upstream connections at once; `None`: as many as tailscaled's file limit allows, no cap
    /// without one.
    pub max_connections: Option<u32>,
    /// Upstream connections held open and greeted.
    pub pool: u32,
    /// `SO_MARK` on our own dials; `None`: unmarked.
    pub mark: Option<u32>,
    /// Addresses that no peer and no subnet route covers are dialled too.
    pub outside_tailnet: bool,
}

/// Which way connections leave, with the address where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    /// tailscaled's SOCKS5 port: this one, or the one the kernel picks for a managed tailscaled.
    Tailscaled(Option<SocketAddr>),
    /// tailscaled's LocalAPI: no SOCKS5 port at all.
    LocalApi,
    /// Any SOCKS5 server, at this address.
    Socks5(SocketAddr),
    /// Dial from this host.
    Direct,
}

closed_list! {
    /// What happens to a client's FIN, as the settings say it.
    HalfCloseChoice {
        /// Propagate with `direct` and with a new tailscaled's SOCKS5 port, else defer.
        Auto = "auto",
        /// Pass a client's FIN on to the upstream at once.
        Propagate = "propagate",
        /// Hold it until the upstream ends.
        Defer = "defer",
    }
}

/// The tailscaled behind the kinds `tailscaled` and `localapi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tailnet {
    /// Start, watch and end one of our own; false: use the one at `socket`.
    pub manage: bool,
    /// It was asked for by name, so that a missing binary ends `up` instead of degrading it.
    pub insisted: bool,
    /// The binary: a path, or a name looked up in `PATH`.
    pub tailscaled: PathBuf,
    /// The path of its LocalAPI socket.
    pub socket: PathBuf,
    /// Where the key to log in with comes from.
    pub key: Option<KeySource>,
    /// `{id}` in it stands for `id`.
    pub hostname: String,
    /// `$TAILRACE_ID`; `None`: eight random characters, new at each start.
    pub id: Option<String>,
    /// Tags to ask for, each with its `tag:`; none: those of the key.
    pub tags: Vec<String>,
    /// The control server, where it is not Tailscale's own.
    pub login_server: Option<String>,
    /// Variables of its way to control and DERP: proxies and roots of trust.
    pub environment: Vec<(&'static str, String)>,
    /// Take subnet routes of other nodes.
    pub accept_routes: bool,
    /// Its name, for display only.
    pub tailnet: String,
    /// How long a connection waits for the first login.
    pub ready_wait: Duration,
    /// Longest random delay before the first login.
    pub start_jitter: Duration,
    /// Where a managed node's identity is kept.
    pub state: NodeState,
}

/// `tailnet.state`: how long a managed node stays the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// As long as this gateway, over restarts of tailscaled.
    Memory,
    /// As long as one tailscaled.
    Ephemeral,
    /// As long as this folder, over restarts of the gateway too.
    Folder(PathBuf),
}

/// Where a key comes from. It is read late, and again for each login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The file that holds the key, opened for each login.
    File(PathBuf),
    /// `TS_AUTHKEY`, which `up` takes out of its environment at once.
    Environment,
}

/// How the names of targets are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Who resolves a target's name.
    pub mode: DnsMode,
    /// How long one answer may take; 3 seconds unless set.
    pub timeout: Duration,
    /// Answers remembered at most.
    pub cache_entries: u32,
    /// The range of the synthetic addresses that the DNS server gives to names.
    pub synthetic: Option<Ipv4Net>,
}

closed_list! {
    /// Who resolves a target's name.
    DnsMode {
        /// The tailnet: MagicDNS, split DNS, its global resolvers.
        Tailnet = "tailnet",
        /// Names are passed on to the upstream.
        Upstream = "upstream",
        /// This host's own resolver: its hosts file, then getaddrinfo(3).
        System = "system",
    }
}

/// What may be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What the lists do.
    pub mode: PolicyMode,
    /// Allowed names, by suffix.
    pub suffixes: Vec<Suffix>,
    /// Allowed names, by glob; canonical (lower case, no trailing dot), known to compile.
    pub globs: Vec<String>,
    /// Allowed addresses, for targets given as addresses.
    pub nets: Vec<IpNet>,
    /// Addresses refused in every mode.
    pub deny_nets: Vec<IpNet>,
    /// TLS has to name its server.
    pub require_sni: bool,
}

/// How many, how large and how long: what a client may take up at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once; never 0.
    pub max_connections: u32,
    /// Connections at once of one client; 0: no bound.
    pub per_client: u32,
    /// Most bytes of a request's or an answer's head.
    pub max_head: usize,
    /// One deadline for a whole request head.
    pub head_timeout: Duration,
    /// Between two requests of an HTTP forward connection.
    pub keepalive_idle: Duration,
    /// Nothing moved either way.
    pub idle_timeout: Duration,
    /// Half closed, then silent.
    pub half_close_timeout: Duration,
    /// What live connections get after SIGTERM.
    pub drain_timeout: Duration,
}

/// How bytes are moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Splice may be used; false: copy only.
    pub splice: bool,
}

/// What is written down about clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name the calling program where `/proc` shows it.
    pub process: bool,
}

/// The gateway's own log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// What is written: by level, and by module.
    pub filter: LogFilter,
    /// The form of a line: text or JSON.
    pub format: LogFormat,
    /// Where the lines are written to.
    pub to: LogTo,
    /// One line per finished target.
    pub access: bool,
}

closed_list! {
    /// Form of a log line.
    LogFormat {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// Text for people, also where no terminal is.
        Text = "text",
        /// One object per line.
        Json = "json",
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTo {
    /// This process's standard error, which is the default.
    Stderr,
    /// This process's standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// Networks refused in every mode unless the settings say otherwise: this host, link-local,
/// cloud metadata services, multicast, reserved (IANA special-purpose registries).
pub(crate) const DENY_NETS: [&str; 15] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd00:ec2::23/128",
    "fd20:ce::254/128",
    "ff00::/8",
];

impl Config {
    /// Every default, with this upstream: what an empty file and one `upstream` setting mean.
    pub fn with_upstream(kind: UpstreamKind, run_dir: PathBuf) -> Self {
        Self {
            run_dir,
            listen: Listen::default(),
            forwards: Vec::new(),
            transparent: Transparent::default(),
            upstream: Upstream::of(kind),
            tailnet: None,
            dns: Dns::of(kind),
            policy: Policy::default(),
            limits: Limits::default(),
            relay: Relay { splice: true },
            record: Record { process: true },
            log: Log::default(),
        }
    }
}

impl UpstreamKind {
    /// The kind without its address, as the log and `status` name it.
    pub fn label(self) -> &'static str {
        labels::UpstreamKind::from(self).label()
    }
}

impl From<UpstreamKind> for labels::UpstreamKind {
    fn from(kind: UpstreamKind) -> Self {
        match kind {
            UpstreamKind::Tailscaled(_) => Self::Tailscaled,
            UpstreamKind::LocalApi => Self::LocalApi,
            UpstreamKind::Socks5(_) => Self::Socks5,
            UpstreamKind::Direct => Self::Direct,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        Self {
            proxy: vec![SocketAddr::new(v4, 1055), SocketAddr::new(v6, 1055)],
            tproxy: Vec::new(),
            admin: SocketAddr::new(v4, 9155),
            admin_hosts: Vec::new(),
            dns: None,
            allow_remote: false,
        }
    }
}

impl Default for Transparent {
    fn default() -> Self {
        Self { server_first: Duration::from_millis(200) }
    }
}

impl Upstream {
    fn of(kind: UpstreamKind) -> Self {
        Self {
            kind,
            connect_timeout: Duration::from_secs(7),
            local_timeout: Duration::from_secs(2),
            half_close: HalfCloseChoice::Auto,
            max_connections: None,
            pool: 8,
            mark: None,
            outside_tailnet: true,
        }
    }
}

impl Dns {
    fn of(kind: UpstreamKind) -> Self {
        let mode = match kind {
            UpstreamKind::Tailscaled(_) | UpstreamKind::LocalApi => DnsMode::Tailnet,
            UpstreamKind::Socks5(_) => DnsMode::Upstream,
            UpstreamKind::Direct => DnsMode::System,
        };
        Self { mode, timeout: Duration::from_secs(3), cache_entries: 10_000, synthetic: None }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Log,
            suffixes: Vec::new(),
            globs: Vec::new(),
            nets: Vec::new(),
            deny_nets: DENY_NETS.iter().filter_map(|net| net.parse().ok()).collect(),
            require_sni: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            per_client: 0,
            max_head: 64 << 10,
            head_timeout: Duration::from_secs(10),
            keepalive_idle: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(3600),
            half_close_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(4),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: LogFilter::default(),
            format: LogFormat::Auto,
            to: LogTo::Stderr,
            access: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_deny_net_parses() {
        assert_eq!(Policy::default().deny_nets.len(), DENY_NETS.len());
    }
}
