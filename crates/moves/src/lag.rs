//! How long a copy lags behind, by what was written when: bytes alone do not tell how long writers
//! would have to wait for it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Looks that are remembered; with 20 ms between them some seconds.
const LOOKS: usize = 256;

/// What a copy's source had written at the last looks.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    seen: VecDeque<(Instant, u64)>,
    looked: bool,
}

impl Lag {
    /// Notes a look, and tells for how long at least the oldest change that is not applied yet has
    /// been waiting. The first look does not know.
    pub fn behind(&mut self, now: Instant, written: u64, lag: u64) -> Option<Duration> {
        let applied = written.saturating_sub(lag);
        let seen = &mut self.seen;
        while seen.front().is_some_and(|(_, before)| *before <= applied) || seen.len() >= LOOKS {
            seen.pop_front();
        }
        seen.push_back((now, written));
        let looked = std::mem::replace(&mut self.looked, true);
        let oldest = self.seen.front().filter(|(_, before)| *before > applied);
        match oldest {
            None => Some(Duration::ZERO),
            Some((at, _)) => looked.then(|| now.saturating_duration_since(*at)),
        }
    }

    /// What was seen is of another copy.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_late_as_its_oldest_change() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ms = |ms| Some(Duration::from_millis(ms));
        let mut lag = Lag::default();
        assert_eq!(lag.behind(at(0), 100, 0), ms(0));
        assert_eq!(lag.behind(at(20), 200, 100), ms(0));
        // What was written by 20 is not there yet, nor is anything since.
        assert_eq!(lag.behind(at(40), 300, 200), ms(20));
        assert_eq!(lag.behind(at(60), 400, 250), ms(40));
        assert_eq!(lag.behind(at(80), 500, 150), ms(20));
        assert_eq!(lag.behind(at(100), 600, 0), ms(0));
        lag.forget();
        assert_eq!(lag.behind(at(120), 700, 700), None);
        assert_eq!(lag.behind(at(140), 700, 700), ms(20));
    }

    #[test]
    fn it_remembers_no_more_than_it_needs() {
        let start = Instant::now();
        let mut lag = Lag::default();
        for look in 0..10_000 {
            lag.behind(start + Duration::from_millis(look), look, look);
        }
        assert_eq!(lag.seen.len(), LOOKS);
    }
}
