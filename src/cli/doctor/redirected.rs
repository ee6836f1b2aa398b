//! Whether connections of this user are led to the gateway (docs/transparent.md), both families: one
//! without rules goes past it.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Link;
use super::gateway_discovery::{self, Found};
use crate::api::FaultAnswer;
use crate::labels::{ChainLink, Symptom};

/// Discard (RFC 863): nobody there minds.
const PORT: u16 = 9;
/// An address where nobody is (RFC 5737), and where only a tailnet is routed, its own (tailscale
/// net/tsaddr: the address of MagicDNS).
const V4: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100))];
/// The same for IPv6; RFC 6666 is for what is to be discarded.
const V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53)),
];
/// A redirected connection is made on this host: anything slower left it.
const AT_ONCE: Duration = Duration::from_millis(250);
/// For the gateway to have counted a connection it has.
const COUNTED: Duration = Duration::from_secs(1);
/// Pause between two looks at the gateway's count.
const PAUSE: Duration = Duration::from_millis(10);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The gateway got it.
    ImplicitTarget,
    /// It left for the network.
    Passed,
    /// It was refused on the way, and the gateway did not see it.
    Refused,
    /// Nothing can leave by this family.
    NoRoute,
}

/// The link, where anything is redirected: a gateway that never had such a connection is not asked to
/// prove it, because what is tried would leave this host.
pub(super) fn link(found: &Found) -> Option<Link> {
    if count(found) == 0 {
        return None;
    }
    let [v4, v6] = [V4, V6].map(|addresses| seen(found, addresses));
    told(v4, v6).map(|state| Link { name: ChainLink::Redirect, state })
}

fn told(v4: Seen, v6: Seen) -> Option<Result<String, FaultAnswer>> {
    let part = |version, seen| match seen {
        Seen::ImplicitTarget => format!("{version} is led here"),
        Seen::Passed => format!("{version} is not"),
        Seen::Refused => format!("{version} is refused"),
        Seen::NoRoute => format!("{version} has no route"),
    };
    match (v4, v6) {
        (Seen::ImplicitTarget, Seen::Passed) => {
            Some(Err(bypass(Symptom::Ipv6Bypass, "IPv6", "IPv4")))
        }
        (Seen::Passed, Seen::ImplicitTarget) => {
            Some(Err(bypass(Symptom::Ipv4Bypass, "IPv4", "IPv6")))
        }
        (Seen::ImplicitTarget, _) | (_, Seen::ImplicitTarget) => {
            Some(Ok(format!("{}, {}; UDP is not carried", part("IPv4", v4), part("IPv6", v6))))
        }
        _ => None,
    }
}

fn bypass(symptom: Symptom, passes: &str, led: &str) -> FaultAnswer {
    FaultAnswer {
        symptom,
        cause: format!("only {led} connections of this user are led here: {passes} has no rules"),
        fix: "load the rules of `tailrace nft --uid N`, which hold for both".to_owned(),
    }
}

/// Tries the first address that has a route.
fn seen(found: &Found, addresses: [IpAddr; 2]) -> Seen {
    let tried = addresses.into_iter().map(|ip| attempt(found, SocketAddr::new(ip, PORT)));
    tried.into_iter().find(|seen| *seen != Seen::NoRoute).unwrap_or(Seen::NoRoute)
}

/// One connection; the gateway's own count tells whether it got there.
fn attempt(found: &Found, to: SocketAddr) -> Seen {
    let before = count(found);
    let answered = match TcpStream::connect_timeout(&to, AT_ONCE) {
        Ok(_closed_at_once) => true,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused => true,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => false,
            _ => return Seen::NoRoute,
        },
    };
    if !answered {
        return Seen::Passed;
    }
    let deadline = Instant::now() + COUNTED;
    while Instant::now() < deadline {
        if count(found) > before {
            return Seen::ImplicitTarget;
        }
        #[expect(clippy::disallowed_methods, reason = "no runtime here: nothing else waits")]
        std::thread::sleep(PAUSE);
    }
    Seen::Refused
}

/// Redirected connections the gateway has and has had.
fn count(found: &Found) -> u64 {
    let answer = gateway_discovery::get(found.admin, "/metrics")
        .map(|answer| answer.body)
        .unwrap_or_default();
    let ours = |line: &&str| {
        let all = ["tailrace_connections_total{", "tailrace_connections_active{"];
        all.iter().any(|name| line.starts_with(name)) && line.contains("inbound=\"transparent\"")
    };
    let values = answer.lines().filter(ours).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).map(|value| value as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b28_one_family_without_rules_is_a_bypass() {
        use Seen::{ImplicitTarget, NoRoute, Passed, Refused};
        let broken = told(ImplicitTarget, Passed).unwrap().unwrap_err();
        assert_eq!(broken.symptom.label(), "IPv6 connections pass the gateway by");
        assert_eq!(told(Passed, ImplicitTarget).unwrap().unwrap_err().symptom, Symptom::Ipv4Bypass);
        let held = told(ImplicitTarget, Refused).unwrap().unwrap();
        assert_eq!(held, "IPv4 is led here, IPv6 is refused; UDP is not carried");
        assert!(
            told(ImplicitTarget, NoRoute).unwrap().is_ok()
                && told(ImplicitTarget, ImplicitTarget).unwrap().is_ok()
        );
        for nothing in [Passed, Refused, NoRoute] {
            assert!(told(nothing, Passed).is_none(), "{nothing:?}");
        }
    }
}
