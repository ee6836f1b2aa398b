//! One name's addresses, A and AAAA at once, or its records of another type; aliases to their end.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use hickory_proto::op::Query;
use hickory_proto::rr::{self, RData, RecordType};

use super::answer::{AnswerContent, MOST_ALIASES, ServerFault};
use super::cache::{self, AnswerLifetime, LookupResult, QueryKind};
use super::domain::{AllFailed, ResolverDomain};
use crate::target::Name;

/// How long the other family is waited for once one has an address (RFC 8305 section 3).
const GRACE: Duration = Duration::from_millis(50);

/// Where the name is, IPv4 first; none: there is no such name, or with both families none with an
/// address. And for how long that holds.
pub(super) type LookedUp = Result<(Option<LookupResult>, AnswerLifetime), AllFailed>;

/// The answer of one type.
#[derive(Default)]
struct TypeAnswer {
    aliases: Vec<rr::Name>,
    addresses: Vec<IpAddr>,
    data: Vec<RData>,
    ttl: Option<u32>,
    /// There is no such name, whatever the type (RFC 8020).
    gone: bool,
}

/// Asks `domain` for `name`. An alias that `hosts` knows ends there.
pub(super) async fn look_up(
    domain: &ResolverDomain,
    hosts: &HashMap<Name, Vec<IpAddr>>,
    name: &Name,
    kind: QueryKind,
) -> LookedUp {
    let name = rr::Name::from_ascii(format!("{name}."))
        .map_err(|error| AllFailed(format!("it cannot be asked for: {error}")))?;
    match kind.record_type() {
        None => both_families(domain, hosts, name).await,
        Some(kind) => one_type(domain, hosts, name, kind).await.map(result_of_one_type),
    }
}

async fn both_families(
    domain: &ResolverDomain,
    hosts: &HashMap<Name, Vec<IpAddr>>,
    name: rr::Name,
) -> LookedUp {
    let v4 = pin!(one_type(domain, hosts, name.clone(), RecordType::A));
    let v6 = pin!(one_type(domain, hosts, name, RecordType::AAAA));
    match select(v4, v6).await {
        Either::Left((v4, v6)) => {
            let v6 = result_of_both_types(&v4, v6).await;
            merge_families([Some(v4), v6])
        }
        Either::Right((v6, v4)) => {
            let v4 = result_of_both_types(&v6, v4).await;
            merge_families([v4, Some(v6)])
        }
    }
}

/// One type by itself: a name without a record of it is there all the same.
fn result_of_one_type(part: TypeAnswer) -> (Option<LookupResult>, AnswerLifetime) {
    let TypeAnswer { aliases, addresses, data, ttl, gone } = part;
    let life = match addresses.is_empty() && data.is_empty() {
        true => cache::lifetime_of_doubtful(ttl),
        false => cache::lifetime_of_complete(ttl.unwrap_or_default()),
    };
    ((!gone).then_some(LookupResult { aliases, addresses, data }), life)
}

/// The second family's answer: after one that settles the matter, only if it comes at once. Some
/// nameservers say of one type that there is no such name (RFC 4074 section 4.2), so even that waits.
async fn result_of_both_types(
    first: &Result<TypeAnswer, AllFailed>,
    second: impl Future<Output = Result<TypeAnswer, AllFailed>>,
) -> Option<Result<TypeAnswer, AllFailed>> {
    match first {
        Ok(part) if part.gone || !part.addresses.is_empty() => {
            tokio::time::timeout(GRACE, second).await.ok()
        }
        _ => Some(second.await),
    }
}

fn merge_families(answers: [Option<Result<TypeAnswer, AllFailed>>; 2]) -> LookedUp {
    let (mut parts, mut failed) = (Vec::new(), None);
    for answer in answers.into_iter().flatten() {
        match answer {
            Ok(part) => parts.push(part),
            Err(all) => failed = Some(all),
        }
    }
    let (whole, gone) = (parts.len() == 2, parts.iter().any(|part| part.gone));
    let (with, without): (Vec<TypeAnswer>, Vec<TypeAnswer>) =
        parts.into_iter().partition(|part| !part.addresses.is_empty());
    let least = |parts: &[TypeAnswer]| parts.iter().filter_map(|part| part.ttl).min();
    match failed {
        Some(all) if with.is_empty() && !gone => return Err(all),
        _ if with.is_empty() => return Ok((None, cache::lifetime_of_doubtful(least(&without)))),
        _ => {}
    }
    // A family that is missing now may be there the next time.
    let ttl = least(&with).unwrap_or_default();
    let life = if whole {
        cache::lifetime_of_complete(ttl)
    } else {
        cache::lifetime_of_doubtful(Some(ttl))
    };
    let addresses = with.into_iter().flat_map(|part| part.addresses).collect();
    Ok((Some(LookupResult { addresses, ..LookupResult::default() }), life))
}

async fn one_type(
    domain: &ResolverDomain,
    hosts: &HashMap<Name, Vec<IpAddr>>,
    name: rr::Name,
    kind: RecordType,
) -> Result<TypeAnswer, AllFailed> {
    let mut query = Query::query(name, kind);
    let (mut aliases, mut least) = (Vec::new(), u32::MAX);
    for _ in 0..MOST_ALIASES {
        let (further, said) = domain.ask_in_turn(&query).await?;
        aliases.extend(further);
        let empty = TypeAnswer { aliases, ..TypeAnswer::default() };
        let (of, ttl) = match said {
            AnswerContent::Addresses { addresses, ttl } => {
                return Ok(TypeAnswer { addresses, ttl: Some(ttl.min(least)), ..empty });
            }
            AnswerContent::Data { data, ttl } => {
                return Ok(TypeAnswer { data, ttl: Some(ttl.min(least)), ..empty });
            }
            AnswerContent::Nothing { exists, ttl } => {
                return Ok(TypeAnswer { ttl, gone: !exists, ..empty });
            }
            AnswerContent::Alias { of, ttl } => (of, ttl),
        };
        least = least.min(ttl);
        if let Some(addresses) = netmap_addresses(hosts, &of, kind) {
            return Ok(TypeAnswer { addresses, ttl: Some(least), ..empty });
        }
        aliases = empty.aliases;
        query = Query::query(of, kind);
    }
    Err(AllFailed(ServerFault::Aliases.to_string()))
}

fn netmap_addresses(
    hosts: &HashMap<Name, Vec<IpAddr>>,
    alias: &rr::Name,
    kind: RecordType,
) -> Option<Vec<IpAddr>> {
    let name = Name::parse(alias.to_ascii().as_bytes()).ok()?;
    let of_kind = |ip: &&IpAddr| match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        _ => false,
    };
    Some(hosts.get(&name)?.iter().filter(of_kind).copied().collect())
}
