//! `tailrace env`: the proxy environment, ready for `eval`.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::args::{Settings, Shell};
use super::{exit, find};

/// Hosts that never go through the proxy: loopback, and the metadata addresses of clouds and of
/// container credentials.
const DIRECT: [&str; 5] = ["localhost", "127.0.0.1", "::1", "169.254.169.254", "169.254.170.2"];

pub(super) fn run(settings: &Settings, shell: Shell) -> ExitCode {
    let found = match find::gateway(settings) {
        Ok(found) => found,
        Err(problems) => return find::misconfigured(&problems),
    };
    let Some(proxy) = found.proxy.iter().find(|a| a.is_ipv4()).or(found.proxy.first()) else {
        eprintln!("tailrace: listen.proxy is empty: name an address there");
        return ExitCode::from(exit::CONFIG);
    };
    print!("{}", text(&variables(*proxy), shell));
    ExitCode::SUCCESS
}

/// Every variable with its value, in the order they are printed.
fn variables(proxy: SocketAddr) -> Vec<(&'static str, String)> {
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

fn text(variables: &[(&'static str, String)], shell: Shell) -> String {
    match shell {
        Shell::Sh => variables
            .iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', "'\\''")))
            .collect(),
        Shell::Fish => variables
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                format!("set -gx {name} '{value}'\n")
            })
            .collect(),
        Shell::Json => {
            let object: Map<String, Value> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Value::from(value.clone())))
                .collect();
            format!("{}\n", Value::Object(object))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_finds_its_variable() {
        let all = variables("127.0.0.1:1055".parse().unwrap());
        let value = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("ALL_PROXY"), Some("http://127.0.0.1:1055"));
        assert_eq!(value("https_proxy"), Some("http://127.0.0.1:1055"));
        assert_eq!(
            value("NO_PROXY"),
            Some("localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2")
        );
        assert!(value("JAVA_TOOL_OPTIONS").unwrap().contains("-Dhttps.proxyPort=1055"));
    }
}
