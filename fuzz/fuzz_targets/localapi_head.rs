//! The head of an answer to a request of our own, what it means as LocalAPI's answer to a dial, and the text of a
//! failure, on the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::http_client::response_head::{MAX_HEAD, ResponseHead, ResponseHeadError};
use tailrace::localapi::dial;

fuzz_target!(|data: &[u8]| {
    let _any_text_is_some_failure = dial::parse_failure(data);
    match ResponseHead::parse(data) {
        Ok(head) => {
            assert!(head.length <= data.len() && head.length <= MAX_HEAD);
            let whole = &data[..head.length];
            assert_eq!(ResponseHead::parse(whole), Ok(head));
            assert_eq!(
                ResponseHead::parse(&data[..head.length - 1]),
                Err(ResponseHeadError::Incomplete)
            );
            let of_a_dial = dial::parse_answer(data).map(|(_, length)| length);
            let old = Err(ResponseHeadError::NotHttp);
            assert_eq!(of_a_dial, if head.minor_version == 1 { Ok(head.length) } else { old });
        }
        Err(ResponseHeadError::Incomplete) => assert!(data.len() < MAX_HEAD),
        Err(bad) => assert_eq!(dial::parse_answer(data), Err(bad)),
    }
});
