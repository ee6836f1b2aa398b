//! A memory cgroup with a limit, where one can be made.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The cgroup (v1 or v2), removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// One with this limit in bytes; none where this process may not make it.
    pub fn new(limit: u64) -> Option<Cgroup> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tailrace-test-{}-{number}", std::process::id());
        let at = |base: &Path, file: &str| {
            let folder = base.join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = Cgroup(folder);
            std::fs::write(group.0.join(file), limit.to_string()).ok()?;
            Some(group)
        };
        at(Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
            .or_else(|| at(Path::new("/sys/fs/cgroup"), "memory.max"))
    }

    /// Moves a process into it.
    pub fn take(&self, pid: u32) -> bool {
        std::fs::write(self.members(), pid.to_string()).is_ok()
    }

    /// The file that takes process ids.
    pub fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Removes it; false while somebody is in it.
    pub fn remove(&self) -> bool {
        std::fs::remove_dir(&self.0).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}
