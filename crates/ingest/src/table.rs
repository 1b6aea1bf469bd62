//! The queue of one table.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pgbraid_feed::Chunk;
use pgbraid_shardmap::{FeedName, InstanceName, TableId};
use tokio::time::Instant;

use crate::{
    RowRefusal,
    lot::{Lot, Run},
    ticket::Ticket,
};

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
        match &self.rows {
            Rows::Range(start, end) => self.lot.open_rows(*start, *end, now),
            Rows::List(rows) => (rows.iter().copied())
                .filter(|row| !self.lot.is_over(*row, now))
                .collect(),
        }
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

/// So many segments wait before further rows are appended to each other: few are read as fast as
/// they are.
const APPEND_FROM: usize = 4;

/// Segments of so many rows are read as fast as they are.
const LARGE: usize = 128;

/// Rows for which there is room at first, by how many there were before; and from which on no more
/// are appended.
const FIRST_ROOM: usize = 64;
const MOST_FIRST_ROOM: usize = 512;
const MOST_ROWS: usize = 2048;

/// Rows that are appended to each other count as the first of them in the queues' bounds. They are
/// not if that would be so much too little or too much.
const MOST_TIMES: u64 = 3;

/// The requests of rows that are appended to each other are let go of together: not if their times
/// are over so long after each other.
const DEADLINES: Duration = Duration::from_secs(2);

/// References to one request. To make one is to wait until all that was written to memory before
/// is there: they are made before its rows are appended, not in between.
pub(crate) type Tickets = Vec<Arc<Ticket>>;

/// Parts of requests, appended to each other as they came.
struct Tail {
    chunk: Chunk,
    runs: Vec<Run>,
    /// Of the first.
    queued: Instant,
    /// The first.
    deadline: Instant,
    row_bytes: u64,
}

impl Tail {
    /// Of rows like those of the lot. None: they are not all alike.
    fn like(lot: &Lot, room: usize, queued: Instant) -> Option<Self> {
        Some(Self {
            chunk: Chunk::like(&lot.block, room)?,
            runs: Vec::with_capacity(room / 16),
            queued,
            deadline: lot.deadline,
            row_bytes: lot.row_bytes,
        })
    }

    /// Appends rows of a lot of one request, of which `tickets` are; false: they are not like the
    /// others, or there is no room.
    fn append(&mut self, lot: &Lot, start: u32, end: u32, tickets: &mut Tickets) -> bool {
        if self.rows() >= MOST_ROWS || !self.counts_like(lot) || !self.chunk.takes(&lot.block) {
            return false;
        }
        let Some(ticket) = tickets.pop() else {
            return false;
        };
        self.chunk.append(&lot.block, start, end);
        self.runs.push(Run {
            ticket,
            first: start,
            end: self.chunk.rows(),
        });
        self.deadline = self.deadline.min(lot.deadline);
        true
    }

    /// Whether its rows may be counted as these, and be let go of with these.
    fn counts_like(&self, lot: &Lot) -> bool {
        lot.row_bytes <= self.row_bytes * MOST_TIMES
            && self.row_bytes <= lot.row_bytes * MOST_TIMES
            && lot.deadline <= self.deadline + DEADLINES
            && self.deadline <= lot.deadline + DEADLINES
    }

    fn rows(&self) -> usize {
        self.chunk.rows() as usize
    }

    fn into_segment(self) -> Segment {
        let block = self.chunk.finish();
        let rows = Rows::Range(0, block.rows());
        Segment {
            lot: Arc::new(Lot::runs(block, self.runs, self.deadline, self.row_bytes)),
            rows,
            queued: self.queued,
        }
    }
}

