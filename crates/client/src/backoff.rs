//! Waits between attempts.

use std::time::Duration;

/// Waits between attempts: random between half of a bound and the bound, which doubles from `min`
/// to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first bound.
    pub min: Duration,
    /// The last bound.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(50),
            max: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row, from 1.
    pub fn wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let bound = self.min.saturating_mul(1 << doublings).min(self.max);
        // Many clients that lost the same router must not come back at the same moment.
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_bound() {
        let backoff = Backoff {
            min: Duration::from_millis(10),
            max: Duration::from_millis(100),
        };
        for (failures, bound) in [(1, 10), (2, 20), (4, 80), (5, 100), (u32::MAX, 100)] {
            let wait = backoff.wait(failures);
            assert!(wait <= Duration::from_millis(bound), "{failures}: {wait:?}");
            assert!(wait >= Duration::from_millis(bound / 2), "{failures}");
        }
    }
}
