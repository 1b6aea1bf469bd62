//! Sorts the rows of one table by keys that are numbers.
//!
//! The usual batch: thousands of rows of one table, whose keys lie in a small part of what an int8
//! can be. A row then is one number, the key's distance from the smallest above the row's position,
//! of which only the bits that the distances have are looked at.

/// So many bits of a key are looked at in a pass: their counters fit into the processor's first
/// cache.
const MOST_BITS: u32 = 12;

/// From so many rows on, passes cost less than comparing.
const ROWS: usize = 128;

/// Rows by key. Each is its key's distance from the smallest, and its position in the lower bits.
pub(super) struct Numbered {
    entries: Vec<u64>,
    /// The smallest key.
    least: u64,
    /// Bits of a position.
    position_bits: u32,
    /// Bits of a distance.
    key_bits: u32,
}

impl Numbered {
    /// Of the keys of rows in the order of arrival. None: they lie too far from each other.
    pub fn new(mut keys: Vec<u64>) -> Option<Self> {
        let (mut least, mut greatest) = (u64::MAX, 0);
        for key in &keys {
            least = least.min(*key);
            greatest = greatest.max(*key);
        }
        let key_bits = u64::BITS - greatest.saturating_sub(least).leading_zeros();
        let position_bits = usize::BITS - keys.len().leading_zeros();
        if key_bits + position_bits > u64::BITS {
            return None;
        }
        for (position, key) in (0..).zip(&mut keys) {
            *key = (*key - least) << position_bits | position;
        }
        Some(Self {
            entries: keys,
            least,
            position_bits,
            key_bits,
        })
    }

    /// In the order of keys; rows of one key in the order of arrival.
    pub fn sorted(mut self) -> Self {
        let rows = self.entries.len();
        // Each pass goes over its counters too.
        let most_bits = MOST_BITS.min(rows.max(1).ilog2());
        let passes = self.key_bits.div_ceil(most_bits.max(1));
        if rows < ROWS || passes > rows.ilog2() / 2 {
            self.entries.sort_unstable();
            return self;
        }
        let bits = self.key_bits.div_ceil(passes.max(1));
        let mut to = vec![0; rows];
        let mut next = Vec::with_capacity(1 << bits);
        for pass in 0..passes {
            let shift = self.position_bits + pass * bits;
            next.clear();
            next.resize(1 << bits, 0);
            scatter(&self.entries, &mut to, shift, &mut next);
            std::mem::swap(&mut self.entries, &mut to);
        }
        self
    }

    pub fn entries(&self) -> &[u64] {
        &self.entries
    }

    /// The key of an entry.
    #[inline]
    pub fn key(&self, entry: u64) -> u64 {
        self.least + (entry >> self.position_bits)
    }

    /// The keys of the entries.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| self.key(*entry))
    }

    #[inline]
    pub fn position(&self, entry: u64) -> usize {
        (entry & !(u64::MAX << self.position_bits)) as usize
    }

    /// Whether no key stands twice; of sorted rows.
    pub fn are_distinct(&self) -> bool {
        let pairs = self.entries.iter().zip(self.entries.iter().skip(1));
        // Without a way out in the middle, so that several are compared at once.
        !pairs.fold(false, |any, (a, b)| {
            any | ((a ^ b) >> self.position_bits == 0)
        })
    }

    /// Rows of one key each; of sorted rows.
    pub fn groups(&self) -> impl Iterator<Item = &[u64]> {
        (self.entries).chunk_by(|a, b| (a ^ b) >> self.position_bits == 0)
    }
}

/// One pass: by the bits above `shift` for which there are counters, keeping the order of equal
/// ones.
fn scatter(from: &[u64], to: &mut [u64], shift: u32, next: &mut [u32]) {
    let mask = next.len() - 1;
    let digit = |entry: u64| (entry >> shift) as usize & mask;
    for entry in from {
        next[digit(*entry)] += 1;
    }
    let mut start = 0;
    for count in next.iter_mut() {
        start += std::mem::replace(count, start);
    }
    for entry in from {
        let place = &mut next[digit(*entry)];
        to[*place as usize] = *entry;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_in_the_order_of_keys_and_of_arrival(
            keys in prop::collection::vec(any::<u64>(), 1..600),
            bits in 0u32..64, shift in 0u32..63, base in any::<u64>(),
        ) {
            let mask = (u64::MAX >> (63 - bits)) >> shift;
            let keys: Vec<u64> = keys.iter().map(|key| (base >> 1) + (key & mask) / 2).collect();
            let mut expected: Vec<(u64, usize)> = keys.iter().copied().zip(0..).collect();
            expected.sort_unstable();
            match Numbered::new(keys.clone()) {
                Some(numbered) => {
                    let sorted = numbered.sorted();
                    let positions: Vec<usize> =
                        sorted.entries().iter().map(|entry| sorted.position(*entry)).collect();
                    prop_assert!(expected.iter().map(|(_, at)| *at).eq(positions));
                    prop_assert!(expected.iter().map(|(key, _)| *key).eq(sorted.keys()));
                    let mut distinct = keys.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    prop_assert_eq!(sorted.are_distinct(), distinct.len() == keys.len());
                    prop_assert_eq!(sorted.groups().count(), distinct.len());
                }
                None => {
                    let (first, last) = (expected[0].0, expected[expected.len() - 1].0);
                    prop_assert!(last - first >= 1 << (63 - keys.len().ilog2() - 1));
                }
            }
        }
    }
}
