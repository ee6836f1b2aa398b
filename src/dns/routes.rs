//! `dns.mode = "tailnet"`: the tailnet's own names, its split DNS, its nameservers, then this host's
//! resolver. A name that is the tailnet's affair is asked of nobody else, whatever fails.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::cache::{
    AnswerCache, AnswerLifetime, IpFamily, LookupAnswer, LookupKey, LookupResult, QueryKind,
};
use super::domain::ResolverDomain;
use super::name_lookup;
use super::query_coalescer::QueryCoalescer;
use super::server::NameserverContext;
use super::zone::is_within;
use super::{DnsRecords, NameError, Resolution, ResolvePlan, TailnetZone, reverse};
use crate::labels::DnsRoute;
use crate::target::Name;

/// Who answers for names that are not asked of anybody.
const MAGIC_DNS: &str = "MagicDNS";
/// The same for reverse names of private networks.
const NOBODY: &str = "nobody outside is asked about private networks, and this gateway";
/// How long others may remember what the netmap says: it may change at any time, and asking again costs
/// nothing.
pub(super) const NETMAP: Duration = Duration::from_secs(5);

pub(super) struct TailnetResolver {
    zone: Arc<ArcSwap<TailnetZone>>,
    outside: Arc<NameserverContext>,
    cache_entries: u32,
    known: ArcSwap<ZoneView>,
}

/// What one netmap says, and what was learned under it.
struct ZoneView {
    zone: Arc<TailnetZone>,
    domains: Vec<Arc<ResolverDomain>>,
    global: Arc<ResolverDomain>,
    learned: Arc<LearnedAnswers>,
}

struct LearnedAnswers {
    cache: AnswerCache,
    questions: QueryCoalescer<LookupKey, (LookupAnswer, AnswerLifetime)>,
}

