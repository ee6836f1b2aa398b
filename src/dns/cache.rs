//! Answers that are remembered for a while, the least recently used forgotten first.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::rr::{self, RData, RecordType};
use hickory_proto::serialize::binary::BinEncodable as _;

use super::NameError;
use crate::expiring_cache::ExpiringCache;
use crate::target::Name;

/// Bounds of an answer's life (docs/requirements.md, D7), in seconds.
const SHORTEST: u32 = 1;
const LONGEST: u32 = 300;
/// The most for "no such name", and for an answer of which a part is missing.
const DOUBTFUL: u32 = 5;

/// Bytes of records beyond which an answer is not remembered.
const BIG: usize = 4096;

/// Which addresses of a name are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// All of them.
    Both,
    /// IPv4 (A).
    V4,
    /// IPv6 (AAAA).
    V6,
}

impl IpFamily {
    /// Whether `address` is one of these.
    pub(super) fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// What is asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryKind {
    /// Addresses.
    Addresses(IpFamily),
    /// Text (TXT).
    Txt,
    /// The hosts of a service (SRV).
    Srv,
    /// The hosts that take its mail (MX).
    Mx,
    /// The name of an address, of which this is the reverse name (PTR).
    Ptr,
}

impl QueryKind {
    /// The type of record; addresses of both families are two questions.
    pub(super) fn record_type(self) -> Option<RecordType> {
        match self {
            Self::Addresses(IpFamily::Both) => None,
            Self::Addresses(IpFamily::V4) => Some(RecordType::A),
            Self::Addresses(IpFamily::V6) => Some(RecordType::AAAA),
            Self::Txt => Some(RecordType::TXT),
            Self::Srv => Some(RecordType::SRV),
            Self::Mx => Some(RecordType::MX),
            Self::Ptr => Some(RecordType::PTR),
        }
    }
}

/// What a name leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LookupResult {
    /// The names on the way, in their order.
    pub(super) aliases: Vec<rr::Name>,
    /// With [`IpFamily::Both`] at least one; of other kinds none.
    pub(super) addresses: Vec<IpAddr>,
    /// Of kinds that are no addresses.
    pub(super) data: Vec<RData>,
}

impl LookupResult {
    /// Whether remembering it could cost too much: there may be thousands of its like.
    pub(super) fn is_big(&self) -> bool {
        let size = |data: &RData| data.to_bytes().map_or(usize::MAX, |bytes| bytes.len());
        self.data.iter().map(size).fold(0, usize::saturating_add) > BIG
    }
}

pub(super) type LookupAnswer = Result<LookupResult, NameError>;

/// What is remembered apart.
pub(super) type LookupKey = (Name, QueryKind);

/// How long an answer may be kept; [`None`]: not at all.
pub(super) type AnswerLifetime = Option<Duration>;

/// The life of a whole answer with this time to live, in seconds.
pub(super) fn lifetime_of_complete(ttl: u32) -> AnswerLifetime {
    Some(Duration::from_secs(ttl.clamp(SHORTEST, LONGEST).into()))
}

/// The life of a negative or a partial answer; without a time to live it gets the most.
pub(super) fn lifetime_of_doubtful(ttl: Option<u32>) -> AnswerLifetime {
    Some(Duration::from_secs(ttl.unwrap_or(DOUBTFUL).clamp(SHORTEST, DOUBTFUL).into()))
}

/// At most so many answers; none: nothing is remembered.
pub(super) struct AnswerCache(ExpiringCache<LookupKey, LookupAnswer>);

impl AnswerCache {
    pub(super) fn new(entries: u32) -> Self {
        Self(ExpiringCache::new(usize::try_from(entries).unwrap_or(usize::MAX)))
    }

    /// What is remembered, and how long it still holds.
    pub(super) fn get(&self, key: &LookupKey) -> Option<(LookupAnswer, Duration)> {
        self.0.get(key, Instant::now())
    }

    pub(super) fn put(&self, key: &LookupKey, answer: &LookupAnswer, life: AnswerLifetime) {
        if let Some(life) = life {
            self.0.insert(key.clone(), answer.clone(), life, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: QueryKind = QueryKind::Addresses(IpFamily::Both);

    fn name(n: usize) -> LookupKey {
        (Name::parse(format!("n{n}.corp.example").as_bytes()).unwrap(), BOTH)
    }

    fn answer() -> LookupAnswer {
        Ok(LookupResult { addresses: vec![[10, 0, 0, 1].into()], ..LookupResult::default() })
    }

    impl AnswerCache {
        fn answer(&self, key: &LookupKey) -> Option<LookupAnswer> {
            self.get(key).map(|(answer, _)| answer)
        }
    }

    #[test]
    fn d7_times_to_live_are_clamped() {
        let seconds = |life: AnswerLifetime| life.unwrap().as_secs();
        assert_eq!(seconds(lifetime_of_complete(0)), 1);
        assert_eq!(seconds(lifetime_of_complete(60)), 60);
        assert_eq!(seconds(lifetime_of_complete(1 << 31)), 300);
        assert_eq!(seconds(lifetime_of_doubtful(Some(0))), 1);
        assert_eq!(seconds(lifetime_of_doubtful(Some(3600))), 5);
        assert_eq!(seconds(lifetime_of_doubtful(None)), 5);
    }

    #[test]
    fn d7_the_least_recently_used_goes_first() {
        let cache = AnswerCache::new(8);
        for n in 0..8 {
            cache.put(&name(n), &answer(), lifetime_of_complete(60));
        }
        assert_eq!(cache.answer(&name(0)), Some(answer()), "now the most recently used");
        cache.put(&name(8), &answer(), lifetime_of_complete(60));
        assert!(cache.answer(&name(0)).is_some() && cache.answer(&name(8)).is_some());
        assert_eq!(cache.answer(&name(1)), None);
    }

    #[test]
    fn d7_what_is_left_of_a_life_counts_down_and_families_are_apart() {
        let cache = AnswerCache::new(8);
        cache.put(&name(0), &answer(), lifetime_of_complete(60));
        let left = |cache: &AnswerCache| cache.get(&name(0)).unwrap().1;
        let first = left(&cache);
        assert!(first <= Duration::from_secs(60) && first > Duration::from_secs(50));
        while left(&cache) >= first {
            std::thread::yield_now();
        }
        assert_eq!(cache.answer(&(name(0).0, QueryKind::Addresses(IpFamily::V4))), None);
        assert_eq!(cache.answer(&(name(0).0, QueryKind::Txt)), None);
    }

    #[test]
    fn d7_an_answer_ends_when_its_life_does() {
        let cache = AnswerCache::new(8);
        cache.put(&name(0), &answer(), Some(Duration::from_millis(50)));
        assert_eq!(cache.answer(&name(0)), Some(answer()));
        let put = Instant::now();
        while cache.answer(&name(0)).is_some() {
            assert!(put.elapsed() < Duration::from_secs(2), "kept far too long");
            std::thread::yield_now();
        }
        assert!(put.elapsed() >= Duration::from_millis(40));
    }

    #[test]
    fn nothing_is_kept_without_entries_or_without_a_life() {
        let none = AnswerCache::new(0);
        none.put(&name(0), &answer(), lifetime_of_complete(60));
        assert_eq!(none.answer(&name(0)), None);
        let cache = AnswerCache::new(8);
        cache.put(&name(0), &answer(), None);
        assert_eq!(cache.answer(&name(0)), None);
    }
}
