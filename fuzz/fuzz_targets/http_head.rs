//! HTTP heads: what is accepted stays the same when it goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::head::{self, Side};
use tailrace::inbound::{Parsed, connect, framing, http_forward};

fuzz_target!(|data: &[u8]| {
    let _response = head::parse(data, Side::Response);
    let _trailers = head::parse_trailers(data);
    let Ok(Parsed::Whole { value, used }) = head::parse(data, Side::Request) else { return };
    assert!(used <= data.len().min(head::MAX_HEAD));
    let _connect = connect::read(&value);
    let Ok(request) = http_forward::read(&value) else { return };
    let Ok(Parsed::Whole { value: onward, used }) = head::parse(&request.head, Side::Request)
    else {
        panic!("a forwarded head is no head: {}", request.head.escape_ascii());
    };
    assert_eq!(used, request.head.len());
    let version = head::version(onward.third()).expect("parsed above");
    assert_eq!(framing::of_request(&onward, version), Ok(request.body));
    assert_eq!(onward.values("host").count(), 1);
});
