//! The queue of one table.

use std::{collections::VecDeque, sync::Arc};

use pgbraid_shardmap::{FeedName, InstanceName, TableId};
use tokio::time::Instant;

use crate::{RowRefusal, lot::Lot};

/// A table of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableRef {
    pub feed: FeedName,
    pub table: TableId,
}

/// Rows of one lot for one table.
pub(crate) struct Segment {
    pub lot: Arc<Lot>,
    pub rows: Rows,
    pub queued: Instant,
}

#[derive(Clone)]
pub(crate) enum Rows {
    /// Rows that lie side by side in the lot's block.
    Range(u32, u32),
    /// Rows that came back.
    List(Vec<u32>),
}

impl Rows {
    /// Calls back with each row.
    pub fn each(&self, row: impl FnMut(u32)) {
        match self {
            Self::Range(start, end) => (*start..*end).for_each(row),
            Self::List(rows) => rows.iter().copied().for_each(row),
        }
    }
}

impl Segment {
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Range(start, end) => (end - start) as usize,
            Rows::List(rows) => rows.len(),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.len() as u64 * self.lot.row_bytes
    }

    fn each(&self, row: impl FnMut(u32)) {
        self.rows.each(row);
    }

    /// Cuts off the first `rows` rows.
    fn split(&mut self, rows: usize) -> Segment {
        let head = match &mut self.rows {
            Rows::Range(start, _) => {
                let cut = *start + rows as u32;
                let head = Rows::Range(*start, cut);
                *start = cut;
                head
            }
            Rows::List(list) => {
                let tail = list.split_off(rows);
                Rows::List(std::mem::replace(list, tail))
            }
        };
        Segment {
            lot: self.lot.clone(),
            rows: head,
            queued: self.queued,
        }
    }

    /// Its rows that have no answer yet and still have time.
    fn open_rows(&self, now: Instant) -> Vec<u32> {
        let mut rows = Vec::new();
        self.each(|row| {
            if !self.lot.is_over(row, now) {
                rows.push(row);
            }
        });
        rows
    }

    /// What of it has no answer yet and still has time. Looks at each row.
    pub fn rest(self, now: Instant) -> Option<Segment> {
        if self.lot.is_all_over(now) {
            return None;
        }
        if let Rows::Range(start, end) = self.rows
            && self.lot.are_resolved(start, end)
        {
            return None;
        }
        let rows = self.open_rows(now);
        (!rows.is_empty()).then_some(Segment {
            rows: Rows::List(rows),
            ..self
        })
    }

    /// What of it is to be written: its rows, but for those whose time is over.
    pub fn wanted(&self, now: Instant) -> Option<Rows> {
        if self.lot.is_all_over(now) {
            return None;
        }
        if self.lot.deadline > now {
            return Some(self.rows.clone());
        }
        let rows = self.open_rows(now);
        (!rows.is_empty()).then_some(Rows::List(rows))
    }

    /// Drops rows whose time is over. False if there are no others.
    fn sweep(&mut self, now: Instant) -> bool {
        let wanted = self.wanted(now);
        let any = wanted.is_some();
        if let Some(rows) = wanted {
            self.rows = rows;
        }
        any
    }

    /// Refuses its rows.
    pub fn refuse(&self, refusal: impl Fn() -> RowRefusal) {
        self.each(|row| {
            self.lot.refuse(row, refusal());
        });
    }

    /// No deadline of its rows that are after `now` is before this.
    fn next_deadline(&self, now: Instant) -> Instant {
        if self.lot.deadline > now {
            return self.lot.deadline;
        }
        let mut next = None;
        self.each(|row| {
            let deadline = self.lot.deadline_of(row);
            next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
        });
        next.unwrap_or(now)
    }
}

/// Room that an empty queue keeps, in segments.
const KEPT: usize = 16;

/// Rows that wait for one table, in order of arrival.
pub(crate) struct TableQueue {
    pub table: TableRef,
    segments: VecDeque<Segment>,
    rows: usize,
    bytes: u64,
    /// No deadline of a row is before this.
    first_deadline: Option<Instant>,
    /// A batch of this table is being written.
    pub busy: bool,
    /// The table is in the last step of a move, or nobody is known to own it.
    pub held: bool,
    /// The table belongs to another instance now: its rows go there when the batch is back.
    pub away: Option<InstanceName>,
}

impl TableQueue {
    pub fn new(table: TableRef) -> Self {
        Self {
            table,
            segments: VecDeque::new(),
            rows: 0,
            bytes: 0,
            first_deadline: None,
            busy: false,
            held: false,
            away: None,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// When the first row was queued.
    pub fn oldest(&self) -> Option<Instant> {
        self.segments.front().map(|segment| segment.queued)
    }

    /// Whether a writer may take rows of it.
    pub fn ready(&self) -> bool {
        self.rows > 0 && !self.busy && !self.held && self.away.is_none()
    }

    fn count(&mut self, segment: &Segment) {
        self.rows += segment.len();
        self.bytes += segment.bytes();
        let deadline = segment.lot.deadline;
        self.first_deadline = Some(match self.first_deadline {
            Some(first) => first.min(deadline),
            None => deadline,
        });
    }

    pub fn push(&mut self, segment: Segment) {
        self.count(&segment);
        self.segments.push_back(segment);
    }

    /// Puts rows back before all others; `segments` in their order.
    pub fn push_front(&mut self, segments: impl DoubleEndedIterator<Item = Segment>) {
        for segment in segments.rev() {
            self.count(&segment);
            self.segments.push_front(segment);
        }
    }

    /// Takes up to `limit` rows off the front, all of one state of the feed's schema, which is
    /// that of the first of `taken` if there is one. Returns the number of rows.
    pub fn take(&mut self, limit: usize, taken: &mut Vec<Segment>) -> usize {
        let mut left = limit;
        while left > 0
            && let Some(front) = self.segments.front_mut()
        {
            let schema = &front.lot.block.schema;
            if taken
                .first()
                .is_some_and(|first| !Arc::ptr_eq(&first.lot.block.schema, schema))
            {
                break;
            }
            let segment = if front.len() > left {
                front.split(left)
            } else {
                match self.segments.pop_front() {
                    Some(segment) => segment,
                    None => break,
                }
            };
            left -= segment.len();
            self.rows -= segment.len();
            self.bytes -= segment.bytes();
            taken.push(segment);
        }
        if self.segments.is_empty() {
            self.first_deadline = None;
        }
        limit - left
    }

    /// Drops rows whose time is over. Returns the bytes let go.
    pub fn sweep(&mut self, now: Instant) -> u64 {
        if self.segments.is_empty() && self.segments.capacity() > KEPT {
            self.segments.shrink_to(KEPT);
        }
        if self.first_deadline.is_none_or(|first| first > now) {
            return 0;
        }
        let before = self.bytes;
        self.segments.retain_mut(|segment| segment.sweep(now));
        self.rows = self.segments.iter().map(Segment::len).sum();
        self.bytes = self.segments.iter().map(Segment::bytes).sum();
        self.first_deadline = (self.segments.iter())
            .map(|segment| segment.next_deadline(now))
            .min();
        before - self.bytes
    }

    /// Everything, for another instance's queue.
    pub fn drain(&mut self) -> Vec<Segment> {
        self.rows = 0;
        self.bytes = 0;
        self.first_deadline = None;
        self.segments.drain(..).collect()
    }
}
