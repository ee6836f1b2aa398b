//! Taking an answer's body out of its framing, piece by piece (RFC 9112 section 6). Pure: bytes in, bytes out.
#![forbid(unsafe_code)]

use super::response_head::BodyFraming;

/// Longest line before a chunk, its size and extensions, in bytes.
const MAX_CHUNK_LINE: usize = 1024;

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFramingError {
    /// Bytes where a chunk's size or end should be.
    #[error("its chunks are none")]
    BadChunk,
    /// More than the caller takes.
    #[error("its answer is longer than {limit} bytes")]
    TooLarge {
        /// What the caller takes, in bytes.
        limit: usize,
    },
}

/// What a body still has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyDecoder {
    /// So many bytes.
    Length(u64),
    /// A chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    ChunkData(u64),
    /// The CRLF behind a chunk.
    ChunkEnd,
    /// Whatever comes.
    UntilClose,
    /// Nothing; trailers are not read, since nothing else is asked over the connection.
    Complete,
}

impl BodyDecoder {
    pub(super) fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::Length(0) => Self::Complete,
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::ChunkSize,
            BodyFraming::UntilClose => Self::UntilClose,
        }
    }

    /// Appends to `body` what `input` holds of it, as long as that is within `limit`. How many bytes of `input`
    /// are used up; the rest is to come again with more behind it.
    ///
    /// # Errors
    /// [`BodyFramingError`].
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<usize, BodyFramingError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match *self {
                Self::Complete => return Ok(used),
                Self::ChunkSize => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((line, size))) => {
                        used += line;
                        *self = if size == 0 { Self::Complete } else { Self::ChunkData(size) };
                    }
                    Ok(httparse::Status::Partial) if rest.len() < MAX_CHUNK_LINE => {
                        return Ok(used);
                    }
                    _ => return Err(BodyFramingError::BadChunk),
                },
                Self::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        *self = Self::ChunkSize;
                    }
                    [] | [b'\r'] => return Ok(used),
                    _ => return Err(BodyFramingError::BadChunk),
                },
                Self::Length(_) | Self::ChunkData(_) | Self::UntilClose => {
                    if rest.is_empty() {
                        return Ok(used);
                    }
                    let data = &rest[..self.data_length(rest.len())];
                    if data.len() > limit.saturating_sub(body.len()) {
                        return Err(BodyFramingError::TooLarge { limit });
                    }
                    body.extend_from_slice(data);
                    used += data.len();
                    self.advance(data.len());
                }
            }
        }
    }

    /// Whether the body has ended.
    pub(super) fn is_complete(self) -> bool {
        self == Self::Complete
    }

    /// Whether the end of the stream is the end of the body too; if so, it has ended.
    pub(super) fn ends_with_stream(&mut self) -> bool {
        if *self == Self::UntilClose {
            *self = Self::Complete;
        }
        self.is_complete()
    }

    /// How many of `available` bytes belong to what is before us.
    fn data_length(self, available: usize) -> usize {
        match self {
            Self::Length(left) | Self::ChunkData(left) => {
                usize::try_from(left).map_or(available, |left| left.min(available))
            }
            _ => available,
        }
    }

    fn advance(&mut self, taken: usize) {
        let less = |left: u64| left.saturating_sub(taken as u64);
        *self = match *self {
            Self::Length(left) if less(left) == 0 => Self::Complete,
            Self::Length(left) => Self::Length(less(left)),
            Self::ChunkData(left) if less(left) == 0 => Self::ChunkEnd,
            Self::ChunkData(left) => Self::ChunkData(less(left)),
            other => other,
        };
    }
}
