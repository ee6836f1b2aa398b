//! The chunked coding (RFC 9112 section 7.1), decoded strictly and written anew.
//!
//! Only what was understood is forwarded: sizes in plain hex, no extensions, no blanks, trailers without
//! framing, routing and authentication fields. Memory and time are bounded whatever is sent.
#![forbid(unsafe_code)]

use super::head::{self, MessageKind};
use super::http_forward::filter_trailers;
use super::parse::{ParseError, Parsed};

/// Longest size line with its extension, CRLF included.
const MAX_LINE: usize = 256;
/// Extension bytes beyond what the data that came with them pays for.
const MAX_EXTENSIONS: usize = 4 * 1024;
/// Hex digits of a size: it fits 64 bits.
const MAX_DIGITS: u8 = 16;
/// All trailer lines together.
const MAX_TRAILERS: usize = 8 * 1024;

/// What to write for what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkOutput {
    /// Chunks again.
    Chunks,
    /// The data alone, for receivers that know no chunks (HTTP/1.0).
    Data,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size,
    /// Blanks after a size: bad ones that RFC 9112 section 7.1.1 has every recipient read and nobody send.
    Blanks,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// A body's decoder, fed in pieces of any size.
#[derive(Debug, Clone)]
pub struct ChunkDecoder {
    /// Whose body it is: trailers are read as that side's fields are.
    side: MessageKind,
    output: ChunkOutput,
    state: ChunkState,
    /// Bytes of the current chunk that are still to come.
    size: u64,
    digits: u8,
    /// Bytes of the current size line.
    line: usize,
    extensions: usize,
    trailers: Vec<u8>,
}

impl ChunkDecoder {
    /// A decoder at the beginning of a body of this side's.
    pub fn new(side: MessageKind, output: ChunkOutput) -> Self {
        Self {
            side,
            output,
            state: ChunkState::Size,
            size: 0,
            digits: 0,
            line: 0,
            extensions: 0,
            trailers: Vec::new(),
        }
    }

