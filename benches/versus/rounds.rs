//! Several rounds of figures: medians, and ratios with their spread.

use std::io;

use crate::measure::Figures;

/// The rounds of one target.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    pub(crate) id: &'static str,
    pub(crate) rounds: Vec<Figures>,
}

/// `count` turns of each of `ids`, all in one run; who comes first changes with every turn.
pub(crate) async fn in_turns<const N: usize>(
    ids: [&'static str; N],
    count: usize,
    turn: impl AsyncFn(usize) -> io::Result<Figures>,
) -> io::Result<[Rounds; N]> {
    let mut found = ids.map(|id| Rounds { id, rounds: Vec::new() });
    for round in 0..count {
        for at in (0..N).map(|at| if round % 2 == 0 { at } else { N - 1 - at }) {
            found[at].rounds.push(turn(at).await?);
        }
    }
    Ok(found)
}

/// A ratio: the median of the rounds' own, and the least and the greatest of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) middle: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Rounds {
    fn values(&self, measure: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.get(measure).copied()).collect()
    }

    pub(crate) fn median(&self, measure: &str) -> Option<f64> {
        middle(self.values(measure))
    }

    /// Round by round against `other`'s.
    pub(crate) fn ratio(&self, other: &Rounds, measure: &str) -> Option<Ratio> {
        self.ratio_of(measure, other, measure)
    }

    pub(crate) fn ratio_of(&self, measure: &str, other: &Rounds, its: &str) -> Option<Ratio> {
        let both = self.rounds.iter().zip(&other.rounds);
        let ratios = both.filter_map(|(a, b)| Some(a.get(measure)? / b.get(its)?));
        let ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
        Some(Ratio {
            least: ratios.iter().copied().min_by(f64::total_cmp)?,
            most: ratios.iter().copied().max_by(f64::total_cmp)?,
            middle: middle(ratios)?,
        })
    }
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The rounds of the target with that id.
pub(crate) fn of<'a>(all: &'a [Rounds], id: &str) -> Option<&'a Rounds> {
    all.iter().find(|rounds| rounds.id == id)
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "× {:.2}", self.middle)?;
        if self.most - self.least >= 0.005 {
            write!(f, " ({:.2}–{:.2})", self.least, self.most)?;
        }
        Ok(())
    }
}