/// By which way a name is found.
enum NameRoute<'a> {
    /// The netmap has these addresses for it: MagicDNS names and extra records.
    Host(&'a [IpAddr]),
    /// It would be known; below this domain.
    Nowhere(&'a Name),
    /// The reverse name of a private network.
    Reserved,
    /// These nameservers are asked.
    Ask(&'a Arc<ResolverDomain>),
    /// This host's resolver is asked.
    System,
}

impl TailnetResolver {
    pub(super) fn new(
        zone: Arc<ArcSwap<TailnetZone>>,
        outside: Arc<NameserverContext>,
        cache_entries: u32,
    ) -> Self {
        let known = ZoneView::new(zone.load_full(), &outside, cache_entries);
        Self { known: ArcSwap::from_pointee(known), zone, outside, cache_entries }
    }

    /// Forgets every answer and closes what is open to nameservers.
    pub(super) fn forget_answers(&self) {
        let fresh = ZoneView::new(self.zone.load_full(), &self.outside, self.cache_entries);
        self.known.store(Arc::new(fresh));
    }

    pub(super) async fn resolve(&self, name: &Name) -> Result<Resolution, NameError> {
        let known = self.current_view();
        let found = |addresses, by: DnsRoute| Resolution::Addresses { addresses, by: by.into() };
        match known.route_of(name) {
            NameRoute::Host(addresses) => Ok(found(addresses.to_vec(), DnsRoute::Magicdns)),
            NameRoute::Nowhere(_) => Err(not_found(name, MAGIC_DNS)),
            NameRoute::Reserved => Err(not_found(name, NOBODY)),
            NameRoute::System => {
                Ok(found(self.outside.system.lookup_addresses(name).await?, DnsRoute::System))
            }
            NameRoute::Ask(domain) => {
                let both = QueryKind::Addresses(IpFamily::Both);
                let (learned, _, by) = self.recall_or_ask(&known, domain, name, both).await?;
                Ok(found(learned.addresses, by))
            }
        }
    }

    /// The same for a DNS client, by the same routes.
    pub(super) async fn resolve_records(
        &self,
        name: &Name,
        kind: QueryKind,
        listeners: &[SocketAddr],
    ) -> Result<DnsRecords, NameError> {
        let known = self.current_view();
        let (learned, left, by) = match (known.route_of(name), kind) {
            (NameRoute::Host(addresses), _) => {
                return Ok(DnsRecords::of_addresses(addresses, kind, NETMAP, DnsRoute::Magicdns));
            }
            (NameRoute::Nowhere(_), _) => return Err(not_found(name, MAGIC_DNS)),
            (NameRoute::Reserved, _) => return Err(not_found(name, NOBODY)),
            (NameRoute::System, QueryKind::Addresses(family)) => {
                return DnsRecords::of_system(&self.outside.system, name, family).await;
            }
            (NameRoute::System, _) => {
                let domain = Arc::new(self.outside.own_resolvers(name, listeners).await?);
                self.recall_or_ask(&known, &domain, name, kind).await?
            }
            (NameRoute::Ask(domain), _) => self.recall_or_ask(&known, domain, name, kind).await?,
        };
        Ok(DnsRecords::of_lookup(learned, left, by))
    }

    /// The node that has this address.
    pub(super) fn find_pointer(&self, address: IpAddr) -> Option<Name> {
        self.zone.load().pointers.get(&address).cloned()
    }

    /// What is remembered of a name, or its nameservers say; how long it still holds, and who said it.
    async fn recall_or_ask(
        &self,
        known: &Arc<ZoneView>,
        domain: &Arc<ResolverDomain>,
        name: &Name,
        kind: QueryKind,
    ) -> Result<(LookupResult, Duration, DnsRoute), NameError> {
        let key = (name.clone(), kind);
        if let Some((answer, left)) = known.learned.cache.get(&key) {
            return Ok((answer?, left, DnsRoute::Cache));
        }
        let question = || self.make_question(known, domain, key.clone());
        let (answer, life) = known.learned.questions.ask_once(&key, question).await;
        Ok((answer?, life.unwrap_or_default(), domain.route()))
    }

    pub(super) async fn asks_itself(&self, name: &Name, listeners: &[SocketAddr]) -> bool {
        matches!(self.current_view().route_of(name), NameRoute::System)
            && self.outside.system.asks_itself(name, listeners).await
    }

    pub(super) fn qualify(&self, name: &Name) -> Option<Name> {
        let zone = self.zone.load();
        let suffix = zone.suffix.as_ref().filter(|_| !name.as_str().contains('.'))?;
        let whole = Name::parse(format!("{name}.{suffix}").as_bytes()).ok()?;
        zone.hosts.contains_key(&whole).then_some(whole)
    }

    pub(super) fn plan(&self, name: &Name) -> ResolvePlan {
        let known = self.current_view();
        let suffix = &known.zone.suffix;
        match known.route_of(name) {
            NameRoute::Host(_) => {
                let suffix = suffix.as_ref().filter(|suffix| is_within(name, suffix));
                ResolvePlan::without_nameservers(DnsRoute::Magicdns, suffix.cloned())
            }
            NameRoute::Nowhere(domain) => {
                ResolvePlan::without_nameservers(DnsRoute::Magicdns, Some(domain.clone()))
            }
            NameRoute::Reserved => ResolvePlan::without_nameservers(DnsRoute::Magicdns, None),
            NameRoute::System => ResolvePlan {
                skipped: known.global.skipped_labels().to_vec(),
                ..ResolvePlan::without_nameservers(DnsRoute::System, None)
            },
            NameRoute::Ask(domain) => ResolvePlan {
                by: domain.route().into(),
                suffix: domain.suffix.clone(),
                nameservers: domain.nameserver_labels(),
                skipped: domain.skipped_labels().to_vec(),
            },
        }
    }

    /// What the present netmap says. One that says the same as the last one changes nothing. Of many
    /// who meet a new one at the same time all get the same: it counts questions and remembers answers.
    fn current_view(&self) -> Arc<ZoneView> {
        loop {
            let (known, zone) = (self.known.load_full(), self.zone.load_full());
            if Arc::ptr_eq(&zone, &known.zone) {
                return known;
            }
            let new = Arc::new(match *zone == *known.zone {
                true => known.with_zone(Arc::clone(&zone)),
                false => ZoneView::new(Arc::clone(&zone), &self.outside, self.cache_entries),
            });
            let before = self.known.compare_and_swap(&known, Arc::clone(&new));
            if Arc::ptr_eq(&before, &known) {
                return new;
            }
        }
    }

    /// The question itself, which belongs to all who ask and so holds what it needs.
    fn make_question(
        &self,
        known: &Arc<ZoneView>,
        domain: &Arc<ResolverDomain>,
        key: LookupKey,
    ) -> impl Future<Output = (LookupAnswer, AnswerLifetime)> + Send + 'static {
        let (known, domain) = (Arc::clone(known), Arc::clone(domain));
        let after = self.outside.timeout;
        async move {
            let answer = tokio::time::timeout(after, known.ask_domain(&domain, &key)).await;
            let (route, asked) = (domain.route(), domain.nameserver_labels().join(", "));
            let late = || NameError::Timeout { name: key.0.clone(), route, asked, after };
            answer.unwrap_or_else(|_| (Err(late()), None))
        }
    }
}

impl ZoneView {
    fn new(zone: Arc<TailnetZone>, outside: &Arc<NameserverContext>, cache_entries: u32) -> Self {
        let domain = |(suffix, servers): &(Name, Vec<_>)| {
            Arc::new(ResolverDomain::new(Some(suffix), servers, &zone, outside))
        };
        Self {
            domains: zone.routes.iter().map(domain).collect(),
            global: Arc::new(ResolverDomain::new(None, &zone.global, &zone, outside)),
            learned: Arc::new(LearnedAnswers {
                cache: AnswerCache::new(cache_entries),
                questions: QueryCoalescer::default(),
            }),
            zone,
        }
    }

    /// The same under another netmap that says the same.
    fn with_zone(&self, zone: Arc<TailnetZone>) -> Self {
        Self {
            zone,
            domains: self.domains.clone(),
            global: Arc::clone(&self.global),
            learned: Arc::clone(&self.learned),
        }
    }

    /// As tailscaled decides: its own names first, then the longest route (tailscale
    /// net/dns/resolver/tsdns.go). What it would fail, the public names of a tailnet without
    /// nameservers for them, this host's resolver gets.
    fn route_of(&self, name: &Name) -> NameRoute<'_> {
        if let Some(addresses) = self.zone.hosts.get(name).filter(|found| !found.is_empty()) {
            return NameRoute::Host(addresses);
        }
        if let Some(suffix) = self.zone.suffix.as_ref().filter(|suffix| is_within(name, suffix)) {
            return NameRoute::Nowhere(suffix);
        }
        let covers = |(_, suffix): &(&Arc<ResolverDomain>, &Name)| is_within(name, suffix);
        let named = self.domains.iter().filter_map(|d| Some((d, d.suffix.as_ref()?)));
        match named.filter(covers).max_by_key(|(_, suffix)| suffix.as_str().len()) {
            Some((domain, suffix)) if domain.is_empty() => NameRoute::Nowhere(suffix),
            Some((domain, _)) => NameRoute::Ask(domain),
            None if reverse::is_reserved(name) => NameRoute::Reserved,
            // No nameserver is asked for this host's own name (RFC 6761 section 6.3).
            None if name.is_localhost() || !self.global.can_be_asked() => NameRoute::System,
            None => NameRoute::Ask(&self.global),
        }
    }

    async fn ask_domain(
        &self,
        domain: &ResolverDomain,
        key: &LookupKey,
    ) -> (LookupAnswer, AnswerLifetime) {
        let (name, route) = (key.0.clone(), domain.route());
        if let (false, Some(suffix)) = (domain.can_be_asked(), &domain.suffix) {
            let (domain, skipped) = (suffix.clone(), domain.skipped_labels().join(", "));
            return (Err(NameError::NoNameserver { name, domain, skipped }), None);
        }
        let _permit = domain.permits.acquire().await;
        let asked = || domain.nameserver_labels().join(", ");
        let looked_up = name_lookup::look_up(domain, &self.zone.hosts, &name, key.1).await;
        let (answer, life) = match looked_up {
            Ok((Some(found), life)) => (Ok(found), life),
            Ok((None, life)) => (Err(NameError::NotFound { name, route, asked: asked() }), life),
            Err(all) => (Err(NameError::Failed { name, route, asked: asked(), why: all.0 }), None),
        };
        if !answer.as_ref().is_ok_and(LookupResult::is_big) {
            self.learned.cache.put(key, &answer, life);
        }
        (answer, life)
    }
}

fn not_found(name: &Name, asked: &str) -> NameError {
    NameError::NotFound { name: name.clone(), route: DnsRoute::Magicdns, asked: asked.to_owned() }
}
