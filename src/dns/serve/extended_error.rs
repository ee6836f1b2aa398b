//! Why there is no answer, for clients that ask: Extended DNS Errors (RFC 8914).
#![forbid(unsafe_code)]

/// Bytes of a sentence: with the longest name it still fits the smallest datagram.
const LONGEST: usize = 160;

/// The code, for programs (RFC 8914 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ExtendedErrorCode {
    /// The tailnet is not up.
    NotReady = 14,
    /// Policy refuses the name.
    Blocked = 15,
    /// This client may not ask here.
    Prohibited = 18,
    /// No nameserver could say, or none could be asked.
    NoReachableAuthority = 22,
}

/// A code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedError {
    /// What programs go by.
    pub code: ExtendedErrorCode,
    /// For people; only its beginning is sent.
    pub text: String,
}

impl ExtendedError {
    /// An error of this code, explained by this sentence.
    pub fn new(code: ExtendedErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The option's data (RFC 8914 section 2).
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut end = self.text.len().min(LONGEST);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = (self.code as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.text.as_bytes()[..end]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let why = ExtendedError::new(ExtendedErrorCode::Blocked, "ü".repeat(100));
        let bytes = why.to_bytes();
        assert_eq!(bytes[..2], [0, 15]);
        assert_eq!(std::str::from_utf8(&bytes[2..]), Ok("ü".repeat(80).as_str()));
        let why = ExtendedError::new(ExtendedErrorCode::NotReady, format!("x{}", "ü".repeat(100)));
        assert_eq!(why.to_bytes().len(), 2 + 159);
    }
}
