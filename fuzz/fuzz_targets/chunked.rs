//! Chunked bodies: any split gives the same output, and the output is chunked again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace::inbound::chunked::{ChunkDecoder, ChunkOutput};
use tailrace::inbound::head::MessageKind;

fuzz_target!(|data: &[u8]| {
    for side in [MessageKind::Request, MessageKind::Response] {
        decode(side, data);
    }
});

fn decode(side: MessageKind, data: &[u8]) {
    let (Some(split), rest) = (data.first(), data.get(1..).unwrap_or_default()) else { return };
    let split = usize::from(*split).min(rest.len());
    let (mut whole, mut out) = (ChunkDecoder::new(side, ChunkOutput::Chunks), Vec::new());
    let taken = whole.decode(rest, &mut out);
    let (mut parts, mut pieces) = (ChunkDecoder::new(side, ChunkOutput::Chunks), Vec::new());
    let again = parts
        .decode(&rest[..split], &mut pieces)
        .and_then(|first| Ok(first + parts.decode(&rest[first..], &mut pieces)?));
    assert_eq!(taken, again);
    if taken.is_ok() {
        assert_eq!((&out, whole.is_complete()), (&pieces, parts.is_complete()));
    }
    if taken.is_ok() && whole.is_complete() {
        let (mut decoder, mut same) = (ChunkDecoder::new(side, ChunkOutput::Chunks), Vec::new());
        assert_eq!(decoder.decode(&out, &mut same), Ok(out.len()));
        assert!(decoder.is_complete() && same == out);
    }
}
