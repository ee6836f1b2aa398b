//! SOCKS5 greeting, credentials and request, each on the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::{Parsed, socks5};

fuzz_target!(|data: &[u8]| {
    if let Ok(Parsed::Whole { used, .. }) = socks5::parse_greeting(data) {
        assert_eq!(used, 2 + usize::from(data[1]));
    }
    if let Ok(Parsed::Whole { value, used }) = socks5::parse_request(data) {
        let again = socks5::parse_request(&data[..used]);
        assert_eq!(again, Ok(Parsed::Whole { value, used }));
        assert_eq!(socks5::parse_request(&data[..used - 1]), Ok(Parsed::Incomplete));
    }
    let mut bytes = data.to_vec();
    if let Ok(Parsed::Whole { used, .. }) = socks5::parse_user(&mut bytes) {
        let password = 3 + usize::from(data[1]);
        assert!(bytes[password..used].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[used..], data[used..]);
    }
});
