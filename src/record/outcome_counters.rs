//! Outcomes as metrics and totals count them.
#![forbid(unsafe_code)]

use crate::outcome::Outcome;

/// Where an outcome stands in [`Outcome::ALL`].
pub(super) fn outcome_index(outcome: Outcome) -> usize {
    Outcome::ALL.iter().position(|known| *known == outcome).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_index() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome_index(outcome), at);
        }
    }
}
