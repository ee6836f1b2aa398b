//! Looking at a program before it runs: where it is, and whether it would gain a privilege by being
//! started, which it does not under no_new_privs.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

/// Whether `program` is set-user-ID or set-group-ID to somebody else (execve(2)).
pub(super) fn would_gain_privilege(program: &OsStr, path: Option<&OsStr>) -> bool {
    find_in_path(program, path).and_then(|file| fs::metadata(file).ok()).is_some_and(|seen| {
        let (user, group) = (seen.mode() & 0o4000 != 0, seen.mode() & 0o2000 != 0);
        user && seen.uid() != geteuid().as_raw() || group && seen.gid() != getegid().as_raw()
    })
}

/// Where a shell would find it.
pub(super) fn find_in_path(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 || program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_somebody_else_s_privilege_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).unwrap();
        assert!(!would_gain_privilege(file.as_os_str(), None), "our own");
        let path = Some(folder.path().as_os_str());
        assert_eq!(find_in_path("tool".as_ref(), path), Some(file));
        assert_eq!(find_in_path("other".as_ref(), path), None);
        assert_eq!(find_in_path("./tool".as_ref(), path), Some("./tool".into()));
    }
}
