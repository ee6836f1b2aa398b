//! SOCKS4 requests: a prefix never decides otherwise than the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::{Parsed, socks4};

fuzz_target!(|data: &[u8]| {
    let whole = socks4::parse_request(data);
    if let Ok(Parsed::Whole { used, .. }) = &whole {
        assert!(*used <= data.len());
        assert_eq!(socks4::parse_request(&data[..*used]), whole);
    }
    let half = socks4::parse_request(&data[..data.len() / 2]);
    let outcome =
        |parsed: Result<Parsed<_>, tailrace::inbound::ParseError>| parsed.map_err(|b| b.outcome);
    assert!(half == Ok(Parsed::Incomplete) || outcome(half) == outcome(whole));
});
