//! Ready means a list is empty: each part that is not yet there, or no longer, stands on it by name.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The list of what is missing before a connection would be carried.
#[derive(Debug, Default)]
pub struct Ready {
    pending: Mutex<BTreeSet<&'static str>>,
}

impl Ready {
    /// Nothing is missing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A list that begins with these.
    pub fn waiting_for(names: &[&'static str]) -> Self {
        Self { pending: Mutex::new(names.iter().copied().collect()) }
    }

    /// Puts `name` on the list, or takes it off.
    pub fn set(&self, name: &'static str, ready: bool) {
        let mut pending = self.lock();
        if ready {
            pending.remove(name);
        } else {
            pending.insert(name);
        }
    }

    /// What is missing, in alphabetical order; empty when ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_list_is_empty_and_not_before() {
        let ready = Ready::waiting_for(&["upstream", "listener"]);
        assert_eq!(ready.pending(), ["listener", "upstream"]);
        ready.set("listener", true);
        ready.set("upstream", true);
        assert!(ready.pending().is_empty());
        ready.set("upstream", false);
        assert_eq!(ready.pending(), ["upstream"]);
    }
}
