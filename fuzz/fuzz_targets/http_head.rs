//! HTTP heads: what is accepted stays the same when it goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::head::{self, DEFAULT_MAX_HEAD, MessageKind};
use tailrace::inbound::{Parsed, connect, framing, http_forward};

fuzz_target!(|data: &[u8]| {
    for side in [MessageKind::Request, MessageKind::Response] {
        for most in [DEFAULT_MAX_HEAD, 1024] {
            if let Ok(Parsed::Whole { used, .. }) = head::parse_head(data, side, most) {
                assert!(used <= data.len().min(most));
            }
        }
        let _trailers = head::parse_trailers(data, side);
    }
    let Ok(Parsed::Whole { value, .. }) =
        head::parse_head(data, MessageKind::Request, DEFAULT_MAX_HEAD)
    else {
        return;
    };
    let _connect = connect::parse_connect(&value);
    let Ok(request) = http_forward::parse_forward_request(&value) else { return };
    // Credentials of the URL are a third longer in their field.
    let parsed = head::parse_head(&request.head, MessageKind::Request, 2 * DEFAULT_MAX_HEAD);
    let Ok(Parsed::Whole { value: onward, used }) = parsed else {
        panic!("a forwarded head is no head: {}", request.head.escape_ascii());
    };
    assert_eq!(used, request.head.len());
    let version = head::parse_version(onward.third()).expect("parsed above");
    assert_eq!(framing::of_request(&onward, version), Ok(request.body));
    assert_eq!(onward.values("host").count(), 1);
    assert!(!onward.second().contains(&b'#') && onward.first() == value.first());
    let (before, after) =
        (value.values("authorization").count(), onward.values("authorization").count());
    assert!(after <= before.max(1));
    assert_eq!(onward.values("upgrade").count(), usize::from(!request.upgrade.is_empty()));
});
