//! Where the sources are, for tests that run programs or read files of theirs.

use std::path::{Path, PathBuf};

/// This path in the checkout. At run time: it may have been copied since this was built.
pub fn source(path: impl AsRef<Path>) -> PathBuf {
    let built_in = || concat!(env!("CARGO_MANIFEST_DIR"), "/../..").into();
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(built_in, PathBuf::from).join(path)
}
