//! The id of an access line.
#![forbid(unsafe_code)]

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// 16 hexadecimal digits: 24 bits drawn at the start of the process, then a counter of 40 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineId([u8; 16]);

/// Bits that count; a million lines a second take twelve days to use them up.
const COUNTER_BITS: u32 = 40;

impl LineId {
    pub(super) fn new(count: u64) -> Self {
        let number = (process_prefix() << COUNTER_BITS) | (count & ((1 << COUNTER_BITS) - 1));
        let mut digits = [0; 16];
        for (at, digit) in digits.iter_mut().enumerate() {
            let nibble = (number >> (60 - 4 * at)) & 0xf;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        Self(digits)
    }

    pub(super) fn as_str(&self) -> &str {
        // Hexadecimal digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for LineId {
    fn default() -> Self {
        Self(*b"0000000000000000")
    }
}

/// Tells the lines of one process from those of the next; the standard library's hasher is seeded
/// by the kernel.
fn process_prefix() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    *START.get_or_init(|| RandomState::new().hash_one("tailrace") >> COUNTER_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_16_digits() {
        let (first, second) = (LineId::new(1), LineId::new(2));
        assert_ne!(first.as_str(), second.as_str());
        assert_eq!(first.as_str()[..6], second.as_str()[..6]);
        assert!(first.as_str().ends_with("0000000001"));
        assert!(first.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
