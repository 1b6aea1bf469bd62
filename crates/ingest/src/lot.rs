//! A block in the queues, and the requests that its rows belong to.

use std::sync::Arc;

use pgbraid_feed::{Block, RowRef};
use tokio::time::Instant;

use crate::{RowRefusal, ticket::Ticket};

/// Rows that were arranged together: those of one request, of several that came together, or those
/// of one table of several that were appended to each other. Queues share it.
pub(crate) struct Lot {
    pub block: Block,
    /// Rough bytes a row, for the queues' bounds.
    pub row_bytes: u64,
    /// No row's time is over before this.
    pub deadline: Instant,
    requests: Requests,
}

enum Requests {
    /// The block's rows are the ticket's, by the same numbers.
    One(Arc<Ticket>),
    Many {
        tickets: Vec<Arc<Ticket>>,
        /// For each row of the block its ticket, and its number there.
        origin: Vec<RowRef>,
    },
    /// By where they end.
    Runs(Vec<Run>),
}

/// Rows of one request that lie side by side in a block, and by their numbers in the ticket.
pub(crate) struct Run {
    pub ticket: Arc<Ticket>,
    /// The number of the first one.
    pub first: u32,
    /// Where they end in the block.
    pub end: u32,
}

impl Lot {
    pub fn one(block: Block, ticket: Arc<Ticket>, row_bytes: u64) -> Self {
        Self {
            block,
            row_bytes,
            deadline: ticket.deadline,
            requests: Requests::One(ticket),
        }
    }

    /// Of requests in the order in which their blocks were gathered. None: there are none.
    pub fn many(
        block: Block,
        origin: Vec<RowRef>,
        tickets: Vec<Arc<Ticket>>,
        row_bytes: u64,
    ) -> Option<Self> {
        Some(Self {
            block,
            row_bytes,
            deadline: tickets.iter().map(|ticket| ticket.deadline).min()?,
            requests: Requests::Many { tickets, origin },
        })
    }

    /// Of parts of requests, end to end.
    pub fn runs(block: Block, runs: Vec<Run>, deadline: Instant, row_bytes: u64) -> Self {
        Self {
            block,
            row_bytes,
            deadline,
            requests: Requests::Runs(runs),
        }
    }

    /// The request, if there is but one.
    pub fn one_request(&self) -> Option<&Arc<Ticket>> {
        match &self.requests {
            Requests::One(ticket) => Some(ticket),
            _ => None,
        }
    }

    /// The request of a row, and the row's number in it.
    #[inline]
    fn request(&self, row: u32) -> (&Ticket, u32) {
        match &self.requests {
            Requests::One(ticket) => (ticket, row),
            Requests::Many { tickets, origin } => {
                let source = origin[row as usize];
                (&tickets[source.block as usize], source.row)
            }
            Requests::Runs(runs) => {
                let at = runs.partition_point(|run| run.end <= row);
                let start = at.checked_sub(1).map_or(0, |before| runs[before].end);
                (&runs[at].ticket, runs[at].first + row - start)
            }
        }
    }

    /// Marks a row as committed: 1, or 0 if it had its answer before. To be followed by
    /// [`Self::committed`] with the sum.
    #[inline]
    pub fn mark(&self, row: u32) -> u32 {
        let (ticket, number) = self.request(row);
        let first = u32::from(ticket.mark(number));
        match self.requests {
            Requests::One(_) => {}
            Requests::Many { .. } | Requests::Runs(_) => ticket.committed(first),
        }
        first
    }

    /// Marks rows that lie side by side; as [`Self::mark`].
    pub fn mark_range(&self, start: u32, end: u32) -> u32 {
        match &self.requests {
            Requests::One(ticket) => ticket.mark_range(start, end),
            Requests::Many { .. } => (start..end).map(|row| self.mark(row)).sum(),
            Requests::Runs(runs) => parts(runs, start, end)
                .map(|(ticket, start, end)| {
                    let first = ticket.mark_range(start, end);
                    ticket.committed(first);
                    first
                })
                .sum(),
        }
    }

    /// So many rows were marked as committed.
    pub fn committed(&self, rows: u32) {
        // Of several requests each row was counted as it was marked.
        if let Requests::One(ticket) = &self.requests {
            ticket.committed(rows);
        }
    }

    /// The row is refused. False if it had its answer already.
    pub fn refuse(&self, row: u32, refusal: RowRefusal) -> bool {
        let (ticket, number) = self.request(row);
        ticket.refuse(number, refusal)
    }

    pub fn deadline_of(&self, row: u32) -> Instant {
        self.request(row).0.deadline
    }

    /// Whether the row has its answer, or no time is left for it.
    pub fn is_over(&self, row: u32, now: Instant) -> bool {
        let (ticket, number) = self.request(row);
        ticket.is_resolved(number) || ticket.deadline <= now
    }

    /// Whether that is so of every row, as far as it can be told without looking at each.
    pub fn is_all_over(&self, now: Instant) -> bool {
        match &self.requests {
            Requests::One(ticket) => ticket.is_done() || ticket.deadline <= now,
            Requests::Many { .. } | Requests::Runs(_) => false,
        }
    }

    /// The rows of a range that have no answer yet and still have time.
    pub fn open_rows(&self, start: u32, end: u32, now: Instant) -> Vec<u32> {
        let Requests::Runs(runs) = &self.requests else {
            return (start..end)
                .filter(|row| !self.is_over(*row, now))
                .collect();
        };
        let mut open = Vec::new();
        let mut at = start;
        for (ticket, first, end) in parts(runs, start, end) {
            if ticket.deadline > now {
                ticket.each_open(first, end, |number| open.push(at + number - first));
            }
            at += end - first;
        }
        open
    }

    /// Whether all rows of a range have their answers.
    pub fn are_resolved(&self, start: u32, end: u32) -> bool {
        match &self.requests {
            Requests::One(ticket) => ticket.are_resolved(start, end),
            Requests::Many { .. } => (start..end).all(|row| {
                let (ticket, number) = self.request(row);
                ticket.is_resolved(number)
            }),
            Requests::Runs(runs) => {
                parts(runs, start, end).all(|(ticket, start, end)| ticket.are_resolved(start, end))
            }
        }
    }
}

/// The requests of a range of rows, with the rows' numbers in each.
fn parts(runs: &[Run], start: u32, end: u32) -> impl Iterator<Item = (&Ticket, u32, u32)> {
    let at = runs.partition_point(|run| run.end <= start);
    let mut begin = at.checked_sub(1).map_or(0, |before| runs[before].end);
    let mut runs = runs[at..].iter();
    std::iter::from_fn(move || {
        if begin >= end {
            return None;
        }
        let run = runs.next()?;
        let (from, to) = (start.max(begin), end.min(run.end));
        let first = run.first + from - begin;
        begin = run.end;
        Some((&*run.ticket, first, first + to - from))
    })
}
