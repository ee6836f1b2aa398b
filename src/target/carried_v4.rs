//! The IPv4 addresses that an IPv6 address carries, so that rules written for IPv4 hold for it too.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 addresses that `address` may stand for: none for most, several where only the network it leads to knows
/// how it is read. Each form has a translator, relay or tunnel that delivers to that IPv4 address:
///
/// | form | source |
/// |---|---|
/// | `::ffff:a.b.c.d`, `::a.b.c.d` | RFC 4291 section 2.5.5 |
/// | `::ffff:0:a.b.c.d` | IPv4-translated, RFC 2765 section 2.1 |
/// | `64:ff9b::a.b.c.d` | NAT64, RFC 6052 section 2.1 |
/// | `64:ff9b:1::/48`, with a prefix of 48, 56, 64 or 96 bits in it | local NAT64, RFC 8215, RFC 6052 section 2.2 |
/// | `2002:a.b.c.d::/48` | 6to4, RFC 3056 section 2 |
/// | `2001::/32`: the server, and the client with its bits turned over | Teredo, RFC 4380 section 4 |
/// | interface identifier `0:5efe:a.b.c.d` or `200:5efe:a.b.c.d` | ISATAP, RFC 5214 section 6.1 |
/// | `fd7a:115c:a1e0:b1a:0:SITE:a.b.c.d` | Tailscale 4via6, tailscale net/tsaddr/tsaddr.go `MapVia` |
pub fn carried_v4(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let forms = match address {
        IpAddr::V4(_) => [None; 5],
        IpAddr::V6(v6) => forms_of(v6),
    };
    forms.into_iter().flatten()
}

/// At most four by prefix, and one by interface identifier.
fn forms_of(address: Ipv6Addr) -> [Option<Ipv4Addr>; 5] {
    let (segments, octets) = (address.segments(), address.octets());
    let low = Some(v4([octets[12], octets[13], octets[14], octets[15]]));
    let one = |form: Option<Ipv4Addr>| [form, None, None, None, isatap(segments, low)];
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 5],
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => one(low),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => one(low),
        [0x64, 0xff9b, 1, ..] => by_local_nat64(octets),
        [0x2002, ..] => one(Some(v4([octets[2], octets[3], octets[4], octets[5]]))),
        [0x2001, 0, ..] => {
            let server = v4([octets[4], octets[5], octets[6], octets[7]]);
            let client = low.map(|client| Ipv4Addr::from(!u32::from(client)));
            [Some(server), client, None, None, isatap(segments, low)]
        }
        [0xfd7a, 0x115c, 0xa1e0, 0xb1a, ..] => one(low),
        _ => one(None),
    }
}

/// An address of the local NAT64 prefix, read by each length its translator's prefix may have. Read by a wrong one, an
/// address begins with the zeros around it: `0.0.0.0/8` counts only where nothing else could be meant.
fn by_local_nat64(octets: [u8; 16]) -> [Option<Ipv4Addr>; 5] {
    let pick = |at: [usize; 4]| v4(at.map(|at| octets[at]));
    // Octet 8 is reserved (RFC 6052 section 2.2): the address is written around it.
    let readings = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]].map(pick);
    let mut kept = [None; 5];
    for (place, reading) in kept.iter_mut().zip(readings) {
        *place = (reading.octets()[0] != 0).then_some(reading);
    }
    if kept.iter().all(Option::is_none) {
        kept[0] = Some(readings[3]);
    }
    kept
}

/// An interface identifier made from an IPv4 address, below whatever prefix.
fn isatap(segments: [u16; 8], low: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    match segments {
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => low,
        _ => None,
    }
}

fn v4(octets: [u8; 4]) -> Ipv4Addr {
    Ipv4Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(text: &str) -> Vec<String> {
        carried_v4(text.parse().unwrap()).map(|v4| v4.to_string()).collect()
    }

    #[test]
    fn e11_each_form_gives_the_address_that_its_network_delivers_to() {
        for text in [
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "fd7a:115c:a1e0:b1a:0:7:a9fe:a9fe",
            "2001:db8::5efe:169.254.169.254",
            "fe80::200:5efe:169.254.169.254",
        ] {
            assert_eq!(carried(text), ["169.254.169.254"], "{text}");
        }
        assert_eq!(carried("2001:0:c000:201:0:0:5601:5601"), ["192.0.2.1", "169.254.169.254"]);
    }

    /// RFC 6052 section 2.4 has these for 192.0.2.33, with another prefix.
    #[test]
    fn e11_local_nat64_is_read_by_every_length_of_prefix() {
        for text in [
            "64:ff9b:1:c000:2:2100::",
            "64:ff9b:1:c0:0:221::",
            "64:ff9b:1:0:c0:2:2100:0",
            "64:ff9b:1::192.0.2.33",
        ] {
            assert!(
                carried(text).contains(&"192.0.2.33".to_owned()),
                "{text}: {:?}",
                carried(text)
            );
        }
        assert_eq!(
            carried("64:ff9b:1::10.0.0.1"),
            ["10.0.0.1"],
            "the zeros before it are no address"
        );
        assert_eq!(carried("64:ff9b:1::"), ["0.0.0.0"]);
    }

    #[test]
    fn an_address_of_its_own_carries_none() {
        for text in ["10.0.0.1", "::", "::1", "2606:4700::1111", "fd7a:115c:a1e0::1", "fe80::1"] {
            assert!(carried(text).is_empty(), "{text}: {:?}", carried(text));
        }
    }
}
