//! Where a redirected connection was going before netfilter changed it.

use std::net::{IpAddr, SocketAddr};

use super::Stream;

/// What netfilter says the destination was (`SO_ORIGINAL_DST`), canonical. `None` without an
/// answer, as on a host without NAT.
///
/// An answer does not mean "redirected": once a nat table exists, a direct connection answers with
/// the listener's own address. [`redirected`] decides.
pub fn original_dst(stream: &Stream, local: SocketAddr) -> Option<SocketAddr> {
    use rustix::net::sockopt;
    // A v4-mapped socket is asked at the IPv4 level: the IPv6 one does not know its connection.
    let original: SocketAddr = match local.ip().to_canonical() {
        IpAddr::V4(_) => sockopt::ip_original_dst(stream).ok()?.into(),
        IpAddr::V6(_) => sockopt::ipv6_original_dst(stream).ok()?.into(),
    };
    Some(canonical_address(original))
}

/// The original destination, if it makes this a redirected connection: it is neither the address
/// the connection came in on nor one of our `own` listening addresses.
pub fn redirected(
    original: Option<SocketAddr>,
    local: SocketAddr,
    own: &[SocketAddr],
) -> Option<SocketAddr> {
    let original = canonical_address(original?);
    let ours = original == canonical_address(local)
        || own.iter().any(|own| canonical_address(*own) == original);
    (!ours && original.port() != 0).then_some(original)
}

/// The destination of a connection that TPROXY led to an `IP_TRANSPARENT` listener: the address it
/// came in on (ip(7)). `None` if that is one of our `own`, which a client dialled itself.
pub fn intercepted(local: SocketAddr, own: &[SocketAddr]) -> Option<SocketAddr> {
    let local = canonical_address(local);
    (!own.iter().any(|own| canonical_address(*own) == local)).then_some(local)
}

/// IPv4-mapped as IPv4, without flow and scope: two spellings of one address are equal.
fn canonical_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn b28_success_is_not_redirected() {
        let own = [at("127.0.0.1:1055"), at("[::1]:1055")];
        let local = at("127.0.0.1:1055");
        assert_eq!(redirected(None, local, &own), None);
        assert_eq!(redirected(Some(local), local, &own), None);
        assert_eq!(redirected(Some(at("[::1]:1055")), local, &own), None);
        assert_eq!(redirected(Some(at("[::ffff:127.0.0.1]:1055")), local, &own), None);
        let far = at("100.64.0.9:443");
        assert_eq!(redirected(Some(far), local, &own), Some(far));
        assert_eq!(redirected(Some(at("127.0.0.1:80")), local, &own), Some(at("127.0.0.1:80")));
    }

    #[test]
    fn b28_tproxy_leaves_the_destination_in_place() {
        let own = [at("127.0.0.1:1056"), at("[::1]:1056")];
        assert_eq!(intercepted(at("127.0.0.1:1056"), &own), None);
        assert_eq!(intercepted(at("[::ffff:127.0.0.1]:1056"), &own), None);
        let far = at("[2001:db8::9]:1056");
        assert_eq!(intercepted(far, &own), Some(far));
        assert_eq!(intercepted(at("[::ffff:203.0.113.9]:80"), &own), Some(at("203.0.113.9:80")));
    }

    #[test]
    fn b28_a_wildcard_listener_knows_direct_connections_by_where_they_came_in() {
        let own = [at("0.0.0.0:1055")];
        let local = at("10.0.0.5:1055");
        assert_eq!(redirected(Some(local), local, &own), None);
        let same_port = at("10.9.9.9:1055");
        assert_eq!(redirected(Some(same_port), local, &own), Some(same_port));
    }
}
