//! TLS towards servers outside the tailnet: which certificates are trusted.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// Trusts these roots and no others. No protocol is offered by ALPN; the caller may name some.
pub(crate) fn config(roots: RootCertStore) -> io::Result<ClientConfig> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// What this host trusts, by `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set. Reads files: it may block.
///
/// # Errors
/// No usable certificate was found.
pub(crate) fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(roots),
        (true, Some(error)) => Err(io::Error::other(error.to_string())),
        (true, None) => Err(io::Error::other("this host trusts no certificate authority")),
    }
}
