//! What a redirected client says first: a meaning by 16 KiB, the same whatever follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::Parsed;
use tailrace::inbound::head::{self, MessageKind};
use tailrace::inbound::sniff::{self, MOST, SniffedProtocol};

fuzz_target!(|data: &[u8]| {
    let said = sniff::sniff(data);
    match &said {
        SniffedProtocol::Incomplete | SniffedProtocol::IncompleteHello => {
            assert!(data.len() < MOST)
        }
        said => assert_eq!(sniff::sniff(&[data, b"more"].concat()), *said),
    }
    // B19: a head that a strict server would take is for a proxy, or names its host.
    let Ok(Parsed::Whole { value, .. }) = head::parse_head(data, MessageKind::Request, MOST) else {
        return;
    };
    match value.second() {
        [b'/', ..] | b"*" => assert!(matches!(said, SniffedProtocol::Http(_))),
        _ => assert_eq!(said, SniffedProtocol::ForProxy),
    }
});
