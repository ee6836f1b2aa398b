//! What the rig and the fake tailscaled say to each other: one JSON value a line, both ways.
//!
//! The rig describes a whole tailnet in a [`Script`] and sends it again whenever it changes; an
//! [`Order`] is done once. The fake tells what it sees as [`Event`]s. Both sides compile this file.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The tailnet, and how this tailscaled behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// What `--version` and LocalAPI say. What it speaks follows from it: dialect.rs.
    pub version: String,
    /// What becomes of the bus.
    pub bus: Bus,
    /// The control server sends the whole netmap when a peer comes or goes, as headscale does; otherwise only
    /// what has changed.
    pub whole_netmaps: bool,
    /// LocalAPI names it does not have: 404.
    pub lacks: Vec<String>,
    /// It says things nobody knows in every answer, and leaves out what one can do without.
    pub strange: bool,
    /// How the process starts.
    pub start: Start,
    /// It claims this SOCKS5 port, which is somebody else's, and opens none.
    pub claims: Option<SocketAddr>,
    /// Soft and hard limit of open files it gives itself; none: the soft one is raised to the hard.
    pub open_files: Option<u64>,
    /// What a login leads to.
    pub login: Login,
    /// What it leads to with these keys.
    pub keys: BTreeMap<String, Login>,
    /// How long the log-out at SIGTERM takes.
    pub logout_takes: Duration,
    /// Whether that log-out works.
    pub logout_fails: bool,
    /// `check-prefs` says this.
    pub refuse_prefs: Option<String>,
    /// Who asks may read only: every writing call gets 403.
    pub read_only: bool,
    /// Nothing is told on the bus any more, as when a watcher's queue has run over.
    pub mute_bus: bool,
    /// MagicDNS suffix.
    pub suffix: String,
    /// This node.
    pub node: Node,
    /// Everybody else.
    pub peers: Vec<Peer>,
    /// `dns-config` once there is a netmap.
    pub dns: Value,
    /// Health warnings: code and text.
    pub health: BTreeMap<String, String>,
    /// Where a target really is: `host:port` or `host`, by name or address.
    pub places: BTreeMap<String, SocketAddr>,
    /// How a dial ends, by the same keys; without one it goes to its place, and to silence if it
    /// has none.
    pub answers: BTreeMap<String, Answer>,
}

/// What becomes of the bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Bus {
    /// What its version makes of it.
    Normal,
    /// Masks with other bits than these are refused.
    Takes(u64),
    /// Every mask is answered with this status and these words.
    Refused(u16, String),
    /// Who asks for it is never answered.
    Silent,
    /// Each stream closes by itself so long after it was opened.
    Closes(Duration),
}

/// How the process starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Start {
    /// At once.
    Normal,
    /// The socket and the port are there so much later.
    Late(Duration),
    /// Neither ever is.
    Never,
    /// `flag provided but not defined`, exit 2.
    UnknownFlag(String),
    /// This line on stderr, then this exit status.
    Exit(String, i32),
}

/// What a login leads to. Whatever it is, a changed script is looked at anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Login {
    /// Running, so much later.
    Runs(Duration),
    /// `ErrMessage` and `login-state` with these words, again and again.
    Refused(String),
    /// Only `login-state` with these words: the control server is not reached.
    Unreachable(String),
    /// Registered; an admin has to approve the node.
    NeedsApproval,
    /// Registered; no relay is reached: Starting for ever, with this warning.
    NoRelay(String),
    /// The key is ignored, this page is to be visited.
    Browse(String),
    /// Nothing happens.
    Never,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name; none: the host name of the preferences.
    pub name: Option<String>,
    /// Its addresses, if it is the first of its name: see node.rs.
    pub addresses: Vec<IpAddr>,
    /// Its tags.
    pub tags: Vec<String>,
    /// When its key ends (RFC 3339).
    pub key_expiry: Option<String>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name, without the suffix.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks it routes.
    pub routes: Vec<String>,
    /// Whether the control server sees it.
    pub online: bool,
}

/// How a dial into the tailnet ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The place answers.
    Connect,
    /// The fake itself sends back what it gets: one descriptor, as a netstack stream costs.
    Echo,
    /// A closed port.
    Refused,
    /// Nobody home, or an ACL that drops: SOCKS says 01 after 5 s, `dial` hangs.
    Silent,
    /// No answer at all.
    Hang,
    /// SOCKS says 01, `dial` says 502 with these words.
    Words(String),
    /// The same, so much later.
    Late(Duration, Box<Answer>),
}

