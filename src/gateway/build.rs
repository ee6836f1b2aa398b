//! Settings become modules: what `config` says, in the types each of them takes.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::StartError;
use super::tailnet::{States, ThroughUpstream};
use crate::config::{self, Config, DnsMode, UpstreamKind};
use crate::connection::{self, GatewayState, HalfClosePolicy, SyntheticAddresses};
use crate::dns::{self as dns_resolver, DnsResolver, TailnetZone};
use crate::labels::Route;
use crate::policy::{Policy, PolicyError, Rules};
use crate::relay::{self, HalfClose};
use crate::sys::Exiting;
use crate::upstream;

pub(super) fn policy(settings: &config::Policy) -> Result<Policy, PolicyError> {
    Policy::new(Rules {
        mode: settings.mode,
        suffixes: settings.suffixes.clone(),
        globs: settings.globs.clone(),
        nets: settings.nets.clone(),
        deny_nets: settings.deny_nets.clone(),
        require_sni: settings.require_sni,
    })
}

/// What a resolver is made of beside its settings, so that a reload can make another one.
pub(super) struct ResolverFactory {
    pub(super) zone: Arc<ArcSwap<TailnetZone>>,
    way: Option<Arc<ThroughUpstream>>,
    mark: Option<u32>,
}

impl ResolverFactory {
    pub(super) fn new(states: Option<&States>, mark: Option<u32>) -> Self {
        Self { zone: Arc::default(), way: states.map(ThroughUpstream::new), mark }
    }

    /// Nameservers inside the tailnet are reached as targets are, through this gateway state.
    pub(super) fn through(&self, gateway_state: &Arc<GatewayState>) {
        if let Some(way) = &self.way {
            way.lead_through(gateway_state);
        }
    }

    pub(super) fn names(&self, settings: &config::Dns) -> DnsResolver {
        let mode = match settings.mode {
            DnsMode::Tailnet => dns_resolver::ResolveMode::Tailnet,
            DnsMode::Upstream => dns_resolver::ResolveMode::Upstream,
            DnsMode::System => dns_resolver::ResolveMode::System,
        };
        let config::Dns { timeout, cache_entries, .. } = *settings;
        let way = self.way.clone().map(|way| way as Arc<dyn dns_resolver::NameserverWay>);
        let settings =
            dns_resolver::ResolverSettings { mode, timeout, cache_entries, mark: self.mark };
        DnsResolver::new(settings, Arc::clone(&self.zone), way)
    }
}

/// Addresses for names. The same range stays as it is: programs hold addresses of it.
pub(super) fn synthetic(
    settings: &config::Dns,
    before: Option<Arc<SyntheticAddresses>>,
) -> Option<Arc<SyntheticAddresses>> {
    let net = settings.synthetic?;
    before
        .filter(|synthetic| synthetic.net() == net)
        .or_else(|| Some(Arc::new(SyntheticAddresses::new(net))))
}

pub(super) fn upstream(settings: &config::Upstream) -> upstream::UpstreamSettings {
    upstream::UpstreamSettings {
        kind: settings.kind.into(),
        connect_timeout: settings.connect_timeout,
        local_timeout: settings.local_timeout,
        pool: settings.pool,
        max_connections: settings.max_connections,
        mark: settings.mark,
        outside: settings.outside_tailnet,
    }
}

/// A mark that may not be set would fail every dial: said once, at the start.
pub(super) fn may_mark(mark: Option<u32>) -> Result<(), StartError> {
    let tried = mark.map_or(Ok(()), crate::sys::may_mark);
    tried.map_err(|source| StartError::Mark { mark: mark.unwrap_or_default(), source })
}

/// Where the upstream is, where that is a setting; tailscaled's place is told by the tailnet.
pub(super) fn place(kind: UpstreamKind) -> Option<upstream::Endpoint> {
    match kind {
        UpstreamKind::Socks5(address) => Some(upstream::Endpoint::Port(address)),
        UpstreamKind::Direct | UpstreamKind::Tailscaled(_) | UpstreamKind::LocalApi => None,
    }
}

/// `auto` asks tailscaled's version behind its SOCKS5 port, and defers where nobody knows which
/// tailscaled that is, and with LocalAPI, which keeps no half-close (docs/requirements.md, C6).
pub(super) fn half_close(settings: &config::Upstream) -> HalfClosePolicy {
    use config::HalfCloseChoice::{Auto, Defer, Propagate};
    match (settings.half_close, settings.kind) {
        (Propagate, _) | (Auto, UpstreamKind::Direct) => {
            HalfClosePolicy::Always(HalfClose::Propagate)
        }
        (Auto, UpstreamKind::Tailscaled(_)) => HalfClosePolicy::ByVersion,
        (Defer, _) | (Auto, UpstreamKind::Socks5(_) | UpstreamKind::LocalApi) => {
            HalfClosePolicy::Always(HalfClose::Defer)
        }
    }
}

/// The route where it is always the same; with `socks5` nobody knows what lies behind.
pub(super) fn fixed_route(kind: UpstreamKind) -> Option<Route> {
    match kind {
        UpstreamKind::Direct => Some(Route::Direct),
        _ => None,
    }
}

/// What running relays look at, shared by every set of limits.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) splice: Arc<AtomicBool>,
    pub(super) upstream_process: Arc<ArcSwapOption<Exiting>>,
}

impl Live {
    pub(super) fn new(config: &Config) -> Self {
        let splice = Arc::new(AtomicBool::new(config.relay.splice));
        Self { splice, upstream_process: Arc::default() }
    }

    /// The deadlines of a connection.
    pub(super) fn limits(&self, config: &Config) -> connection::ConnectionLimits {
        connection::ConnectionLimits {
            head_timeout: config.limits.head_timeout,
            max_head: config.limits.max_head,
            keepalive_idle: config.limits.keepalive_idle,
            server_first: config.transparent.server_first,
            relay: relay::RelaySettings {
                idle: config.limits.idle_timeout,
                half_close_timeout: config.limits.half_close_timeout,
                splice: Arc::clone(&self.splice),
                upstream_process: Arc::clone(&self.upstream_process),
            },
        }
    }
}

/// Descriptors kept back for listeners, the pool, logs, pipes and the runtime itself.
const RESERVE: u64 = 128;

/// The most client connections that fit the descriptor limit, two descriptors each.
pub(super) fn fitting(wanted: u32, descriptors: u64) -> u32 {
    let room = descriptors.saturating_sub(RESERVE.min(descriptors / 2)) / 2;
    wanted.min(u32::try_from(room).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_connections_fit_the_descriptors() {
        assert_eq!(fitting(8192, 20_000), 8192);
        assert_eq!(fitting(9_900, 20_000), 9_900);
        assert_eq!(fitting(20_000, 20_000), 9_936);
        assert_eq!(fitting(8192, 64), 16);
        assert_eq!(fitting(8192, 0), 1);
    }
}
