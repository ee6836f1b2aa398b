//! Reverse names: which network one speaks of, and whether anybody outside may be asked about it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use hickory_proto::rr;
use ipnet::IpNet;

use crate::target::Name;

/// Networks that mean something else, or nothing, everywhere: asked outside, a reverse name of theirs tells
/// strangers which addresses are in use here and is answered by nobody (RFC 6303 section 4, RFC 7793).
const RESERVED: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/16",
    "fc00::/6",
    "2001:db8::/32",
];

/// The network that a name of in-addr.arpa or ip6.arpa speaks of (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn network_of(name: &Name) -> Option<IpNet> {
    if !name.as_str().ends_with(".arpa") {
        return None;
    }
    rr::Name::from_ascii(format!("{name}.")).ok()?.parse_arpa_name().ok()
}

/// The one address that it speaks of.
pub fn address_of(name: &Name) -> Option<IpAddr> {
    let net = network_of(name)?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Whether nobody outside is to hear of it.
pub(super) fn is_reserved(name: &Name) -> bool {
    let Some(net) = network_of(name) else { return false };
    RESERVED.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|own| own.contains(&net))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn reverse_names_are_addresses_backwards() {
        let of = |text: &str| address_of(&name(text)).map(|ip| ip.to_string());
        assert_eq!(of("1.0.64.100.in-addr.arpa").as_deref(), Some("100.64.0.1"));
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa";
        assert_eq!(of(nibbles).as_deref(), Some("fd7a:115c:a1e0::1"));
        for other in [
            "64.100.in-addr.arpa",
            "256.0.64.100.in-addr.arpa",
            "9.1.0.64.100.in-addr.arpa",
            "1.ip6.arpa",
            "in-addr.arpa",
            "home.arpa",
            "1.0.64.100.in-addr.arpa.corp.example",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn reverse_names_of_private_networks_stay_here() {
        for own in [
            "7.0.50.10.in-addr.arpa",
            "10.in-addr.arpa",
            "1.31.172.in-addr.arpa",
            "8.c.f.ip6.arpa",
            "f.ip6.arpa",
            "1.0.64.100.in-addr.arpa",
        ] {
            let expected = own != "f.ip6.arpa";
            assert_eq!(is_reserved(&name(own)), expected, "{own}");
        }
        for public in ["8.8.8.8.in-addr.arpa", "172.in-addr.arpa", "1.0.2.ip6.arpa", "www.example"]
        {
            assert!(!is_reserved(&name(public)), "{public}");
        }
        assert!(RESERVED.iter().all(|text| text.parse::<IpNet>().is_ok()));
    }
}
