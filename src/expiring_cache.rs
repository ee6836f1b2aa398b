//! A bounded map whose entries expire; when it is full, the least recently used entry is evicted.
//!
//! Expired entries are removed when they are looked up, or evicted like any other: the bound holds for both.
//! The time is an argument, so that tests need not wait.
#![forbid(unsafe_code)]

use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// Entries that each live for a time of their own.
pub struct ExpiringCache<K: Hash + Eq, V> {
    capacity: usize,
    entries: Mutex<LruCache<K, ExpiringEntry<V>>>,
}

struct ExpiringEntry<V> {
    value: V,
    expires: Instant,
}

impl<K: Hash + Eq, V: Clone> ExpiringCache<K, V> {
    /// An empty one of at most `capacity` entries; with 0 it keeps nothing.
    pub fn new(capacity: usize) -> Self {
        // Bounded by `insert`: `LruCache::new` would allocate room for all entries at once, and the number
        // may come from the settings.
        Self { capacity, entries: Mutex::new(LruCache::unbounded()) }
    }

    /// The value of `key`, and how long it still lives.
    pub fn get(&self, key: &K, now: Instant) -> Option<(V, Duration)> {
        let mut entries = self.lock_entries();
        let entry = entries.get(key)?;
        let left = entry.expires.saturating_duration_since(now);
        if left.is_zero() {
            entries.pop(key);
            return None;
        }
        Some((entry.value.clone(), left))
    }

    /// Keeps `value` for `lifetime` from `now` on, in the place of what was kept under `key`.
    pub fn insert(&self, key: K, value: V, lifetime: Duration, now: Instant) {
        if self.capacity == 0 {
            return;
        }
        let mut entries = self.lock_entries();
        entries.put(key, ExpiringEntry { value, expires: now + lifetime });
        if entries.len() > self.capacity {
            entries.pop_lru();
        }
    }

    /// Removes every entry.
    pub fn clear(&self) {
        self.lock_entries().clear();
    }

    fn lock_entries(&self) -> MutexGuard<'_, LruCache<K, ExpiringEntry<V>>> {
        // The map is whole after a panic elsewhere: nothing below the lock panics.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V> fmt::Debug for ExpiringCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringCache").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn keys(cache: &ExpiringCache<u32, u32>, now: Instant) -> Vec<u32> {
        (0..100).filter(|key| cache.get(key, now).is_some()).collect()
    }

    #[test]
    fn d7_the_least_recently_used_entry_is_evicted_first() {
        let (cache, now) = (ExpiringCache::new(4), Instant::now());
        for key in 0..4 {
            cache.insert(key, key, MINUTE, now);
        }
        assert!(cache.get(&0, now).is_some(), "now the most recently used");
        cache.insert(4, 4, MINUTE, now);
        assert_eq!(keys(&cache, now), [0, 2, 3, 4]);
        cache.insert(2, 7, MINUTE, now);
        assert_eq!(keys(&cache, now), [0, 2, 3, 4], "a new value evicts nobody");
        assert_eq!(cache.get(&2, now).map(|(value, _)| value), Some(7));
    }

    #[test]
    fn d7_an_entry_expires_at_its_time_and_is_gone() {
        let (cache, now) = (ExpiringCache::new(4), Instant::now());
        cache.insert(1, 1, MINUTE, now);
        assert_eq!(cache.get(&1, now + MINUTE / 3), Some((1, MINUTE / 3 * 2)));
        assert!(cache.get(&1, now + MINUTE - Duration::from_nanos(1)).is_some());
        assert_eq!(cache.get(&1, now + MINUTE), None);
        assert_eq!(cache.lock_entries().len(), 0);
        cache.insert(1, 2, MINUTE, now + MINUTE);
        assert_eq!(cache.get(&1, now + MINUTE), Some((2, MINUTE)));
        cache.clear();
        assert_eq!(cache.get(&1, now + MINUTE), None);
    }

    #[test]
    fn the_bound_holds_whatever_expires_and_none_keeps_nothing() {
        let (cache, now) = (ExpiringCache::new(10), Instant::now());
        for key in 0..1000 {
            cache.insert(key, key, MINUTE, now + MINUTE * key);
            assert!(cache.lock_entries().len() <= 10);
        }
        let none = ExpiringCache::new(0);
        none.insert(1, 1, MINUTE, now);
        assert_eq!(none.get(&1, now), None);
    }
}
