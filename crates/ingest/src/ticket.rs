//! Counts a request's rows until each is committed or refused.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use pgbraid_feed::Refusal;
use tokio::time::Instant;

use crate::{Code, Outcome, RowRefusal, Signal, budget::Reservation};

/// A request in flight. Its rows are numbered as in its lot, or as in the request where the lot holds
/// several requests; answers name them as the request did.
pub(crate) struct Ticket {
    /// Number in the request of each row as it is numbered here; empty: the same.
    origin: Vec<u32>,
    pub deadline: Instant,
    /// How many rows are numbered here.
    numbered: u32,
    resolved: Box<[AtomicU64]>,
    remaining: AtomicU32,
    /// Rows of the request, those refused at the edge included.
    rows: u64,
    /// Refused at the edge.
    invalid: Vec<Refusal>,
    refused: Mutex<Vec<RowRefusal>>,
    signal: Signal,
    /// Given back when the last queue lets go of the request.
    _memory: Reservation,
}

impl Ticket {
    /// Of a request whose rows that were not refused have new numbers: those of `origin`.
    pub fn arranged(
        origin: Vec<u32>,
        invalid: Vec<Refusal>,
        deadline: Instant,
        signal: Signal,
        memory: Reservation,
    ) -> Self {
        let numbered = origin.len() as u32;
        Self {
            origin,
            deadline,
            numbered,
            resolved: (0..numbered.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            remaining: AtomicU32::new(numbered),
            rows: u64::from(numbered) + invalid.len() as u64,
            refused: Mutex::new((invalid.iter().cloned()).map(RowRefusal::invalid).collect()),
            invalid,
            signal,
            _memory: memory,
        }
    }

    /// Of a request of so many rows, which keep their numbers.
    pub fn unarranged(
        rows: u32,
        invalid: Vec<Refusal>,
        deadline: Instant,
        signal: Signal,
        memory: Reservation,
    ) -> Self {
        let ticket = Self {
            numbered: rows,
            resolved: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            ..Self::arranged(Vec::new(), invalid, deadline, signal, memory)
        };
        let refused = (ticket.invalid.iter())
            .filter(|refusal| ticket.mark(refusal.row))
            .count() as u32;
        Self {
            remaining: AtomicU32::new(rows - refused),
            rows: u64::from(rows - refused) + ticket.invalid.len() as u64,
            ..ticket
        }
    }

    /// Number in the request of a row.
    fn origin(&self, row: u32) -> u32 {
        self.origin.get(row as usize).copied().unwrap_or(row)
    }

    /// Marks a row; false if it was marked before.
    #[inline]
    pub fn mark(&self, row: u32) -> bool {
        let bit = 1 << (row % 64);
        self.resolved[row as usize / 64].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Marks rows that lie side by side; returns how many were not marked before. To be counted
    /// with [`Self::committed`] afterwards.
    pub fn mark_range(&self, start: u32, end: u32) -> u32 {
        (words(start, end))
            .map(|(word, bits)| {
                let before = self.resolved[word].fetch_or(bits, Ordering::AcqRel);
                (bits & !before).count_ones()
            })
            .sum()
    }

    /// Whether all rows of a range have their answers.
    pub fn are_resolved(&self, start: u32, end: u32) -> bool {
        words(start, end)
            .all(|(word, bits)| self.resolved[word].load(Ordering::Acquire) & bits == bits)
    }

    /// Calls back with the rows of a range that have no answer, by their numbers.
    pub fn each_open(&self, start: u32, end: u32, mut row: impl FnMut(u32)) {
        for (word, bits) in words(start, end) {
            let mut open = bits & !self.resolved[word].load(Ordering::Acquire);
            while open != 0 {
                row(word as u32 * 64 + open.trailing_zeros());
                open &= open - 1;
            }
        }
    }

    /// Whether the row has its answer already.
    #[inline]
    pub fn is_resolved(&self, row: u32) -> bool {
        self.resolved[row as usize / 64].load(Ordering::Acquire) & (1 << (row % 64)) != 0
    }

    /// Whether every row has its answer.
    pub fn is_done(&self) -> bool {
        self.remaining.load(Ordering::Acquire) == 0
    }

    /// So many rows were marked as committed.
    pub fn committed(&self, rows: u32) {
        if rows > 0 {
            self.count_down(rows);
        }
    }

    /// The row is refused. False if it had its answer already.
    pub fn refuse(&self, row: u32, mut refusal: RowRefusal) -> bool {
        refusal.refusal.row = self.origin(row);
        // The lock is held over the mark, so that whoever sees the row resolved finds its refusal.
        let mut refused = self.refused.lock();
        let first = self.mark(row);
        if first {
            refused.push(refusal);
            drop(refused);
            self.count_down(1);
        }
        first
    }

    #[inline]
    fn count_down(&self, rows: u32) {
        let left = self.remaining.fetch_sub(rows, Ordering::AcqRel) - rows;
        self.signal.give(left == 0);
    }

    /// Refuses what has no answer yet.
    pub fn expire(&self, reason: &'static str, message: &str, retry_after: Duration) -> u64 {
        (0..self.numbered)
            .filter(|row| {
                !self.is_resolved(*row)
                    && self.refuse(
                        *row,
                        RowRefusal::again(
                            Code::Unavailable,
                            reason,
                            message.to_owned(),
                            retry_after,
                        ),
                    )
            })
            .count() as u64
    }

    /// How many rows have no answer yet.
    pub fn left(&self) -> u32 {
        self.remaining.load(Ordering::Acquire)
    }

    /// Waits until every row has its answer.
    pub async fn wait(&self) {
        self.signal.until(|| self.is_done()).await;
    }

    /// What became of the rows; meaningful once [`Self::is_done`].
    pub fn outcome(&self) -> Outcome {
        let mut refused = std::mem::take(&mut *self.refused.lock());
        refused.sort_by_key(|refusal| refusal.refusal.row);
        Outcome {
            committed: self.rows - refused.len() as u64,
            refused,
        }
    }

    /// Calls `answer` for each row that has had its answer since the last call with the same
    /// `told`, by its number in the request; `told` begins empty.
    pub fn news(&self, told: &mut Vec<u64>, mut answer: impl FnMut(u32, Option<&RowRefusal>)) {
        if told.is_empty() {
            // The extra word says that rows refused at the edge were told of.
            told.resize(self.resolved.len() + 1, 0);
            for refusal in &self.invalid {
                answer(refusal.row, Some(&RowRefusal::invalid(refusal.clone())));
                if self.origin.is_empty() {
                    told[refusal.row as usize / 64] |= 1 << (refusal.row % 64);
                }
            }
        }
        let mut refused = None;
        for (word, told) in told[..self.resolved.len()].iter_mut().enumerate() {
            let mut new = self.resolved[word].load(Ordering::Acquire) & !*told;
            *told |= new;
            while new != 0 {
                let row = self.origin(word as u32 * 64 + new.trailing_zeros());
                new &= new - 1;
                let refused = refused.get_or_insert_with(|| self.refused.lock());
                answer(
                    row,
                    refused.iter().find(|refusal| refusal.refusal.row == row),
                );
            }
        }
    }
}

/// The words of a bitmap that a range of rows touches, with the range's bits in each.
fn words(start: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    let last = if start < end { end.div_ceil(64) } else { 0 };
    (start / 64..last).map(move |word| {
        let from = start.saturating_sub(word * 64);
        let to = (end - word * 64).min(64);
        let bits = (u64::MAX >> (64 - (to - from))) << from;
        (word as usize, bits)
    })
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_cover_a_range_exactly() {
        for start in 0..140 {
            for end in start..200 {
                let mut bits = 0;
                for (word, mask) in words(start, end) {
                    for bit in 0..64 {
                        let row = word as u32 * 64 + bit;
                        let inside = (start..end).contains(&row);
                        assert_eq!(mask >> bit & 1 == 1, inside, "{start}..{end} {row}");
                    }
                    bits += mask.count_ones();
                }
                assert_eq!(bits, end - start);
            }
        }
    }
}
