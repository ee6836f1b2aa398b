//! Numbers of bytes as people write them: `64KiB`, `1MiB`.
#![forbid(unsafe_code)]

/// Units, largest first. Those of 1000 are left out: who writes `64KB` means one or the other.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    #[error("is negative")]
    Negative,
    #[error("has no unit; write B, KiB, MiB or GiB after the number")]
    NoUnit,
    #[error("has an unknown unit; use B, KiB, MiB or GiB")]
    UnknownUnit,
    #[error("is no size; write one such as 64KiB or 1MiB")]
    NotOne,
    #[error("is too large")]
    TooLarge,
}

/// Reads one whole number with its unit.
pub(crate) fn parse_size(text: &str) -> Result<u64, BadSize> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(BadSize::Negative);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with('.') {
        return Err(BadSize::NotOne);
    }
    if unit.is_empty() {
        return Err(BadSize::NoUnit);
    }
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, bytes) = known.ok_or(BadSize::UnknownUnit)?;
    let number = number.parse::<u64>().ok();
    number.and_then(|number| number.checked_mul(*bytes)).ok_or(BadSize::TooLarge)
}

/// In its largest whole unit.
pub(crate) fn spell_size(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit) && bytes > 0);
    let (name, unit) = whole.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_every_unit_are_spelled_as_they_are_read() {
        for (text, bytes) in
            [("0B", 0), ("1000B", 1000), ("64KiB", 65_536), ("1MiB", 1 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(spell_size(bytes), text);
        }
        assert_eq!(spell_size(1024), "1KiB");
        assert_eq!(parse_size(" 1KiB "), Ok(1024));
    }

    #[test]
    fn f3_bad_sizes_say_why() {
        for (text, why) in [
            ("-1KiB", BadSize::Negative),
            ("64", BadSize::NoUnit),
            ("64KB", BadSize::UnknownUnit),
            ("64k", BadSize::UnknownUnit),
            ("1KiB1", BadSize::UnknownUnit),
            ("1.5MiB", BadSize::NotOne),
            ("KiB", BadSize::NotOne),
            ("", BadSize::NotOne),
            ("99999999999999999999B", BadSize::TooLarge),
            ("18446744073709551615KiB", BadSize::TooLarge),
        ] {
            assert_eq!(parse_size(text), Err(why), "{text}");
        }
    }
}
