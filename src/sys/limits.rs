//! The process's limit on open files.

use rustix::process::{Resource, getrlimit, setrlimit};

/// The soft limit on open files; `u64::MAX` is "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// What we were started with: programs we start should get it back.
    pub before: u64,
    /// What we have now.
    pub after: u64,
}

/// Raises the soft limit on open files to the hard one (`getrlimit(2)`, `RLIMIT_NOFILE`). Where
/// the system refuses, the limit stays as it was.
pub fn raise_descriptors() -> Descriptors {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    if before != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
    let after = getrlimit(Resource::Nofile).current;
    Descriptors { before: before.unwrap_or(u64::MAX), after: after.unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_soft_becomes_hard_and_stays() {
        let first = raise_descriptors();
        assert_eq!(Some(first.after), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
        assert_eq!(raise_descriptors().before, first.after);
    }
}
