//! The process's limit on open files.

use rustix::process::{Resource, getrlimit, setrlimit};

/// The soft limit on open files; `u64::MAX` is "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// What we were started with: programs we start should get it back.
    pub before: u64,
    /// What we have now.
    pub after: u64,
}

/// Raises the soft limit on open files to the hard one (`getrlimit(2)`, `RLIMIT_NOFILE`). Where
/// the system refuses, the limit stays as it was.
pub fn raise_descriptors() -> DescriptorLimits {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    if before != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
    let after = getrlimit(Resource::Nofile).current;
    DescriptorLimits { before: before.unwrap_or(u64::MAX), after: after.unwrap_or(u64::MAX) }
}

/// The most files `process` may have open, by its hard limit: Go programs raise the soft one to it.
/// Read from `/proc/<pid>/limits` (proc(5)); `None` where that is not shown to us.
pub fn open_files_of(process: u32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
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

    #[test]
    fn t2_a_process_s_limit_is_its_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(open_files_of(std::process::id()), Some(hard));
        assert_eq!(open_files_of(0), None);
    }
}
