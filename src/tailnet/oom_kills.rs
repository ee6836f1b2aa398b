//! Whether the kernel killed somebody for want of memory: our control group counts it.
//!
//! `memory.events` of cgroup v2, `memory.oom_control` of v1 (Documentation/admin-guide).
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// How many had been killed when it was looked at.
#[derive(Debug)]
pub(super) struct OomKills {
    file: Option<PathBuf>,
    before: u64,
}

impl OomKills {
    /// Looks at the group this process is in, which its children share.
    pub(super) fn of_own_group() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = events_file(&groups, Path::new(ROOT));
        let before = file.as_deref().and_then(read_count).unwrap_or(0);
        Self { file, before }
    }

    /// Whether somebody was killed since.
    pub(super) fn has_risen(&self) -> bool {
        self.file.as_deref().and_then(read_count).is_some_and(|now| now > self.before)
    }
}

/// The counting file of the group that `/proc/self/cgroup` names. In a container its path may not
/// exist under the mount, whose root is then the group itself.
fn events_file(groups: &str, root: &Path) -> Option<PathBuf> {
    let path = |line: &str| Some(line.splitn(3, ':').nth(2)?.trim_start_matches('/').to_owned());
    let v2 = groups.lines().find(|line| line.starts_with("0::")).and_then(path);
    let v1 = groups.lines().find(|line| {
        line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == "memory"))
    });
    let v1 = v1.and_then(path);
    let memory = root.join("memory");
    let candidates = [
        v2.as_ref().map(|group| root.join(group).join("memory.events")),
        v2.as_ref().map(|_| root.join("memory.events")),
        v1.as_ref().map(|group| memory.join(group).join("memory.oom_control")),
        v1.as_ref().map(|_| memory.join("memory.oom_control")),
    ];
    candidates.into_iter().flatten().find(|file| read_count(file).is_some())
}

/// The number behind `oom_kill`.
fn read_count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_both_versions_count() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("memory/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        let v1 = events_file("4:cpu:/x\n9:memory:/pod\n0::/\n", root.path()).unwrap();
        assert_eq!(read_count(&v1), Some(3));
        put("pod/memory.events", "low 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n");
        let v2 = events_file("0::/pod\n", root.path()).unwrap();
        let kills = OomKills { before: read_count(&v2).unwrap(), file: Some(v2) };
        assert!(!kills.has_risen());
        put("pod/memory.events", "oom_kill 2\n");
        assert!(kills.has_risen());
        assert_eq!(events_file("", root.path()), None);
    }
}
