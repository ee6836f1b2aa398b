//! Durations as people write them: `200ms`, `7s`, `1h30m`.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Longest duration taken: far beyond any use, far below what overflows a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDuration {
    #[error("is negative")]
    Negative,
    #[error("has no unit; write ms, s, m, h or d after the number")]
    NoUnit,
    #[error("has an unknown unit; use ms, s, m, h or d")]
    UnknownUnit,
    #[error("is no duration; write one such as 200ms, 7s or 1h")]
    NotOne,
    #[error("is too long; the longest is 365d")]
    TooLong,
}

/// Reads one or more whole numbers, each with its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err(BadDuration::Negative);
    }
    let mut total = Duration::ZERO;
    loop {
        let (part, after) = parse_piece(rest)?;
        total = total.checked_add(part).filter(|t| *t <= LONGEST).ok_or(BadDuration::TooLong)?;
        rest = after;
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

/// The first `7s` of a text and what follows it.
fn parse_piece(text: &str) -> Result<(Duration, &str), BadDuration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(BadDuration::NotOne);
    }
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if rest.is_empty() => return Err(BadDuration::NoUnit),
        "" => return Err(BadDuration::NotOne),
        _ => return Err(BadDuration::UnknownUnit),
    };
    let number: u64 = number.parse().map_err(|_| BadDuration::TooLong)?;
    let millis = number.checked_mul(millis).ok_or(BadDuration::TooLong)?;
    Ok((Duration::from_millis(millis), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_every_unit() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("365d"), Ok(LONGEST));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn f3_bad_durations_say_why() {
        assert_eq!(parse_duration("-1s"), Err(BadDuration::Negative));
        assert_eq!(parse_duration("10"), Err(BadDuration::NoUnit));
        assert_eq!(parse_duration("1w"), Err(BadDuration::UnknownUnit));
        assert_eq!(parse_duration("1.5s"), Err(BadDuration::NotOne));
        assert_eq!(parse_duration(""), Err(BadDuration::NotOne));
        assert_eq!(parse_duration("99999999999999999999s"), Err(BadDuration::TooLong));
        assert_eq!(parse_duration("18446744073709551615h"), Err(BadDuration::TooLong));
        assert_eq!(parse_duration("366d"), Err(BadDuration::TooLong));
    }
}
