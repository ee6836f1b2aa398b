//! The head of LocalAPI's answer to a dial, and the text of a failure, on the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::upstream::{Unparsed, localapi};

fuzz_target!(|data: &[u8]| {
    let _any_text_is_some_failure = localapi::failure(data);
    match localapi::parse_head(data) {
        Ok(head) => {
            assert!(head.used <= data.len() && head.used <= localapi::MAX_HEAD);
            assert_eq!(localapi::parse_head(&data[..head.used]), Ok(head));
            assert_eq!(localapi::parse_head(&data[..head.used - 1]), Err(Unparsed::Incomplete));
        }
        Err(Unparsed::Incomplete) => assert!(data.len() < localapi::MAX_HEAD),
        Err(Unparsed::Bad(_)) => {}
    }
});
