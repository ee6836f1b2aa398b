//! DNS over HTTPS (RFC 8484): where such a nameserver is, and whom to trust.
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use super::TailnetZone;
use crate::target::Host;
use crate::tls_client;

/// A nameserver's URL, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpsEndpoint {
    pub(super) host: Host,
    pub(super) port: u16,
    /// With its query, if there is one.
    pub(super) path: Arc<str>,
    /// Where its host is; empty: this host's resolver is asked.
    pub(super) bootstrap: Vec<IpAddr>,
}

impl HttpsEndpoint {
    /// Reads `https://host[:port]/path`; none: it is no such URL, or its host is an internal name
    /// that the tailnet gives no address: to find it, somebody outside would have to be asked.
    pub(super) fn parse(url: &str, bootstrap: &[IpAddr], zone: &TailnetZone) -> Option<Self> {
        let url: hyper::Uri = url.parse().ok()?;
        let authority = url.authority().filter(|a| !a.as_str().contains('@'))?;
        if url.scheme_str() != Some("https") {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = Host::parse(host.as_bytes()).ok()?;
        let bootstrap = match &host {
            // hickory writes the host as it stands into the URL, where IPv6 needs brackets.
            Host::Address(IpAddr::V6(_)) => return None,
            Host::Address(own) => vec![*own],
            Host::Name(_) if !bootstrap.is_empty() => bootstrap.to_vec(),
            Host::Name(name) => match zone.hosts.get(name) {
                None if zone.is_internal(name) => return None,
                known => known.cloned().unwrap_or_default(),
            },
        };
        Some(Self {
            host,
            port: authority.port_u16().unwrap_or(443),
            path: url.path_and_query().map_or("/", |path| path.as_str()).into(),
            bootstrap,
        })
    }
}

/// The scheme and the host of a URL: the rest may be a key.
pub(super) fn public_label(url: &str) -> String {
    let url = url.parse::<hyper::Uri>().ok();
    let host = url.as_ref().and_then(hyper::Uri::host);
    let port = url.as_ref().and_then(hyper::Uri::port_u16);
    match (host, port) {
        (Some(host), Some(port)) if port != 443 => format!("https://{host}:{port}"),
        (Some(host), _) => format!("https://{host}"),
        (None, _) => "an https:// URL that cannot be read".to_owned(),
    }
}

/// Whom to trust, read from the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` too) when first needed.
#[derive(Default)]
pub(super) struct TrustStore(OnceCell<Arc<ClientConfig>>);

impl TrustStore {
    pub(super) async fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let config = self.0.get_or_try_init(|| async {
            let read = tokio::task::spawn_blocking(tls_client::system_roots).await;
            https_config(read.map_err(io::Error::other)??)
        });
        config.await.cloned()
    }

    /// These roots and no others.
    #[cfg(test)]
    pub(super) fn with_roots(roots: RootCertStore) -> Self {
        Self(OnceCell::new_with(https_config(roots).ok()))
    }
}

fn https_config(roots: RootCertStore) -> io::Result<Arc<ClientConfig>> {
    let mut config = tls_client::config(roots)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let read = |url| {
            HttpsEndpoint::parse(url, &[], &TailnetZone::default())
                .map(|at| (at.host.to_string(), at.port, at.path))
        };
        let expected = |host: &str, port, path: &str| Some((host.to_owned(), port, path.into()));
        assert_eq!(
            read("https://DNS.nextdns.example/abc?x=1"),
            expected("dns.nextdns.example", 443, "/abc?x=1")
        );
        assert_eq!(read("https://192.0.2.1:8443"), expected("192.0.2.1", 8443, "/"));
        let other = ["http://100.64.0.1/dns-query", "tls://x", "https://[2001:db8::1]/dns-query"];
        for bad in other.into_iter().chain(["https://u@x/", "x", "https://", ""]) {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn k7_a_label_holds_no_key() {
        assert_eq!(public_label("https://u:key@dns.example/key?key"), "https://dns.example");
        assert_eq!(public_label("https://[2001:db8::1]:8443/key"), "https://[2001:db8::1]:8443");
        assert!(!public_label("https:// /key").contains("key"));
    }

    #[test]
    fn d9_nobody_outside_is_asked_for_an_internal_host() {
        let name = |text: &str| crate::target::Name::parse(text.as_bytes()).unwrap();
        let [inside, given] = [[100, 64, 0, 1], [10, 0, 0, 1]].map(IpAddr::from);
        let zone = TailnetZone {
            suffix: Some(name("lab.ts.net")),
            hosts: [(name("dns.lab.ts.net"), vec![inside])].into(),
            routes: vec![(name("corp.example"), Vec::new())],
            ..TailnetZone::default()
        };
        let at = |url, bootstrap: &[IpAddr]| {
            HttpsEndpoint::parse(url, bootstrap, &zone).map(|at| at.bootstrap)
        };
        assert_eq!(at("https://1.1.1.1/q", &[given]), Some(vec![[1, 1, 1, 1].into()]));
        assert_eq!(at("https://dns.lab.ts.net/q", &[]), Some(vec![inside]));
        assert_eq!(at("https://dns.corp.example/q", &[given]), Some(vec![given]));
        assert_eq!(at("https://dns.corp.example/q", &[]), None);
        assert_eq!(at("https://dns.example/q", &[]), Some(Vec::new()));
    }
}
