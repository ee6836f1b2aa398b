//! What a mistyped word was meant to be, where one of the known words is near enough to say so.
#![forbid(unsafe_code)]

/// Most slips of a letter (left out, added, replaced, or swapped with its neighbour) between a word and what was meant.
const MAX_SLIPS: usize = 2;

/// The known word that was meant, whatever its case; none where a suggestion would be a guess: more than two slips, or
/// as many as half of the known word has letters.
pub(super) fn nearest_word<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.trim().to_ascii_lowercase();
    let slips = |one: &str| strsim::damerau_levenshtein(&word, one);
    let nearest = known.iter().copied().min_by_key(|one| slips(one))?;
    let slips = slips(nearest);
    (slips <= MAX_SLIPS && slips * 2 < nearest.len()).then_some(nearest)
}

/// The end of a message about a word that is none of the known ones: `: did you mean enforce?`, or nothing.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let nearest = nearest_word(word, known);
    nearest.map(|nearest| format!(": did you mean {nearest}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["error", "warn", "info", "off", "enforce"];
        for (word, meant) in [
            ("inof", Some("info")),
            ("of", Some("off")),
            (" WARM ", Some("warn")),
            ("enfrc", Some("enforce")),
            ("loud", None),
            ("on", None),
            ("in", None),
            ("0", None),
            ("5", None),
            (",", None),
            ("", None),
            ("enfr", None),
        ] {
            assert_eq!(nearest_word(word, &known), meant, "{word:?}");
        }
        assert_eq!(suggestion("inof", &known), ": did you mean info?");
        assert_eq!(suggestion("loud", &known), "");
        assert_eq!(nearest_word("x", &[]), None);
    }
}
