//! The queue of one table.

use std::{collections::VecDeque, sync::Arc};

use pgbraid_shardmap::{FeedName, InstanceName, TableId};
use tokio::time::Instant;

use crate::ticket::Ticket;

/// A table of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableRef {
    pub feed: FeedName,
    pub table: TableId,
}

/// Rows of one request for one table.
pub(crate) struct Segment {
    pub ticket: Arc<Ticket>,
    pub rows: Rows,
    pub queued: Instant,
}

pub(crate) enum Rows {
    /// A piece of the ticket's order.
    Range(u32, u32),
    /// Rows that came back.
    List(Vec<u32>),
}

impl Segment {
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    pub fn rows(&self) -> &[u32] {
        match &self.rows {
            Rows::Range(start, end) => &self.ticket.order[*start as usize..*end as usize],
            Rows::List(rows) => rows,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.len() as u64 * self.ticket.row_bytes
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
            ticket: self.ticket.clone(),
            rows: head,
            queued: self.queued,
        }
    }
}

/// Rows that wait for one table, in order of arrival.
#[derive(Default)]
pub(crate) struct TableQueue {
    segments: VecDeque<Segment>,
    rows: usize,
    bytes: u64,
    /// A batch of this table is being written.
    pub busy: bool,
    /// The table is in the last step of a move.
    pub held: bool,
    /// The table belongs to another instance now: its rows go there when the batch is back.
    pub leaving: Option<InstanceName>,
}

impl TableQueue {
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// When the first row was queued.
    pub fn oldest(&self) -> Option<Instant> {
        self.segments.front().map(|segment| segment.queued)
    }

    /// Whether a writer may take rows of it.
    pub fn ready(&self) -> bool {
        self.rows > 0 && !self.busy && !self.held && self.leaving.is_none()
    }

    pub fn push(&mut self, segment: Segment) {
        self.rows += segment.len();
        self.bytes += segment.bytes();
        self.segments.push_back(segment);
    }

    /// Puts rows back before all others; `segments` in their order.
    pub fn push_front(&mut self, segments: Vec<Segment>) {
        for segment in segments.into_iter().rev() {
            self.rows += segment.len();
            self.bytes += segment.bytes();
            self.segments.push_front(segment);
        }
    }

    /// Takes up to `limit` rows off the front, all of one state of the feed's schema.
    pub fn take(&mut self, limit: usize) -> Vec<Segment> {
        let mut taken: Vec<Segment> = Vec::new();
        let mut left = limit;
        while left > 0
            && let Some(front) = self.segments.front_mut()
        {
            let schema = &front.ticket.block.schema;
            if taken
                .first()
                .is_some_and(|first| !Arc::ptr_eq(&first.ticket.block.schema, schema))
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
        taken
    }

    /// Drops requests that have all their answers. Returns the bytes let go.
    pub fn sweep(&mut self, now: Instant) -> u64 {
        let before = self.bytes;
        self.segments
            .retain(|segment| !segment.ticket.is_done() && segment.ticket.deadline > now);
        self.rows = self.segments.iter().map(Segment::len).sum();
        self.bytes = self.segments.iter().map(Segment::bytes).sum();
        before - self.bytes
    }

    /// Everything, for another instance's queue.
    pub fn drain(&mut self) -> Vec<Segment> {
        self.rows = 0;
        self.bytes = 0;
        self.segments.drain(..).collect()
    }
}
