//! What programs are told of the proxy, and what they must not inherit from us.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};

use crate::secret;

/// Hosts that never go through the proxy: loopback, and the metadata addresses of clouds and of
/// container credentials.
const DIRECT: [&str; 5] = ["localhost", "127.0.0.1", "::1", "169.254.169.254", "169.254.170.2"];

/// The address programs are sent to: the first IPv4 one, which every one of them can use.
pub fn preferred(proxy: &[SocketAddr]) -> Option<SocketAddr> {
    proxy.iter().find(|address| address.is_ipv4()).or(proxy.first()).copied()
}

/// Whether `ip` is one of the addresses that never go through the proxy.
pub fn is_direct(ip: IpAddr) -> bool {
    DIRECT.iter().any(|host| host.parse() == Ok(ip))
}

/// Every variable with its value, in the order they are printed.
pub fn proxied(proxy: SocketAddr) -> Vec<(&'static str, String)> {
    let url = format!("http://{proxy}");
    let direct = DIRECT.join(",");
    let mut all = Vec::new();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
    {
        all.push((name, url.clone()));
    }
    all.extend([("NO_PROXY", direct.clone()), ("no_proxy", direct)]);
    all.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    all.push(("JAVA_TOOL_OPTIONS", java(proxy)));
    all
}

/// Java reads no proxy variable, but properties (Java networking properties, `http.proxyHost`).
fn java(proxy: SocketAddr) -> String {
    let host = match proxy.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let port = proxy.port();
    let direct =
        DIRECT.map(|host| if host.contains(':') { format!("[{host}]") } else { host.into() });
    let direct = direct.join("|");
    format!(
        "-Dhttp.proxyHost={host} -Dhttp.proxyPort={port} -Dhttps.proxyHost={host} \
         -Dhttps.proxyPort={port} -Dhttp.nonProxyHosts={direct}"
    )
}

/// Whether a variable of ours stays with us: everything of tailscaled's, where a key is to be found,
/// and any value with a tailnet key in it.
pub fn is_private(name: &OsStr, value: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("TS_")
        || name == "TAILRACE_KEY_FD"
        || name.starts_with("TAILRACE_TAILNET_AUTH")
        || secret::find_key(&value.to_string_lossy()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_finds_its_variable() {
        let all = proxied("127.0.0.1:1055".parse().unwrap());
        let value = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("ALL_PROXY"), Some("http://127.0.0.1:1055"));
        assert_eq!(value("https_proxy"), Some("http://127.0.0.1:1055"));
        assert_eq!(
            value("NO_PROXY"),
            Some("localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2")
        );
        assert!(value("JAVA_TOOL_OPTIONS").unwrap().contains("-Dhttps.proxyPort=1055"));
    }

    #[test]
    fn k8_keys_and_what_leads_to_them_stay_here() {
        for (name, value) in [
            ("TS_AUTHKEY", "x"),
            ("TS_SOCKET", "/x"),
            ("TAILRACE_TAILNET_AUTH_KEY_FILE", "/run/key"),
            ("MY_KEY", "tskey-auth-CANARY"),
            ("URL", "https://x/?key=hskey-auth-CANARY"),
        ] {
            assert!(is_private(name.as_ref(), value.as_ref()), "{name}");
        }
        for (name, value) in [("PATH", "/bin"), ("TAILRACE_CONFIG", "/x"), ("TSX", "1")] {
            assert!(!is_private(name.as_ref(), value.as_ref()), "{name}");
        }
    }
}
