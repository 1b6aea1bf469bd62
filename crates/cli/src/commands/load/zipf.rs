//! Ranks after Zipf's law: rank k comes with a probability proportional to 1 / k^exponent.
//!
//! Rejection-inversion (Hörmann, Derflinger, "Rejection-inversion to generate variates from
//! monotone discrete distributions", 1996): a number of the continuous distribution under the hat
//! is rounded, and rarely rejected. No table, and the same few steps for any number of ranks.

use super::random::SplitMix;

pub struct Zipf {
    ranks: u64,
    exponent: f64,
    /// The hat's integral from 1.5, less the first rank's own share, and to the last rank.
    low: f64,
    high: f64,
    /// So close to the rounded rank nothing is rejected.
    sure: f64,
}

impl Zipf {
    /// `exponent` is more than 0, `ranks` at least 1.
    pub fn new(ranks: u64, exponent: f64) -> Self {
        let mut zipf = Self {
            ranks,
            exponent,
            low: 0.0,
            high: 0.0,
            sure: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(ranks as f64 + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// From 1.
    pub fn rank(&self, random: &mut SplitMix) -> u64 {
        loop {
            let area = self.high + random.unit() * (self.low - self.high);
            let x = self.inverse(area);
            let rank = (x.round() as u64).clamp(1, self.ranks);
            let near = rank as f64;
            if near - x <= self.sure || area >= self.integral(near + 0.5) - self.weight(near) {
                return rank;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// Of `weight`, from 1: (x^(1-s) - 1) / (1-s), or ln x where s is 1.
    fn integral(&self, x: f64) -> f64 {
        let ln = x.ln();
        let power = (1.0 - self.exponent) * ln;
        let slope = if power.abs() > 1e-8 {
            power.exp_m1() / power
        } else {
            1.0 + power / 2.0
        };
        slope * ln
    }

    fn inverse(&self, area: f64) -> f64 {
        // Less than -1 only by rounding.
        let power = (area * (1.0 - self.exponent)).max(-1.0);
        let slope = if power.abs() > 1e-8 {
            power.ln_1p() / power
        } else {
            1.0 - power / 2.0
        };
        (slope * area).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_they_should() {
        const DRAWS: u32 = 200_000;
        for (ranks, exponent) in [(1, 0.99), (2, 0.5), (50, 0.99), (50, 1.0), (1000, 2.5)] {
            let zipf = Zipf::new(ranks, exponent);
            let mut random = SplitMix::new(7);
            let mut seen = vec![0u32; ranks as usize];
            for _ in 0..DRAWS {
                seen[zipf.rank(&mut random) as usize - 1] += 1;
            }
            let weight = |rank: u64| (rank as f64).powf(-exponent);
            let all: f64 = (1..=ranks).map(weight).sum();
            for (rank, seen) in (1..=ranks).zip(seen) {
                let wanted = weight(rank) / all * f64::from(DRAWS);
                let off = (f64::from(seen) - wanted).abs();
                // Five standard deviations of a count, and one.
                assert!(
                    off <= 5.0 * wanted.sqrt() + 1.0,
                    "{ranks} {exponent}: rank {rank} {seen} times, not {wanted}"
                );
            }
        }
    }

    #[test]
    fn the_largest_space_has_no_end_that_is_reached_wrongly() {
        let zipf = Zipf::new(1 << 62, 0.01);
        let mut random = SplitMix::new(1);
        assert!((0..10_000).all(|_| (1..=1 << 62).contains(&zipf.rank(&mut random))));
    }
}
