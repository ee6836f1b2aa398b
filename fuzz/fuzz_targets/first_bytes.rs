//! What a redirected client says first: a meaning by 16 KiB, the same whatever follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::Parsed;
use tailrace::inbound::sniff::{self, MOST, Said};
use tailrace::inbound::head::{self, Side};

fuzz_target!(|data: &[u8]| {
    let said = sniff::read(data);
    match &said {
        Said::Incomplete | Said::IncompleteHello => assert!(data.len() < MOST),
        said => assert_eq!(sniff::read(&[data, b"more"].concat()), *said),
    }
    // B19: a head that a strict server would take is for a proxy, or names its host.
    let Ok(Parsed::Whole { value, .. }) = head::parse(data, Side::Request, MOST) else { return };
    match value.second() {
        [b'/', ..] | b"*" => assert!(matches!(said, Said::Http(_))),
        _ => assert_eq!(said, Said::ForProxy),
    }
});
