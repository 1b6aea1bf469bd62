//! Numbers that are the same in every run.

/// SplitMix64 (Steele, Lea, Flood 2014): two multiplications a number.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number less than the bound, by multiplication in place of a division.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }
}

/// A permutation of the numbers of so many bits: its finalizer, cut to them.
pub fn scatter(number: u64, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let half = bits.div_ceil(2);
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15) & mask;
    z = (z ^ (z >> half)).wrapping_mul(0xBF58_476D_1CE4_E5B9) & mask;
    z = (z ^ (z >> half)).wrapping_mul(0x94D0_49BB_1331_11EB) & mask;
    z ^ (z >> half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_numbers_are_a_permutation() {
        for bits in [1, 7, 16] {
            let mut numbers: Vec<u64> = (0..1 << bits).map(|n| scatter(n, bits)).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..1 << bits));
        }
    }
}
