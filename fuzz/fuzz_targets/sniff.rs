//! Any first bytes: the protocol they begin, and what an unfinished head is told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::{Failed, Kind};
use tailrace::outcome::Outcome;

fuzz_target!(|data: &[u8]| {
    let failed = Failed::unread(data, Outcome::HeadTimeout);
    match data.first() {
        Some(byte) => assert_eq!(Kind::of_first_byte(*byte).label(), failed.kind.label()),
        None => assert_eq!(failed.kind, Kind::Unknown),
    }
    // P2: only a started HTTP head is answered with text.
    let said = failed.words("1");
    assert_eq!(said.starts_with(b"HTTP/1.1 408 "), matches!(data.first(), Some(b'A'..=b'Z')));
});
