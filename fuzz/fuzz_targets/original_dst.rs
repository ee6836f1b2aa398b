//! The original destination of a connection: never an address of our own, never port 0.
#![no_main]

use std::net::{Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use tailrace::sys::redirected;

/// Port and address from 18 bytes; IPv4 where they hold a mapped one.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let (port, ip) = bytes.split_at_checked(2)?;
    let ip: [u8; 16] = ip.try_into().ok()?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    Some(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port))
}

fuzz_target!(|data: &[u8]| {
    let mut addresses = data.chunks_exact(18).filter_map(address);
    let (original, Some(local)) = (addresses.next(), addresses.next()) else { return };
    let own: Vec<SocketAddr> = addresses.collect();
    if let Some(to) = redirected(original, local, &own) {
        assert!(to.port() != 0 && to != local && !own.contains(&to));
        assert_eq!(Some(to), original);
    }
});
