//! `tailrace nft`: the ruleset that leads connections to the proxy port, and the one that undoes it.
//!
//! It prints and loads nothing: the rules are for whoever may load them, often another user than the
//! gateway's.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use super::args::Settings;
use super::{exit, gateway_discovery};

/// The ports that redirected connections are led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    /// The port of 127.0.0.1 that IPv4 connections are led to.
    v4: u16,
    /// The port of ::1 that IPv6 connections are led to.
    v6: u16,
}

/// Prints the rules that leave `exempt` alone; without one, those that take the rules out.
pub(super) fn run(settings: &Settings, exempt: Option<u32>) -> ExitCode {
    let Some(uid) = exempt else {
        print!("{UNDO}");
        return ExitCode::SUCCESS;
    };
    let found = match gateway_discovery::listening(settings) {
        Ok(found) => found,
        Err(problems) => return gateway_discovery::misconfigured(&problems),
    };
    let (v4, v6) = (led_to(&found.proxy, false), led_to(&found.proxy, true));
    let Some(ports) = Ports::of(v4, v6) else {
        eprintln!(
            "tailrace: listen.proxy has neither 127.0.0.1 nor ::1, where a redirect leads: add 127.0.0.1:1055"
        );
        return ExitCode::from(exit::CONFIG);
    };
    if ports.v4 == 0 || ports.v6 == 0 {
        eprintln!(
            "tailrace: listen.proxy lets the kernel pick a port, and no gateway answers at {} that could tell it: start it first, or name a port",
            found.admin
        );
        return ExitCode::from(exit::NO_GATEWAY);
    }
    for (found, version, place) in [(v4, "IPv4", "127.0.0.1"), (v6, "IPv6", "[::1]")] {
        if found.is_none() {
            eprintln!(
                "tailrace: nobody listens on {place}: {version} connections will be refused; add {place}:{} to listen.proxy to have them carried",
                ports.v4
            );
        }
    }
    print!("{}", rules(uid, ports));
    ExitCode::SUCCESS
}

impl Ports {
    /// A family nobody listens for is led to the other's port, and refused there: never past us.
    fn of(v4: Option<u16>, v6: Option<u16>) -> Option<Self> {
        Some(Self { v4: v4.or(v6)?, v6: v6.or(v4)? })
    }
}

/// The port that a redirect of this family reaches: the kernel leads a connection made on this host to
/// 127.0.0.1 or ::1 (nft(8), REDIRECT). `[::]` takes IPv4 too.
fn led_to(proxy: &[SocketAddr], v6: bool) -> Option<u16> {
    let reached = |address: &&SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(ip) => !v6 && (ip.is_loopback() || ip.is_unspecified()),
        IpAddr::V6(ip) => ip.is_unspecified() || v6 && ip.is_loopback(),
    };
    proxy.iter().find(reached).map(SocketAddr::port)
}

/// The table is ours alone: taking it out leaves nothing behind. The first line makes the second one
/// work where there is no such table yet; all of it takes effect at once, or nothing does.
const UNDO: &str = "table inet tailrace\ndelete table inet tailrace\n";

fn rules(uid: u32, ports: Ports) -> String {
    let redirect = match ports {
        Ports { v4, v6 } if v4 == v6 => format!("\t\tmeta l4proto tcp redirect to :{v4}\n"),
        Ports { v4, v6 } => format!(
            "\t\tmeta nfproto ipv4 meta l4proto tcp redirect to :{v4}\n\
             \t\tmeta nfproto ipv6 meta l4proto tcp redirect to :{v6}\n"
        ),
    };
    format!(
        "{UNDO}table inet tailrace {{\n\
         \tchain output {{\n\
         \t\ttype nat hook output priority -100; policy accept;\n\
         \t\tmeta skuid {uid} return\n\
         \t\tip daddr 127.0.0.0/8 return\n\
         \t\tip6 daddr ::1 return\n\
         {redirect}\
         \t}}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(proxy: &[&str]) -> Option<Ports> {
        let proxy: Vec<SocketAddr> = proxy.iter().map(|text| text.parse().unwrap()).collect();
        Ports::of(led_to(&proxy, false), led_to(&proxy, true))
    }

    #[test]
    fn a_redirect_leads_to_loopback_of_its_family() {
        let of = |v4, v6| Some(Ports { v4, v6 });
        assert_eq!(ports(&["127.0.0.1:1055", "[::1]:1055"]), of(1055, 1055));
        assert_eq!(ports(&["10.0.0.5:1", "127.0.0.1:2", "[::1]:3"]), of(2, 3));
        assert_eq!(ports(&["127.0.0.1:2"]), of(2, 2), "refused there, not let past");
        assert_eq!(ports(&["[::1]:3"]), of(3, 3));
        assert_eq!(ports(&["0.0.0.0:4", "[::1]:5"]), of(4, 5));
        assert_eq!(ports(&["[::]:6"]), of(6, 6));
        assert_eq!(ports(&["10.0.0.5:1"]), None);
    }

    #[test]
    fn two_ports_take_two_rules() {
        let rules = rules(7, Ports { v4: 1, v6: 2 });
        assert!(rules.starts_with(UNDO) && rules.contains("skuid 7 return"), "{rules}");
        assert!(rules.contains("ipv4 meta l4proto tcp redirect to :1\n"), "{rules}");
        assert!(rules.contains("ipv6 meta l4proto tcp redirect to :2\n"), "{rules}");
    }
}
