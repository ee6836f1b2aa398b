//! Hosts and authorities: the canonical form is a fixed point, and never holds what P13 refuses.
#![no_main]

use std::num::NonZeroU16;

use libfuzzer_sys::fuzz_target;
use tailrace::target::{Host, Target};

fuzz_target!(|data: &[u8]| {
    if let Ok(host) = Host::parse(data) {
        let text = host.to_string();
        assert_eq!(Host::parse(text.as_bytes()), Ok(host.clone()));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
        assert!(text.bytes().all(plain), "{text}");
    }
    if let (Ok(host), Ok(bare)) = (Host::parse_bracketed(data), Host::parse(data)) {
        assert_eq!(host, bare);
    }
    if let Ok(target) = Target::parse_connect(data) {
        let text = target.to_string();
        assert_eq!(Target::parse_connect(text.as_bytes()), Ok(target.clone()));
        assert_eq!(Target::parse_authority(text.as_bytes(), None), Ok(target));
    }
    if let Ok(target) = Target::parse_authority(data, None) {
        assert_eq!(Target::parse_connect(data), Ok(target));
    }
    if let Ok(target) = Target::parse_authority(data, NonZeroU16::new(80)) {
        let text = target.to_string();
        assert_eq!(Target::parse_authority(text.as_bytes(), None), Ok(target));
    }
});
