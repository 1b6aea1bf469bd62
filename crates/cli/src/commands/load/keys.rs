//! Which keys are written.

use super::random::SplitMix;
use super::zipf::Zipf;

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Each for itself.
    Random,
    /// So many in a row, from anywhere; a run does not end with a request.
    Runs(u64),
    /// One after the other, over all producers together.
    Sequential,
    /// By Zipf's law with this exponent, hot keys scattered over the space.
    Zipf(f64),
}

/// The keys of one producer.
pub struct Keys {
    space: u64,
    state: State,
}

enum State {
    Random,
    Runs {
        length: u64,
        next: u64,
        left: u64,
    },
    Sequential {
        next: u64,
        left: u64,
        block: u64,
        skip: u64,
    },
    Zipf(Zipf, Scatter),
}

impl Keys {
    /// Of the producer `number` of `producers`, which takes blocks of `block` keys in turn with the
    /// others where keys are sequential.
    pub fn new(choice: Choice, space: u64, block: u64, number: u64, producers: u64) -> Self {
        let state = match choice {
            Choice::Random => State::Random,
            Choice::Runs(length) => State::Runs {
                length,
                next: 0,
                left: 0,
            },
            Choice::Sequential => State::Sequential {
                next: block * number,
                left: block,
                block,
                skip: block * (producers - 1),
            },
            Choice::Zipf(exponent) => State::Zipf(Zipf::new(space, exponent), Scatter::over(space)),
        };
        Self { space, state }
    }

    /// Adds so many keys.
    pub fn draw(&mut self, count: usize, random: &mut SplitMix, keys: &mut Vec<u64>) {
        let space = self.space;
        match &mut self.state {
            State::Random => keys.extend((0..count).map(|_| random.below(space))),
            State::Runs { length, next, left } => keys.extend((0..count).map(|_| {
                if *left == 0 {
                    (*next, *left) = (random.below(space), *length);
                }
                let key = *next;
                *left -= 1;
                *next = if key + 1 == space { 0 } else { key + 1 };
                key
            })),
            State::Sequential {
                next,
                left,
                block,
                skip,
            } => keys.extend((0..count).map(|_| {
                if *left == 0 {
                    *left = *block;
                    *next = next.wrapping_add(*skip);
                }
                let key = *next % space;
                *left -= 1;
                *next = next.wrapping_add(1);
                key
            })),
            State::Zipf(zipf, scatter) => {
                keys.extend((0..count).map(|_| scatter.key(zipf.rank(random) - 1)));
            }
        }
    }
}

/// A fixed permutation of the numbers below a bound, the same for all producers: the hottest keys
/// must not be neighbours, or they would be rows of one page.
struct Scatter {
    bound: u64,
    mask: u64,
    shift: u32,
}

impl Scatter {
    fn over(bound: u64) -> Self {
        let bits = 64 - (bound - 1).leading_zeros();
        Self {
            bound,
            mask: 1u64.checked_shl(bits).map_or(u64::MAX, |high| high - 1),
            shift: (bits / 2).max(1),
        }
    }

    fn key(&self, number: u64) -> u64 {
        // Odd multipliers and shifted xors permute the numbers of so many bits. What falls beyond
        // the bound goes round again until it is below: fewer than two rounds in the mean.
        let mut x = number;
        loop {
            x = x.wrapping_add(0x9E37_79B9_7F4A_7C15) & self.mask;
            for odd in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
                x = x.wrapping_mul(odd) & self.mask;
                x ^= x >> self.shift;
            }
            if x < self.bound {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(keys: &mut Keys, count: usize) -> Vec<u64> {
        let mut random = SplitMix::new(3);
        let mut drawn = Vec::new();
        keys.draw(count, &mut random, &mut drawn);
        drawn
    }

    #[test]
    fn keys_stay_in_their_space() {
        let choices = [
            Choice::Random,
            Choice::Runs(100),
            Choice::Sequential,
            Choice::Zipf(0.99),
        ];
        for (choice, space) in choices
            .into_iter()
            .flat_map(|c| [(c, 1), (c, 7), (c, 1000)])
        {
            let mut keys = Keys::new(choice, space, 250, 1, 2);
            let drawn = draw(&mut keys, 5000);
            assert_eq!(drawn.len(), 5000);
            assert!(drawn.iter().all(|key| *key < space), "{choice:?} {space}");
        }
    }

    #[test]
    fn runs_go_on_over_requests() {
        let mut keys = Keys::new(Choice::Runs(1000), 1 << 40, 1, 0, 1);
        let (mut random, mut drawn) = (SplitMix::new(9), Vec::new());
        for _ in 0..3000 {
            keys.draw(1, &mut random, &mut drawn);
        }
        for run in drawn.chunks(1000) {
            assert!(run.windows(2).all(|pair| pair[1] == pair[0] + 1));
        }
        assert_ne!(drawn[1000], drawn[999] + 1);
    }

    #[test]
    fn producers_share_a_sequence() {
        let mut second = Keys::new(Choice::Sequential, 1_000_000, 250, 1, 3);
        let drawn = draw(&mut second, 500);
        assert_eq!((drawn[0], drawn[249], drawn[250]), (250, 499, 1000));
    }

    #[test]
    fn scattering_leaves_no_key_out() {
        for bound in [1, 2, 3, 64, 1000, 4097] {
            let scatter = Scatter::over(bound);
            let mut seen: Vec<u64> = (0..bound).map(|number| scatter.key(number)).collect();
            let apart = seen.windows(2).filter(|two| two[0].abs_diff(two[1]) > 1);
            assert!(
                bound < 64 || apart.count() as u64 > bound * 3 / 4,
                "{bound}"
            );
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..bound), "{bound}");
        }
    }
}
