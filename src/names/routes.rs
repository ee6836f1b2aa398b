//! `dns.mode = "tailnet"`: the tailnet's own names, its split DNS, its nameservers, then this host's
//! resolver. A name that is the tailnet's affair is asked of nobody else, whatever fails.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cache::{Answer, Cache};
use super::domain::Domain;
use super::lookup;
use super::questions::Questions;
use super::server::Outside;
use super::zone::within;
use super::{NameError, Plan, Resolved, Zone};
use crate::target::Name;

/// Who answers for names that are not asked of anybody.
const MAGIC_DNS: &str = "MagicDNS";

pub(super) struct Tailnet {
    zone: Arc<ArcSwap<Zone>>,
    outside: Arc<Outside>,
    cache_entries: u32,
    known: ArcSwap<Known>,
}

/// What one netmap says, and what was learned under it.
struct Known {
    zone: Arc<Zone>,
    domains: Vec<Arc<Domain>>,
    global: Arc<Domain>,
    learned: Arc<Learned>,
}

struct Learned {
    cache: Cache,
    questions: Questions<Answer>,
}

/// By which way a name is found.
enum Route<'a> {
    /// It is known.
    Host(&'a [IpAddr]),
    /// It would be known; below this domain.
    Nowhere(&'a Name),
    /// These nameservers are asked.
    Ask(&'a Arc<Domain>),
    /// This host's resolver is asked.
    System,
}

impl Tailnet {
    pub(super) fn new(zone: Arc<ArcSwap<Zone>>, outside: Arc<Outside>, cache_entries: u32) -> Self {
        let known = Known::new(zone.load_full(), &outside, cache_entries);
        Self { known: ArcSwap::from_pointee(known), zone, outside, cache_entries }
    }

    pub(super) async fn resolve(&self, name: &Name) -> Result<Resolved, NameError> {
        let known = self.known();
        let found = |addresses, by| Resolved::Addresses { addresses, by };
        match known.route(name) {
            Route::Host(addresses) => Ok(found(addresses.to_vec(), "magicdns")),
            Route::Nowhere(_) => Err(nowhere(name)),
            Route::System => Ok(found(self.outside.system.addresses(name).await?, "system")),
            Route::Ask(domain) => {
                if let Some(answer) = known.learned.cache.get(name) {
                    return Ok(found(answer?, "cache"));
                }
                let question = || self.question(&known, domain, name);
                let answer = known.learned.questions.ask(name, question).await;
                Ok(found(answer?, domain.route()))
            }
        }
    }

    pub(super) fn qualify(&self, name: &Name) -> Option<Name> {
        let zone = self.zone.load();
        let suffix = zone.suffix.as_ref().filter(|_| !name.as_str().contains('.'))?;
        let whole = Name::parse(format!("{name}.{suffix}").as_bytes()).ok()?;
        zone.hosts.contains_key(&whole).then_some(whole)
    }

    pub(super) fn plan(&self, name: &Name) -> Plan {
        let known = self.known();
        let suffix = &known.zone.suffix;
        match known.route(name) {
            Route::Host(_) => {
                let suffix = suffix.as_ref().filter(|suffix| within(name, suffix));
                Plan::without_nameservers("magicdns", suffix.cloned())
            }
            Route::Nowhere(domain) => Plan::without_nameservers("magicdns", Some(domain.clone())),
            Route::System => Plan {
                skipped: known.global.skipped().to_vec(),
                ..Plan::without_nameservers("system", None)
            },
            Route::Ask(domain) => Plan {
                route: domain.route(),
                suffix: domain.suffix.clone(),
                nameservers: domain.nameservers(),
                skipped: domain.skipped().to_vec(),
            },
        }
    }

    /// What the present netmap says. One that says the same as the last one changes nothing. Of many
    /// who meet a new one at the same time all get the same: it counts questions and remembers answers.
    fn known(&self) -> Arc<Known> {
        loop {
            let (known, zone) = (self.known.load_full(), self.zone.load_full());
            if Arc::ptr_eq(&zone, &known.zone) {
                return known;
            }
            let new = Arc::new(match *zone == *known.zone {
                true => known.under(Arc::clone(&zone)),
                false => Known::new(Arc::clone(&zone), &self.outside, self.cache_entries),
            });
            let before = self.known.compare_and_swap(&known, Arc::clone(&new));
            if Arc::ptr_eq(&before, &known) {
                return new;
            }
        }
    }

    /// The question itself, which belongs to all who ask and so holds what it needs.
    fn question(
        &self,
        known: &Arc<Known>,
        domain: &Arc<Domain>,
        name: &Name,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let (known, domain, name) = (Arc::clone(known), Arc::clone(domain), name.clone());
        let after = self.outside.timeout;
        async move {
            let answer = tokio::time::timeout(after, known.ask(&domain, &name)).await;
            let (route, asked) = (domain.route(), domain.nameservers().join(", "));
            answer.unwrap_or(Err(NameError::Timeout { name, route, asked, after }))
        }
    }
}

impl Known {
    fn new(zone: Arc<Zone>, outside: &Arc<Outside>, cache_entries: u32) -> Self {
        let domain = |(suffix, servers): &(Name, Vec<_>)| {
            Arc::new(Domain::new(Some(suffix), servers, &zone, outside))
        };
        Self {
            domains: zone.routes.iter().map(domain).collect(),
            global: Arc::new(Domain::new(None, &zone.global, &zone, outside)),
            learned: Arc::new(Learned {
                cache: Cache::new(cache_entries),
                questions: Questions::default(),
            }),
            zone,
        }
    }

    /// The same under another netmap that says the same.
    fn under(&self, zone: Arc<Zone>) -> Self {
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
    fn route(&self, name: &Name) -> Route<'_> {
        if let Some(addresses) = self.zone.hosts.get(name).filter(|found| !found.is_empty()) {
            return Route::Host(addresses);
        }
        if let Some(suffix) = self.zone.suffix.as_ref().filter(|suffix| within(name, suffix)) {
            return Route::Nowhere(suffix);
        }
        let covers = |(_, suffix): &(&Arc<Domain>, &Name)| within(name, suffix);
        let named = self.domains.iter().filter_map(|d| Some((d, d.suffix.as_ref()?)));
        match named.filter(covers).max_by_key(|(_, suffix)| suffix.as_str().len()) {
            Some((domain, suffix)) if domain.is_empty() => Route::Nowhere(suffix),
            Some((domain, _)) => Route::Ask(domain),
            // No nameserver is asked for this host's own name (RFC 6761 section 6.3).
            None if is_localhost(name) || !self.global.can_be_asked() => Route::System,
            None => Route::Ask(&self.global),
        }
    }

    async fn ask(&self, domain: &Domain, name: &Name) -> Answer {
        let (name, route) = (name.clone(), domain.route());
        if let (false, Some(suffix)) = (domain.can_be_asked(), &domain.suffix) {
            let (domain, skipped) = (suffix.clone(), domain.skipped().join(", "));
            return Err(NameError::NoNameserver { name, domain, skipped });
        }
        let _permit = domain.permits.acquire().await;
        let asked = || domain.nameservers().join(", ");
        let (answer, life) = match lookup::look_up(domain, &self.zone.hosts, &name).await {
            Ok((addresses, life)) if addresses.is_empty() => {
                (Err(NameError::NotFound { name: name.clone(), route, asked: asked() }), life)
            }
            Ok((addresses, life)) => (Ok(addresses), life),
            Err(all) => {
                let why = all.0;
                (Err(NameError::Failed { name: name.clone(), route, asked: asked(), why }), None)
            }
        };
        self.learned.cache.put(&name, &answer, life);
        answer
    }
}

fn nowhere(name: &Name) -> NameError {
    NameError::NotFound { name: name.clone(), route: "magicdns", asked: MAGIC_DNS.to_owned() }
}

fn is_localhost(name: &Name) -> bool {
    name.as_str() == "localhost" || name.as_str().ends_with(".localhost")
}
