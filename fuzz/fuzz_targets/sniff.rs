//! Any first bytes: the protocol they begin, wherever they are split, and what an unfinished head is told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::{InboundFailure, Kind, Parsed};
use tailrace::outcome::Outcome;

fuzz_target!(|data: &[u8]| {
    let failed = InboundFailure::of_incomplete_head(data, Outcome::HeadTimeout);
    let told = Kind::of_first_bytes(data);
    match told {
        Parsed::Whole { value, .. } => assert_eq!(value, failed.kind),
        Parsed::Incomplete => assert_eq!(failed.kind, Kind::Unknown),
    }
    for cut in 0..data.len().min(12) {
        let before = Kind::of_first_bytes(&data[..cut]);
        assert!(before == Parsed::Incomplete || before == told);
    }
    // P2: only a started HTTP head is answered with text; empty lines before it start none.
    let said = failed.reply_bytes("1");
    assert_eq!(said.starts_with(b"HTTP/1.1 408 "), failed.kind == Kind::Http);
    match data.first() {
        None => assert_eq!(told, Parsed::Incomplete),
        Some(b'\r' | b'\n') => assert!(!matches!(failed.kind, Kind::Socks4 | Kind::Socks5)),
        Some(first) => assert_eq!(failed.kind == Kind::Http, first.is_ascii_uppercase()),
    }
});
