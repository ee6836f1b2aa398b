//! Where is it: an admitted host in, addresses out, or the name passed on to the upstream.
//!
//! It asks only for what policy admitted, and knows neither inbounds nor rules.
#![forbid(unsafe_code)]

mod answer;
mod cache;
mod dial;
mod domain;
mod error;
mod hosts;
mod https;
mod name_lookup;
mod own_resolvers;
mod query_coalescer;
pub mod reverse;
mod routes;
pub mod serve;
mod server;
mod system;
#[cfg(test)]
mod tests;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{self, RData};

use crate::labels::{DnsRoute, ResolvedBy};
use crate::policy::Admitted;
use crate::target::{Host, Name, Target};

use self::cache::LookupResult;
pub use self::cache::{IpFamily, QueryKind};
pub use self::error::NameError;
use self::https::TrustStore;
use self::routes::TailnetResolver;
use self::server::NameserverContext;
use self::system::SystemResolver;
pub use self::zone::{NameserverAddress, NameserverDial, NameserverWay, TailnetZone};

/// Who resolves names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveMode {
    /// The upstream: names are passed on.
    Upstream,
    /// This host's resolver.
    System,
    /// The tailnet, and this host's resolver for what is not its affair.
    Tailnet,
}

/// How names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolverSettings {
    /// By whom.
    pub mode: ResolveMode,
    /// For one name, everything included.
    pub timeout: Duration,
    /// Answers of nameservers remembered at most; 0: none. What this host's resolver says carries no
    /// time to live and is never remembered here.
    pub cache_entries: u32,
    /// `SO_MARK` (socket(7)) of connections to nameservers outside of the tailnet.
    pub mark: Option<u32>,
}

/// Where an admitted host is.
#[derive(Debug)]
pub enum Resolution {
    /// The upstream will find out.
    Passed(Admitted<Target>),
    /// Addresses, best first, none twice.
    Addresses {
        /// At least one.
        addresses: Vec<IpAddr>,
        /// Who knows them: a DNS route, or nobody was asked for a literal.
        by: ResolvedBy,
    },
}

/// What a DNS client is told of a name. Nothing there: there is nothing of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecords {
    /// The names on the way to the addresses, in their order.
    pub aliases: Vec<rr::Name>,
    /// None twice.
    pub addresses: Vec<IpAddr>,
    /// Of kinds that are no addresses.
    pub data: Vec<RData>,
    /// How long this holds.
    pub left: Duration,
    /// By which route, as in [`Resolution`].
    pub by: DnsRoute,
}

impl DnsRecords {
    fn of_addresses(addresses: &[IpAddr], kind: QueryKind, left: Duration, by: DnsRoute) -> Self {
        let of_kind = |ip: &IpAddr| match kind {
            QueryKind::Addresses(family) => family.includes(*ip),
            QueryKind::Txt | QueryKind::Srv | QueryKind::Mx | QueryKind::Ptr => false,
        };
        let addresses = addresses.iter().copied().filter(of_kind).collect();
        Self { aliases: Vec::new(), addresses, data: Vec::new(), left, by }
    }

    fn of_lookup(
        LookupResult { aliases, addresses, data }: LookupResult,
        left: Duration,
        by: DnsRoute,
    ) -> Self {
        Self { aliases, addresses, data, left, by }
    }

    /// The name of an address of the tailnet.
    pub fn of_pointer(name: &Name) -> Self {
        let name = rr::Name::from_ascii(format!("{name}.")).ok();
        let data = name.map(|name| RData::PTR(PTR(name))).into_iter().collect();
        let (aliases, addresses) = (Vec::new(), Vec::new());
        Self { aliases, addresses, data, left: routes::NETMAP, by: DnsRoute::Magicdns }
    }

    /// This host's resolver tells no time to live: nobody is to remember what it says.
    async fn of_system(
        system: &SystemResolver,
        name: &Name,
        family: IpFamily,
    ) -> Result<Self, NameError> {
        let found = system.lookup_addresses(name).await?;
        Ok(Self::of_addresses(
            &found,
            QueryKind::Addresses(family),
            Duration::ZERO,
            DnsRoute::System,
        ))
    }
}

/// By which way a name would be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvePlan {
    /// The DNS route; the upstream where names are passed on.
    pub by: ResolvedBy,
    /// The domain of the tailnet that covers the name.
    pub suffix: Option<Name>,
    /// Who would be asked, in this order; empty with the routes that ask no nameserver of ours.
    pub nameservers: Vec<String>,
    /// Nameservers with a form that is not asked, as written.
    pub skipped: Vec<String>,
}

impl ResolvePlan {
    fn without_nameservers(by: impl Into<ResolvedBy>, suffix: Option<Name>) -> Self {
        Self { by: by.into(), suffix, nameservers: Vec::new(), skipped: Vec::new() }
    }
}

/// The resolver of one setting.
pub struct DnsResolver(ResolverBackend);

enum ResolverBackend {
    Upstream,
    System(Arc<NameserverContext>),
    Tailnet(TailnetResolver),
}