    /// Whether the body and its trailers are complete.
    pub fn is_complete(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Takes bytes from `input`, appends to `out` what to write for them, and says how many were
    /// taken: all, unless the body ended before.
    ///
    /// # Errors
    /// [`ParseError`] at the first byte that is wrong; what was appended before stands.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, ParseError> {
        let mut at = 0;
        while at < input.len() && !self.is_complete() {
            if self.state == ChunkState::Data {
                at += self.copy_data(&input[at..], out);
            } else {
                self.take_byte(input[at], out)?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn copy_data(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let left = usize::try_from(self.size).unwrap_or(usize::MAX);
        let taken = left.min(input.len());
        out.extend_from_slice(&input[..taken]);
        self.size -= taken as u64;
        if self.size == 0 {
            self.state = ChunkState::DataCr;
        }
        taken
    }

    fn take_byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ParseError> {
        self.state = match (self.state, byte) {
            (
                ChunkState::Size | ChunkState::Blanks | ChunkState::Extension | ChunkState::SizeLf,
                _,
            ) => {
                self.line += 1;
                if self.line > MAX_LINE {
                    return Err(bad_chunk("a size line is longer than 256 bytes"));
                }
                return self.size_line(byte, out);
            }
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => {
                if self.output == ChunkOutput::Chunks {
                    out.extend_from_slice(b"\r\n");
                }
                ChunkState::Size
            }
            (ChunkState::Trailers, byte) => return self.trailer_byte(byte, out),
            (ChunkState::Data | ChunkState::Done, _) => self.state,
            _ => return Err(bad_chunk("a chunk does not end where its size says")),
        };
        Ok(())
    }

    fn size_line(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ParseError> {
        match (self.state, byte) {
            (ChunkState::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digits += 1;
                if self.digits > MAX_DIGITS {
                    return Err(bad_chunk("a size has more than 16 digits"));
                }
                self.size = (self.size << 4) | u64::from(hex_value(byte));
            }
            (ChunkState::Size, b'\r') if self.digits > 0 => self.state = ChunkState::SizeLf,
            (ChunkState::Size | ChunkState::Blanks, b' ' | b'\t') if self.digits > 0 => {
                self.state = ChunkState::Blanks;
                self.take_extension()?;
            }
            (ChunkState::Size | ChunkState::Blanks, b';') if self.digits > 0 => {
                self.state = ChunkState::Extension;
                self.take_extension()?;
            }
            (ChunkState::Blanks | ChunkState::Extension, b'\r') => self.state = ChunkState::SizeLf,
            (ChunkState::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.take_extension()?,
            (ChunkState::SizeLf, b'\n') => self.end_size_line(out),
            _ => return Err(bad_chunk("a size line is not hex digits, an extension and CRLF")),
        }
        Ok(())
    }

    fn take_extension(&mut self) -> Result<(), ParseError> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(bad_chunk("chunk extensions are longer than 4 KiB"));
        }
        Ok(())
    }

    /// A size line is complete: a chunk begins, or the last one has come.
    fn end_size_line(&mut self, out: &mut Vec<u8>) {
        let paid = usize::try_from(self.size).unwrap_or(usize::MAX);
        self.extensions = self.extensions.saturating_sub(paid);
        (self.digits, self.line) = (0, 0);
        if self.size == 0 {
            self.state = ChunkState::Trailers;
            return;
        }
        self.state = ChunkState::Data;
        if self.output == ChunkOutput::Chunks {
            out.extend_from_slice(format!("{:x}\r\n", self.size).as_bytes());
        }
    }

    fn trailer_byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ParseError> {
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(bad_chunk("trailers are longer than 8 KiB"));
        }
        self.trailers.push(byte);
        if byte != b'\n' {
            return Ok(());
        }
        if let Parsed::Whole { value, .. } = head::parse_trailers(&self.trailers, self.side)? {
            self.state = ChunkState::Done;
            self.trailers = Vec::new();
            if self.output == ChunkOutput::Chunks {
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(&filter_trailers(&value));
            }
        }
        Ok(())
    }
}

fn bad_chunk(what: &str) -> ParseError {
    ParseError::bad_request(format!("the chunked body is malformed: {what}"))
}

fn hex_value(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Output, bytes taken and whether it ended; or the error.
    fn decode(input: &[u8], output: ChunkOutput) -> Result<(Vec<u8>, usize, bool), ParseError> {
        let (mut decoder, mut out) = (ChunkDecoder::new(MessageKind::Request, output), Vec::new());
        let taken = decoder.decode(input, &mut out)?;
        Ok((out, taken, decoder.is_complete()))
    }

    #[test]
    fn chunks_are_written_anew() {
        let input = b"05;a=b\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX-T: 1\r\nHost: evil\r\n\r\nGET ";
        let (out, taken, done) = decode(input, ChunkOutput::Chunks).unwrap();
        assert_eq!(out, b"5\r\nhello\r\na\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n");
        assert_eq!((&input[taken..], done), (&b"GET "[..], true));
        assert_eq!(decode(input, ChunkOutput::Data).unwrap().0, b"hello0123456789");
    }

    #[test]
    fn p23_blanks_after_a_size_are_read_and_not_written() {
        let input = b"5 \r\nhello\r\n1\t \t;a=b ; c\r\n!\r\n0  \r\n\r\n";
        let (out, taken, done) = decode(input, ChunkOutput::Chunks).unwrap();
        assert_eq!(
            (&out[..], taken, done),
            (&b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"[..], input.len(), true)
        );
        let blanks = format!("1{}\r\na\r\n", " ".repeat(200)).repeat(30);
        for bad in ["1 1\r\n", " 1\r\n", "\t1\r\n", "1 \n", " ;a\r\n", "1\x0b\r\n", &blanks] {
            assert!(decode(bad.as_bytes(), ChunkOutput::Chunks).is_err(), "{bad:.40}");
        }
    }

    #[test]
    fn p21_only_an_answers_trailers_may_have_blanks_before_the_colon() {
        let input = b"0\r\nX-Sum \t: 1\r\nTrailer : x\r\n\r\n";
        assert!(decode(input, ChunkOutput::Chunks).is_err());
        let (mut decoder, mut out) =
            (ChunkDecoder::new(MessageKind::Response, ChunkOutput::Chunks), Vec::new());
        assert_eq!(decoder.decode(input, &mut out), Ok(input.len()));
        assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
    }

    #[test]
    fn p23_malformed_bodies() {
        let long_line = format!("5;{}\r\nhello\r\n", "a".repeat(260));
        let long_extensions = format!("1;{}\r\na\r\n", "a".repeat(200)).repeat(30);
        let long_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(2000));
        for input in [
            "0_2e\r\n",
            "10000000000000000\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "\r\n",
            ";a\r\n",
            " 1\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1;a\nb\r\n",
            "0\r\nbad\r\n\r\n",
            "0\r\nA: b\n\r\n",
            &long_line,
            &long_extensions,
            &long_trailers,
        ] {
            assert!(decode(input.as_bytes(), ChunkOutput::Chunks).is_err(), "{input:.40}");
        }
        assert!(decode(b"ffffffffffffffff\r\n", ChunkOutput::Chunks).is_ok());
    }

    proptest! {
        #[test]
        fn r16_every_split_gives_the_same_output(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            noise in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend(format!("{:X};x\r\n", chunk.len()).as_bytes());
                input.extend(chunk);
                input.extend(b"\r\n");
            }
            input.extend(b"0\r\nX: y\r\n\r\nnext");
            if let Some((at, byte)) = noise {
                let at = at.index(input.len());
                input[at] = byte;
            }
            let whole = decode(&input, ChunkOutput::Chunks);
            for split in 0..=input.len() {
                let (mut decoder, mut out) = (ChunkDecoder::new(MessageKind::Request, ChunkOutput::Chunks), Vec::new());
                let parts = decoder.decode(&input[..split], &mut out).and_then(|first| {
                    let second = decoder.decode(&input[first..], &mut out)?;
                    Ok((out.clone(), first + second, decoder.is_complete()))
                });
                prop_assert_eq!(parts, whole.clone());
            }
            if noise.is_none() {
                prop_assert_eq!(decode(&input, ChunkOutput::Data).unwrap().0, chunks.concat());
            }
        }

        #[test]
        fn what_is_written_reads_the_same_again(input in proptest::collection::vec(
            prop_oneof![Just(b'1'), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';'), Just(b' '), any::<u8>()], 0..80)) {
            if let Ok((out, _, true)) = decode(&input, ChunkOutput::Chunks) {
                let again = decode(&out, ChunkOutput::Chunks);
                prop_assert_eq!(again, Ok((out.clone(), out.len(), true)));
            }
        }
    }
}
