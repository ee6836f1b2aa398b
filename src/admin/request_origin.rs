//! Who may ask: programs of this host and of the operator, not web pages.
//!
//! A browser can be made to send requests here, but not without saying where it comes from, nor
//! with a `Host` of ours after a DNS rebinding. tailscaled's LocalAPI has the same rule.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::header::{HOST, HeaderMap, ORIGIN, REFERER};
use hyper::http::Uri;

/// Names and addresses accepted as `Host`.
pub(super) struct Hosts {
    /// What `listen.admin_hosts` adds to the built-in values, each compared with and without the request's port.
    pub(super) further: Vec<String>,
}

impl Hosts {
    /// Whether a request that came in on the address `local` may be answered.
    pub(super) fn admit(&self, headers: &HeaderMap, uri: &Uri, local: IpAddr) -> bool {
        let from_a_page = headers.contains_key(ORIGIN)
            || headers.contains_key(REFERER)
            || headers
                .get_all("sec-fetch-site")
                .iter()
                .any(|site| site != "none" && site != "same-origin");
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        // An absolute-form target names a host of its own (RFC 9112 section 3.2.2).
        let absolute = uri.scheme().and(uri.authority());
        !from_a_page
            && host.is_some_and(|host| self.known(host, local))
            && absolute.is_none_or(|authority| self.known(authority.as_str(), local))
    }

    fn known(&self, host: &str, local: IpAddr) -> bool {
        let Some(name) = without_port(host) else { return false };
        let literal = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        match literal {
            Some(ip)
                if ip == local.to_canonical()
                    || ip == Ipv4Addr::LOCALHOST
                    || ip == Ipv6Addr::LOCALHOST =>
            {
                true
            }
            _ => {
                let same = |known: &String| {
                    host.eq_ignore_ascii_case(known) || name.eq_ignore_ascii_case(known)
                };
                name.eq_ignore_ascii_case("localhost") || self.further.iter().any(same)
            }
        }
    }
}

/// The host of `host` or `host:port`; `None` when the port is none.
fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        Some((name, _)) if name.starts_with('[') && !name.ends_with(']') => Some(host),
        Some((name, port)) => port.parse::<u16>().is_ok().then_some(name),
        None => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

    fn admits(headers: &[(&'static str, &'static str)], uri: &'static str) -> bool {
        let hosts = Hosts { further: vec!["metrics.internal".to_owned(), "box:9155".to_owned()] };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        hosts.admit(&map, &Uri::from_static(uri), LOCAL)
    }

    #[test]
    fn a1_hosts_of_ours_are_accepted() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9155",
            "localhost",
            "LOCALHOST:1",
            "[::1]",
            "[::1]:9155",
            "10.1.2.3:9155",
            "metrics.internal",
            "Metrics.Internal:80",
            "box:9155",
        ] {
            assert!(admits(&[("host", host)], "/metrics"), "{host}");
        }
    }

    #[test]
    fn a1_other_hosts_are_not() {
        for host in [
            "evil.com",
            "evil.com:9155",
            "127.0.0.2",
            "10.1.2.4",
            "[::2]",
            "::1",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "localhost:x",
            "localhost:99999",
            "",
            "box:1",
            "metrics.internal.",
        ] {
            assert!(!admits(&[("host", host)], "/metrics"), "{host}");
        }
        assert!(!admits(&[], "/metrics"));
        assert!(!admits(&[("host", "localhost"), ("host", "localhost")], "/metrics"));
        assert!(!admits(&[("host", "localhost")], "http://evil.com/metrics"));
        assert!(admits(&[("host", "localhost")], "http://localhost/metrics"));
    }

    #[test]
    fn a1_web_pages_are_refused() {
        for (name, value) in [
            ("origin", "http://localhost"),
            ("origin", "null"),
            ("referer", "http://127.0.0.1/"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(
                !admits(&[("host", "localhost"), (name, value)], "/metrics"),
                "{name}: {value}"
            );
        }
        assert!(admits(&[("host", "localhost"), ("sec-fetch-site", "none")], "/metrics"));
    }
}
