//! Why the gateway could not start, and with which exit code that ends `up`.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;

use crate::config::{Key, ListenerKey};
use crate::lifecycle::port_owner;
use crate::tailnet::StateFolderError;

/// Why the gateway could not start. Each names the thing and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port belongs to somebody else (EADDRINUSE).
    #[error(
        "{key}: {address} is already in use{owner}: stop that process, or set {key} to another port"
    )]
    InUse {
        /// The setting that names the address.
        key: ListenerKey,
        /// The address asked for.
        address: SocketAddr,
        /// ` by process N`, or nothing.
        owner: String,
    },
    /// The address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}; set {key} to an address of this host")]
    Bind {
        /// The setting that names the address.
        key: ListenerKey,
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// `IP_TRANSPARENT` is refused (EPERM).
    #[error(
        "listen.tproxy: {address} needs CAP_NET_ADMIN for IP_TRANSPARENT: give the program that capability \
         (setcap cap_net_admin+ep, AmbientCapabilities=CAP_NET_ADMIN), or empty listen.tproxy and lead \
         connections here with the rules of `tailrace nft`, which need none"
    )]
    NotTransparent {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The kernel refuses `SO_MARK` (socket(7)), which needs CAP_NET_ADMIN.
    #[error(
        "upstream.mark: {mark} cannot be set on our own connections: {source}; give the program CAP_NET_ADMIN \
         (setcap cap_net_admin+ep, AmbientCapabilities=CAP_NET_ADMIN), or set upstream.mark = 0 and exempt \
         it from the redirect by its uid"
    )]
    Mark {
        /// The mark asked for.
        mark: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No proxy address of the list exists on this host.
    #[error("listen.proxy: none of its addresses exists on this host: set it to 127.0.0.1:1055")]
    NoListener,
    /// The run directory cannot be used.
    #[error("{0}")]
    RunDir(#[from] crate::lifecycle::run_dir::RunDirError),
    /// The log cannot be opened.
    #[error("{0}")]
    Log(#[from] crate::record::log::LogError),
    /// A rule does not compile.
    #[error("policy: {0}")]
    Policy(#[from] crate::policy::PolicyError),
    /// tailscaled cannot be started, and was asked for by `tailnet.manage = true`.
    #[error("{}", .0.sentence())]
    Tailscaled(crate::tailnet::TailnetFault),
    /// The folder of `tailnet.state` cannot hold a node's identity.
    #[error("{0}")]
    NodeState(#[from] crate::tailnet::StateFolderError),
    /// The time to become ready is over; CMD was not started.
    #[error("not ready after {after:?}: {message}")]
    NotReady {
        /// How long was waited.
        after: Duration,
        /// What is still missing, as `/readyz` says it.
        message: String,
    },
    /// It will not become ready by waiting; CMD was not started.
    #[error("{message}")]
    Hopeless {
        /// Why waiting does not help, and what to do.
        message: String,
    },
    /// CMD cannot be started.
    #[error("{0}")]
    Command(#[from] crate::lifecycle::command::CommandError),
    /// The system refuses threads, epoll or signals.
    #[error("cannot set up {what}: {source}")]
    System {
        /// What was to be set up.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StartError {
    pub(super) fn bind(key: ListenerKey, address: SocketAddr, source: io::Error) -> Self {
        if key == ListenerKey::Tproxy && Errno::from_io_error(&source) == Some(Errno::PERM) {
            return Self::NotTransparent { address };
        }
        if source.kind() != io::ErrorKind::AddrInUse {
            return Self::Bind { key, address, source };
        }
        let owner = port_owner::of(address).map(|pid| format!(" by process {pid}"));
        Self::InUse { key, address, owner: owner.unwrap_or_default() }
    }

    /// The setting it is about, where there is one.
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::InUse { key, .. } | Self::Bind { key, .. } => key.key(),
            Self::NotTransparent { .. } => Some(Key::ListenTproxy),
            Self::Mark { .. } => Some(Key::UpstreamMark),
            Self::NoListener => Some(Key::ListenProxy),
            Self::RunDir(_) => Some(Key::RunDir),
            Self::Log(_) => Some(Key::LogTo),
            Self::Policy(_) => Some(Key::PolicyAllowedHosts),
            Self::Tailscaled(_) => Some(Key::TailnetTailscaled),
            Self::NodeState(_) => Some(Key::TailnetState),
            Self::NotReady { .. }
            | Self::Hopeless { .. }
            | Self::Command(_)
            | Self::System { .. } => None,
        }
    }

    /// The address that cannot be listened on.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::InUse { address, .. }
            | Self::Bind { address, .. }
            | Self::NotTransparent { address } => Some(*address),
            _ => None,
        }
    }

    /// The exit code: 75 try again, 78 bad configuration, 126 and 127 as a shell's
    /// (docs/requirements.md, Exit codes).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::InUse { .. }
            | Self::NotReady { .. }
            | Self::System { .. }
            | Self::NodeState(StateFolderError::InUse { .. }) => 75,
            Self::Command(error) => error.exit_code(),
            Self::Bind { .. }
            | Self::NotTransparent { .. }
            | Self::Mark { .. }
            | Self::NoListener
            | Self::RunDir(_)
            | Self::Log(_)
            | Self::Policy(_)
            | Self::Tailscaled(_)
            | Self::NodeState(_)
            | Self::Hopeless { .. } => 78,
        }
    }
}
