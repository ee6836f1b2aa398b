//! A value for each label, found without a search.
#![forbid(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use super::LabelValue;

/// One `T` for each value of a closed list, found without a search.
#[derive(Debug)]
pub struct PerLabel<L, T> {
    values: Box<[T]>,
    labels: PhantomData<fn(L)>,
}

impl<L: LabelValue, T> PerLabel<L, T> {
    /// Makes the value of each label.
    pub fn from_fn(make: impl FnMut(L) -> T) -> Self {
        Self { values: L::ALL.iter().copied().map(make).collect(), labels: PhantomData }
    }

    /// Each label with its value, in the order of the declaration.
    pub fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        L::ALL.iter().copied().zip(&self.values)
    }
}

impl<L: LabelValue, T> Index<L> for PerLabel<L, T> {
    type Output = T;

    fn index(&self, label: L) -> &T {
        &self.values[label.index()]
    }
}

impl<L: LabelValue, T> IndexMut<L> for PerLabel<L, T> {
    fn index_mut(&mut self, label: L) -> &mut T {
        &mut self.values[label.index()]
    }
}