impl DnsResolver {
    /// A resolver. `zone` is looked at for each name; with [`ResolveMode::Upstream`] and [`ResolveMode::System`] it
    /// and `way` do not matter.
    pub fn new(
        settings: ResolverSettings,
        zone: Arc<ArcSwap<TailnetZone>>,
        way: Option<Arc<dyn NameserverWay>>,
    ) -> Self {
        Self::with_trust(settings, zone, way, TrustStore::default())
    }

    fn with_trust(
        settings: ResolverSettings,
        zone: Arc<ArcSwap<TailnetZone>>,
        way: Option<Arc<dyn NameserverWay>>,
        trust: TrustStore,
    ) -> Self {
        let ResolverSettings { mode, timeout, cache_entries, mark } = settings;
        let system = SystemResolver::new(timeout);
        Self(match mode {
            ResolveMode::Upstream => ResolverBackend::Upstream,
            ResolveMode::System => ResolverBackend::System(Arc::new(NameserverContext {
                way: None,
                system,
                trust,
                timeout,
                mark,
            })),
            ResolveMode::Tailnet => {
                let outside = Arc::new(NameserverContext { way, system, trust, timeout, mark });
                ResolverBackend::Tailnet(TailnetResolver::new(zone, outside, cache_entries))
            }
        })
    }

    /// Forgets what nameservers answered, and closes what is open to them: after a pause of this machine
    /// an answer may be older than its clock says.
    pub fn forget_answers(&self) {
        if let ResolverBackend::Tailnet(tailnet) = &self.0 {
            tailnet.forget_answers();
        }
    }

    /// Finds where `host` is. A literal asks nobody.
    ///
    /// # Errors
    /// [`NameError`], naming the host.
    pub async fn resolve(&self, host: &Admitted<Target>) -> Result<Resolution, NameError> {
        match &host.get().host {
            Host::Address(ip) => {
                Ok(Resolution::Addresses { addresses: vec![*ip], by: ResolvedBy::Literal })
            }
            Host::Name(name) => match &self.0 {
                ResolverBackend::Upstream => Ok(Resolution::Passed(host.clone())),
                ResolverBackend::System(outside) => {
                    let addresses = outside.system.lookup_addresses(name).await?;
                    Ok(Resolution::Addresses { addresses, by: DnsRoute::System.into() })
                }
                ResolverBackend::Tailnet(tailnet) => tailnet.resolve(name).await,
            },
        }
    }

    /// What a DNS client that asks one of `listeners` is told of `name`, by the same routes; none where
    /// names are passed on, and nobody here knows.
    ///
    /// # Errors
    /// [`NameError`]; there is no such name with [`NameError::NotFound`].
    pub async fn resolve_records(
        &self,
        name: &Admitted<Name>,
        kind: QueryKind,
        listeners: &[SocketAddr],
    ) -> Result<Option<DnsRecords>, NameError> {
        let name = name.get();
        match (&self.0, kind) {
            (ResolverBackend::Upstream, _) => Ok(None),
            (ResolverBackend::System(outside), QueryKind::Addresses(family)) => {
                DnsRecords::of_system(&outside.system, name, family).await.map(Some)
            }
            (ResolverBackend::System(outside), _) => {
                outside.ask_own_resolvers(name, kind, listeners).await.map(Some)
            }
            (ResolverBackend::Tailnet(tailnet), _) => {
                tailnet.resolve_records(name, kind, listeners).await.map(Some)
            }
        }
    }

    /// The node of the tailnet that has this address.
    pub fn find_pointer(&self, address: IpAddr) -> Option<Name> {
        match &self.0 {
            ResolverBackend::Tailnet(tailnet) => tailnet.find_pointer(address),
            ResolverBackend::Upstream | ResolverBackend::System(_) => None,
        }
    }

    /// Whether a DNS client that asks one of `listeners` for `name` may be this host's resolver, asked
    /// by us: nobody could answer that.
    pub async fn asks_itself(&self, name: &Name, listeners: &[SocketAddr]) -> bool {
        match &self.0 {
            ResolverBackend::Upstream => false,
            ResolverBackend::System(outside) => outside.system.asks_itself(name, listeners).await,
            ResolverBackend::Tailnet(tailnet) => tailnet.asks_itself(name, listeners).await,
        }
    }

    /// The whole name behind a bare one, when the tailnet has it: `db` is `db.tail1234.ts.net`.
    pub fn qualify(&self, name: &Name) -> Option<Name> {
        match &self.0 {
            ResolverBackend::Tailnet(tailnet) => tailnet.qualify(name),
            ResolverBackend::Upstream | ResolverBackend::System(_) => None,
        }
    }

    /// By which way `name` would be asked. Nobody is asked.
    pub fn plan(&self, name: &Name) -> ResolvePlan {
        match &self.0 {
            ResolverBackend::Upstream => {
                ResolvePlan::without_nameservers(ResolvedBy::Upstream, None)
            }
            ResolverBackend::System(_) => ResolvePlan::without_nameservers(DnsRoute::System, None),
            ResolverBackend::Tailnet(tailnet) => tailnet.plan(name),
        }
    }
}