/// `ipn.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(clippy::enum_variant_names, reason = "tailscale's own names")]
pub enum State {
    NoState = 0,
    NeedsLogin = 2,
    NeedsMachineAuth = 3,
    Stopped = 4,
    Starting = 5,
    Running = 6,
}

/// Something to do now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The tailnet is like this from now on.
    Script(Box<Script>),
    /// The backend is in this state from now on.
    Become(State),
    /// `ErrMessage` on the bus.
    Error(String),
    /// Every bus stream ends.
    EndBus,
    /// These bytes on stderr, each in a write of its own, so far apart.
    Say(Vec<Vec<u8>>, Duration),
    /// This line on stderr at full speed, so many bytes in all.
    Flood(String, u64),
    /// So many bytes of memory are taken and touched.
    Eat(u64),
    /// So many grandchildren are left to whoever takes orphans.
    Orphans(u32),
    /// Nothing: what was told before its [`Event::Done`] is all there was.
    Tell,
    /// The process ends.
    Exit(i32),
}

/// What the rig sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Numbered {
    /// Told back in [`Event::Done`].
    pub number: u64,
    /// What is to be done.
    pub order: Order,
}

/// What the fake tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// It was started like this; it waits for its script.
    Started(Process),
    /// An order was taken in.
    Done(u64),
    /// Its sockets are open.
    Listening {
        /// The SOCKS5 port, if it was asked for.
        socks: Option<SocketAddr>,
    },
    /// A LocalAPI call.
    Api(Call),
    /// A login began, with this key.
    Login(Option<String>),
    /// The node of its state file is let in again.
    Resumed,
    /// A SOCKS5 request.
    Socks(Asked),
    /// A LocalAPI dial.
    Dial(Asked),
    /// So many SOCKS5 connections are open.
    Open(usize),
    /// So many bytes of a flood were written.
    Flooded(u64),
    /// A signal came.
    Signal(String),
    /// The node was logged out.
    LoggedOut,
}

/// How the process was started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// As the kernel has it.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environ: BTreeMap<String, String>,
    /// Its process group.
    pub group: i32,
    /// The soft limit of open files it was started with.
    pub open_files: u64,
    /// What its descriptors are: `pipe:[…]`, `socket:[…]`, paths.
    pub descriptors: Vec<String>,
}

/// A LocalAPI call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// GET, POST, PATCH.
    pub method: String,
    /// Behind `/localapi/v0/`, with its query.
    pub name: String,
    /// The body.
    pub body: String,
}

/// A target asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether the tailnet was up.
    pub running: bool,
}

impl Default for Script {
    /// Node `gw` of `lab.ts.net` with one peer, `db`, that routes 10.50.0.0/16; every login works.
    fn default() -> Self {
        Self {
            version: "1.98.9-ERR-BuildInfo".to_owned(),
            bus: Bus::Normal,
            whole_netmaps: false,
            lacks: Vec::new(),
            strange: false,
            start: Start::Normal,
            claims: None,
            open_files: None,
            login: Login::Runs(Duration::from_millis(20)),
            keys: BTreeMap::new(),
            logout_takes: Duration::ZERO,
            logout_fails: false,
            refuse_prefs: None,
            read_only: false,
            mute_bus: false,
            suffix: "lab.ts.net".to_owned(),
            node: Node {
                name: None,
                addresses: vec![
                    "100.64.0.9".parse().unwrap(),
                    "fd7a:115c:a1e0::9".parse().unwrap(),
                ],
                tags: Vec::new(),
                key_expiry: None,
            },
            peers: vec![Peer {
                name: "db".to_owned(),
                addresses: vec![
                    "100.64.0.1".parse().unwrap(),
                    "fd7a:115c:a1e0::1".parse().unwrap(),
                ],
                routes: vec!["10.50.0.0/16".to_owned()],
                online: true,
            }],
            dns: serde_json::json!({"Domains": ["lab.ts.net"], "Proxied": true,
                "Routes": {"64.100.in-addr.arpa": [], "lab.ts.net": []}}),
            health: BTreeMap::new(),
            places: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }
}

impl State {
    /// The `BackendState` of `status`.
    pub fn label(self) -> &'static str {
        match self {
            State::NoState => "NoState",
            State::NeedsLogin => "NeedsLogin",
            State::NeedsMachineAuth => "NeedsMachineAuth",
            State::Stopped => "Stopped",
            State::Starting => "Starting",
            State::Running => "Running",
        }
    }
}
