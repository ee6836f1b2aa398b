//! What programs are told of the proxy, and what they must not inherit from us.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::run_dir::Listening;
use crate::secret;

/// Hosts that never go through the proxy: loopback, and the metadata addresses of clouds and of
/// container credentials.
const DIRECT: [&str; 5] = ["localhost", "127.0.0.1", "::1", "169.254.169.254", "169.254.170.2"];
/// PostgreSQL's port (IANA service names: postgresql).
const POSTGRESQL: u16 = 5432;

/// What programs need to find this program and its gateway.
#[derive(Debug, Clone, Default)]
pub struct Ours {
    /// This program, whole path; none: it is not known, or no text.
    pub program: Option<PathBuf>,
    /// Settings that were given by flags, as the variables that say the same.
    pub settings: Vec<(&'static str, String)>,
}

/// A name and a value.
pub type Variable = (&'static str, String);

/// The address programs are sent to: the first IPv4 one, which every one of them can use.
pub fn preferred(proxy: &[SocketAddr]) -> Option<SocketAddr> {
    let v4 = proxy.iter().find(|address| address.is_ipv4());
    v4.or(proxy.first()).copied().map(reachable)
}

/// The addresses among those hosts.
pub fn direct_addresses() -> Vec<IpAddr> {
    DIRECT.iter().filter_map(|host| host.parse().ok()).collect()
}

/// Where a listener is reached from this host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

/// Every variable, in the order they are printed; none without a proxy.
pub fn variables(listening: &Listening, ours: &Ours) -> Option<Vec<Variable>> {
    let mut all = proxied(preferred(&listening.proxy)?);
    all.extend(ssh(ours));
    all.extend(postgresql(listening));
    all.extend(ours.settings.iter().cloned());
    Some(all)
}

/// The proxy variables, and what stands in for them.
pub fn proxied(proxy: SocketAddr) -> Vec<Variable> {
    let url = format!("http://{proxy}");
    // No `[::1]` beside `::1`: Python's httpx refuses to start at an entry with a bracket.
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

/// ssh reads no variable: its command goes to git by one of git's, and to scripts by one of ours.
fn ssh(ours: &Ours) -> Vec<Variable> {
    let Some(program) = ours.program.as_ref().and_then(|path| path.to_str()) else {
        return Vec::new();
    };
    // ssh_config(5), TOKENS: a percent sign is written twice. ssh hands the rest to a shell.
    let command = format!("{} connect %h %p", word(&program.replace('%', "%%")));
    let git = format!("ssh -o {}", word(&format!("ProxyCommand={command}")));
    vec![("GIT_SSH_COMMAND", git), ("TAILRACE_SSH_PROXY_COMMAND", command)]
}

/// One word of a shell: in quotes, unless nothing in it needs them.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// libpq connects to `PGHOSTADDR`, and checks TLS and `.pgpass` against `PGHOST` all the same
/// (PostgreSQL, libpq environment variables). With two such forwards nobody knows which is meant.
fn postgresql(listening: &Listening) -> Vec<Variable> {
    let mut forwards =
        listening.forward.iter().filter(|forward| forward.target.port.get() == POSTGRESQL);
    let (Some(only), None) = (forwards.next(), forwards.next()) else { return Vec::new() };
    let listen = reachable(only.listen);
    vec![("PGHOSTADDR", listen.ip().to_string()), ("PGPORT", listen.port().to_string())]
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
    use crate::target::Forward;

    fn listening(proxy: &str, forwards: &[(&str, &str)]) -> Listening {
        let forward = |(listen, target): &(&str, &str)| Forward {
            listen: listen.parse().unwrap(),
            target: (*target).to_owned().try_into().unwrap(),
        };
        let proxy: SocketAddr = proxy.parse().unwrap();
        Listening {
            proxy: vec![proxy],
            tproxy: Vec::new(),
            admin: proxy,
            forward: forwards.iter().map(forward).collect(),
            dns: None,
            dns_clients: None,
        }
    }

    #[test]
    fn every_tool_finds_its_variable() {
        let all = variables(&listening("127.0.0.1:1055", &[]), &Ours::default()).unwrap();
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
    fn ssh_gets_a_command_that_two_shells_and_a_percent_sign_survive() {
        let ssh_of = |path: &str| {
            let ours = Ours { program: Some(path.into()), settings: Vec::new() };
            ssh(&ours).into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(
            ssh_of("/usr/bin/tailrace"),
            [
                "ssh -o 'ProxyCommand=/usr/bin/tailrace connect %h %p'",
                "/usr/bin/tailrace connect %h %p"
            ]
        );
        assert_eq!(ssh_of("/a b/10%/it's")[1], r"'/a b/10%%/it'\''s' connect %h %p");
        assert!(ssh(&Ours::default()).is_empty());
    }

    #[test]
    fn postgresql_s_variables_need_one_forward_to_its_port() {
        let of = |forwards: &[(&str, &str)]| postgresql(&listening("127.0.0.1:1", forwards));
        let (one, other) =
            (("127.0.0.1:6432", "db.example:5432"), ("127.0.0.1:6433", "b.example:5432"));
        let redis = ("127.0.0.1:6379", "redis.example:6379");
        let found = of(&[redis, one]);
        let text = |value: &str| value.to_owned();
        assert_eq!(found, [("PGHOSTADDR", text("127.0.0.1")), ("PGPORT", text("6432"))]);
        assert!(of(&[one, other]).is_empty() && of(&[redis]).is_empty());
        assert_eq!(of(&[("[::]:6432", "db.example:5432")])[0].1, "::1");
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        let [v4, v6] = ["0.0.0.0:1055", "[::]:1055"].map(|at| at.parse().unwrap());
        assert_eq!(preferred(&[v6]), "[::1]:1055".parse().ok());
        assert_eq!(preferred(&[v6, v4]), "127.0.0.1:1055".parse().ok());
        assert_eq!(preferred(&[]), None);
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
