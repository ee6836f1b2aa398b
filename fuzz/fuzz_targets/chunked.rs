//! Chunked bodies: any split gives the same output, and the output is chunked again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::chunked::{Decoder, Output};
use tailrace::inbound::head::Side;

fuzz_target!(|data: &[u8]| {
    for side in [Side::Request, Side::Response] {
        decode(side, data);
    }
});

fn decode(side: Side, data: &[u8]) {
    let (Some(split), rest) = (data.first(), data.get(1..).unwrap_or_default()) else { return };
    let split = usize::from(*split).min(rest.len());
    let (mut whole, mut out) = (Decoder::new(side, Output::Chunks), Vec::new());
    let taken = whole.decode(rest, &mut out);
    let (mut parts, mut pieces) = (Decoder::new(side, Output::Chunks), Vec::new());
    let again = parts
        .decode(&rest[..split], &mut pieces)
        .and_then(|first| Ok(first + parts.decode(&rest[first..], &mut pieces)?));
    assert_eq!(taken, again);
    if taken.is_ok() {
        assert_eq!((&out, whole.done()), (&pieces, parts.done()));
    }
    if taken.is_ok() && whole.done() {
        let (mut decoder, mut same) = (Decoder::new(side, Output::Chunks), Vec::new());
        assert_eq!(decoder.decode(&out, &mut same), Ok(out.len()));
        assert!(decoder.done() && same == out);
    }
}
