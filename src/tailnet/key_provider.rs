//! The key to log in with: read late, handed on, and gone.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::explain::TailnetFault;
use super::oauth;
use crate::config::KeySource;
use crate::secret::{BadSecret, Secret};

/// Where keys come from.
#[derive(Debug)]
pub struct KeyProvider {
    source: Option<KeySource>,
    /// The key of `TS_AUTHKEY`, kept as long as tailscaled is managed: nowhere else could it be read
    /// again.
    kept: Option<Secret>,
}

/// A key that cannot be had.
#[derive(Debug)]
pub(super) struct KeyUnavailable {
    pub(super) fault: TailnetFault,
    /// Trying again may help, without anything being changed.
    pub(super) passing: bool,
}

impl KeyProvider {
    /// `kept` is what was in `TS_AUTHKEY`.
    pub fn new(source: Option<KeySource>, kept: Option<Secret>) -> Self {
        Self { source, kept }
    }

    /// The key for one login: read now, and zeroed when the caller drops it. An OAuth secret is
    /// exchanged for a key first.
    pub(super) async fn for_login(
        &self,
        tags: &[String],
        proxy: Option<&str>,
    ) -> Result<Secret, KeyUnavailable> {
        let lasting = |fault| KeyUnavailable { fault, passing: false };
        let key = self.read_key().map_err(lasting)?;
        if !oauth::is_client_secret(&key) {
            return Ok(key);
        }
        oauth::exchange_secret(&key, tags, proxy).await.map_err(|error| KeyUnavailable {
            passing: error.is_passing(),
            fault: TailnetFault::KeyUnavailable { why: error.to_string() },
        })
    }

    fn read_key(&self) -> Result<Secret, TailnetFault> {
        match (&self.source, &self.kept) {
            (Some(KeySource::File(path)), _) => {
                from_file(path).map_err(|error| TailnetFault::KeyUnavailable {
                    why: format!("the key file {}: {error}", path.display()),
                })
            }
            (Some(KeySource::Environment), Some(key)) => Ok(key.clone()),
            _ => Err(TailnetFault::NoKey),
        }
    }
}

fn from_file(path: &Path) -> Result<Secret, BadSecret> {
    // A pipe without a writer opens at once with O_NONBLOCK, and is then turned away.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    warn_if_open(path, &file)?;
    Secret::read(file)
}

fn warn_if_open(path: &Path, file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        let (path, mode) = (path.display(), format!("{mode:04o}"));
        tracing::warn!(%path, mode, "others can read the key file: chmod 600 it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn k8_a_file_is_read_for_each_login_and_the_environment_s_key_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let keys = KeyProvider::new(Some(KeySource::File(path.clone())), None);
        let missing = keys.for_login(&[], None).await.unwrap_err();
        assert!(missing.fault.sentence().contains("the key file"), "{missing:?}");
        for text in ["first\n", "second"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(keys.for_login(&[], None).await.unwrap().expose(), text.trim());
        }
        let kept = KeyProvider::new(Some(KeySource::Environment), Secret::new("kept").ok());
        assert_eq!(kept.for_login(&[], None).await.unwrap().expose(), "kept");
        assert_eq!(
            KeyProvider::new(None, None).for_login(&[], None).await.unwrap_err().fault,
            TailnetFault::NoKey
        );
    }
}
