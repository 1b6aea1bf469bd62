//! Which columns of a feed a row writes.

use smallvec::SmallVec;

/// A set of column positions (of [`crate::FeedSchema::columns`], the key not among them).
///
/// A row that names other columns needs another statement, so the mask is part of the key under
/// which prepared statements are kept. Up to 128 columns need no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnMask(SmallVec<[u64; 2]>);

impl ColumnMask {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column.
    pub fn insert(&mut self, column: usize) {
        let word = column / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (column % 64);
    }

    /// Whether the column is in the set.
    #[inline]
    pub fn contains(&self, column: usize) -> bool {
        self.0
            .get(column / 64)
            .is_some_and(|word| word & (1 << (column % 64)) != 0)
    }

    /// Whether no column is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Number of columns in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Adds all columns of another set.
    pub fn union(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Whether the sets share no column.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & b == 0)
    }

    /// The columns, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            (0..64).filter_map(move |bit| (bits & (1 << bit) != 0).then_some(word * 64 + bit))
        })
    }

    /// The columns that are in both sets, ascending.
    pub fn common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        self.iter().filter(|column| other.contains(*column))
    }
}

impl FromIterator<usize> for ColumnMask {
    fn from_iter<I: IntoIterator<Item = usize>>(columns: I) -> Self {
        let mut mask = Self::new();
        for column in columns {
            mask.insert(column);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(a: BTreeSet<u8>, b: BTreeSet<u8>) {
            let one: ColumnMask = a.iter().map(|c| *c as usize).collect();
            let two: ColumnMask = b.iter().map(|c| *c as usize).collect();
            prop_assert_eq!(one.len(), a.len());
            prop_assert_eq!(one.is_empty(), a.is_empty());
            prop_assert_eq!(one.is_disjoint(&two), a.is_disjoint(&b));
            let mut both = one.clone();
            both.union(&two);
            prop_assert!(both.iter().eq(a.union(&b).map(|c| *c as usize)));
            prop_assert!(one.common(&two).eq(a.intersection(&b).map(|c| *c as usize)));
        }
    }
}
