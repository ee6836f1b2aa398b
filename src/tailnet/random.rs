//! Chance, where a start or a name should not be like everybody else's.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher as _, RandomState};

/// A number drawn anew at each call, from the keys the standard library draws for its maps.
pub(super) fn random_number() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Eight letters and digits, as they may stand in a host name.
pub(super) fn random_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut number = random_number();
    (0..8)
        .map(|_| {
            let letter = LETTERS[(number % 32) as usize];
            number /= 32;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_labels() {
        let (one, other) = (random_id(), random_id());
        assert_ne!(one, other);
        assert!(one.len() == 8 && one.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