/// Rows that wait for one table, in order of arrival.
pub(crate) struct TableQueue {
    pub table: TableRef,
    segments: VecDeque<Segment>,
    /// Behind the segments.
    tail: Option<Tail>,
    /// Rows that the last tail had.
    usual: usize,
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
            tail: None,
            usual: FIRST_ROOM,
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
        let tail = self.tail.as_ref().map(|tail| tail.queued);
        (self.segments.front().map(|segment| segment.queued)).or(tail)
    }

    /// Whether a writer may take rows of it.
    pub fn ready(&self) -> bool {
        self.rows > 0 && !self.busy && !self.held && self.away.is_none()
    }

    fn count(&mut self, rows: usize, bytes: u64, deadline: Instant) {
        self.rows += rows;
        self.bytes += bytes;
        self.first_deadline = Some(match self.first_deadline {
            Some(first) => first.min(deadline),
            None => deadline,
        });
    }

    fn count_segment(&mut self, segment: &Segment) {
        self.count(segment.len(), segment.bytes(), segment.lot.deadline);
    }

    /// Adds rows of a lot; `tickets` are of its request, if it has but one. Returns the bytes that
    /// they count as.
    pub fn push_rows(
        &mut self,
        lot: &Arc<Lot>,
        (start, end): (u32, u32),
        queued: Instant,
        tickets: &mut Tickets,
    ) -> u64 {
        let rows = (end - start) as usize;
        if rows < LARGE
            && !tickets.is_empty()
            && let Some(row_bytes) = self.append(lot, (start, end), queued, tickets)
        {
            let bytes = row_bytes * rows as u64;
            self.count(rows, bytes, lot.deadline);
            return bytes;
        }
        let segment = Segment {
            lot: lot.clone(),
            rows: Rows::Range(start, end),
            queued,
        };
        let bytes = segment.bytes();
        self.push(segment);
        bytes
    }

    /// Appends rows to the others that wait, if they are so many that it is worth it. Returns
    /// what a row counts as.
    fn append(
        &mut self,
        lot: &Lot,
        (start, end): (u32, u32),
        queued: Instant,
        tickets: &mut Tickets,
    ) -> Option<u64> {
        if let Some(tail) = &mut self.tail {
            if tail.append(lot, start, end, tickets) {
                return Some(tail.row_bytes);
            }
            self.end_tail();
        } else if self.segments.len() < APPEND_FROM {
            return None;
        }
        // Where different ones come in turns, none would be appended to anything.
        if !(self.segments.back()).is_some_and(|last| last.lot.block.is_like(&lot.block)) {
            return None;
        }
        let mut tail = Tail::like(lot, self.usual, queued)?;
        let appended = (tail.append(lot, start, end, tickets)).then_some(tail.row_bytes);
        self.tail = appended.is_some().then_some(tail);
        appended
    }

    /// Makes the last rows a segment like the others.
    fn end_tail(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.usual = tail.rows().clamp(FIRST_ROOM, MOST_FIRST_ROOM);
            self.segments.push_back(tail.into_segment());
        }
    }

    pub fn push(&mut self, segment: Segment) {
        self.end_tail();
        self.count_segment(&segment);
        self.segments.push_back(segment);
    }

    /// Puts rows back before all others; `segments` in their order.
    pub fn push_front(&mut self, segments: impl DoubleEndedIterator<Item = Segment>) {
        for segment in segments.rev() {
            self.count_segment(&segment);
            self.segments.push_front(segment);
        }
    }

    /// Takes up to `limit` rows off the front, all of one state of the feed's schema, which is
    /// that of the first of `taken` if there is one. Returns the number of rows.
    pub fn take(&mut self, limit: usize, taken: &mut Vec<Segment>) -> usize {
        let mut left = limit;
        while left > 0 {
            if self.segments.is_empty() {
                self.end_tail();
            }
            let Some(front) = self.segments.front_mut() else {
                break;
            };
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
        if self.rows == 0 {
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
        self.end_tail();
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
        self.end_tail();
        self.rows = 0;
        self.bytes = 0;
        self.first_deadline = None;
        self.segments.drain(..).collect()
    }
}
