//! How long a plan takes, about: what each move costs beside its bytes, and how many go at once.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use pgbraid_instance::{MoveOutcome, MoveRecord};

use crate::{MoveSettings, PlannedMove};

/// A table of fewer bytes says what a move costs beside its bytes; one of more, how fast bytes are.
const SMALL: u64 = 4 << 20;
/// Bytes a second as long as nothing was measured.
const ASSUMED_RATE: u64 = 32 << 20;
/// What a move costs beside its bytes, as long as nothing was measured: slot, workers, cut-over.
const ASSUMED_EACH: Duration = Duration::from_secs(4);

/// How fast moves were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second, over the large tables that were moved, if there were any.
    pub bytes_per_second: Option<u64>,
    /// Median of what a small table took.
    pub each: Option<Duration>,
}

impl Pace {
    /// Of moves that have ended.
    pub(crate) fn of(ended: &[MoveRecord]) -> Self {
        let done = || {
            let done = |one: &&MoveRecord| one.outcome == Some(MoveOutcome::Done);
            ended.iter().filter(done)
        };
        let mut small: Vec<Duration> = done()
            .filter(|one| one.bytes < SMALL)
            .filter_map(|one| one.took)
            .collect();
        small.sort_unstable();
        let large = done().filter(|one| one.bytes >= SMALL && one.copy_ms > 0);
        let (bytes, ms) = large.fold((0_u64, 0_u64), |(bytes, ms), one| {
            (bytes.saturating_add(one.bytes), ms + one.copy_ms)
        });
        Self {
            bytes_per_second: (ms > 0).then(|| bytes.saturating_mul(1000) / ms),
            each: small.get(small.len() / 2).copied(),
        }
    }

    fn of_bytes(&self, bytes: u64) -> Duration {
        let rate = self.bytes_per_second.unwrap_or(ASSUMED_RATE).max(1);
        self.each.unwrap_or(ASSUMED_EACH) + Duration::from_secs_f64(bytes as f64 / rate as f64)
    }
}

/// Seconds until the last of these moves is done, begun in their order within the limits, as
/// `carry_all` begins them.
pub(crate) fn seconds(moves: &[PlannedMove], settings: &MoveSettings, pace: Pace) -> u64 {
    let mut waiting: Vec<&PlannedMove> = moves.iter().collect();
    let mut busy: BTreeMap<&str, usize> = BTreeMap::new();
    let mut running: BinaryHeap<Reverse<(Duration, &str, &str)>> = BinaryHeap::new();
    let mut now = Duration::ZERO;
    loop {
        waiting.retain(|one| {
            let of = |name: &str| busy.get(name).copied().unwrap_or(0);
            let (from, to) = (one.from.as_str(), one.to.as_str());
            let per_instance = settings.per_instance.max(1);
            if running.len() >= settings.at_once.max(1)
                || of(from) >= per_instance
                || of(to) >= per_instance
            {
                return true;
            }
            *busy.entry(from).or_default() += 1;
            *busy.entry(to).or_default() += 1;
            running.push(Reverse((now + pace.of_bytes(one.bytes), from, to)));
            false
        });
        let Some(Reverse((end, from, to))) = running.pop() else {
            break;
        };
        now = end;
        for name in [from, to] {
            if let Some(count) = busy.get_mut(name) {
                *count -= 1;
            }
        }
    }
    let bytes: u64 = moves.iter().map(|one| one.bytes).sum();
    let limit = settings.bytes_per_second.filter(|rate| *rate > 0);
    let at_least = limit.map_or(0, |rate| bytes / rate);
    (now.as_secs_f64().ceil() as u64).max(at_least)
}

#[cfg(test)]
mod tests;
