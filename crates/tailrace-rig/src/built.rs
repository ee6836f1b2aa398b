//! The programs under test, where cargo built them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the fake is built from, in the checkout that this rig was built in.
const FAKE_SOURCES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/fake.rs"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/fake"),
];
/// Builds the fake.
const BUILD_FAKE: &str = "cargo build --example fake-tailscaled";

/// The gateway: `TAILRACE_BIN`, or the one that cargo built with the running test program.
#[track_caller]
pub fn gateway() -> PathBuf {
    let path = std::env::var_os("TAILRACE_BIN").map_or_else(|| beside("tailrace"), PathBuf::from);
    assert!(path.exists(), "rig: {} is not built: cargo build", path.display());
    path
}

/// The fake tailscaled: `TAILRACE_FAKE`, or the one that cargo built beside the gateway. cargo builds it with all
/// tests, not with one program of them, so it may be missing, or older than its sources: that is said here, before
/// a test fails for it and nobody knows why.
#[track_caller]
pub fn fake() -> PathBuf {
    if let Some(path) = std::env::var_os("TAILRACE_FAKE") {
        return path.into();
    }
    let path = beside("examples/fake-tailscaled");
    let Some(built) = modified(&path) else {
        panic!("rig: {} is not built: {BUILD_FAKE}", path.display());
    };
    if let Some(source) = FAKE_SOURCES.iter().find_map(|place| newer(Path::new(place), built)) {
        panic!("rig: {} is older than {}: {BUILD_FAKE}", path.display(), source.display());
    }
    path
}

/// A file in the folder that cargo builds programs into: tests lie in `deps` below it.
fn beside(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("rig: the path of this program");
    let deps = program.parent().expect("rig: its folder");
    deps.parent().expect("rig: the folder of cargo's profile").join(name)
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// What was changed after `built`: this file, or one in this folder; none where it is not at hand.
fn newer(place: &Path, built: SystemTime) -> Option<PathBuf> {
    let files: Vec<PathBuf> = match std::fs::read_dir(place) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_no_folder) => vec![place.to_owned()],
    };
    files.into_iter().find(|file| modified(file).is_some_and(|changed| changed > built))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_changed_after_the_build_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("backend.rs");
        std::fs::write(&source, "").unwrap();
        let changed = modified(&source).unwrap();
        assert_eq!(newer(folder.path(), changed), None);
        let before = changed - std::time::Duration::from_secs(1);
        assert_eq!(newer(folder.path(), before).as_ref(), Some(&source));
        assert_eq!(newer(&source, before), Some(source));
        assert_eq!(newer(&folder.path().join("elsewhere"), before), None);
    }
}
