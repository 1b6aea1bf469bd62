//! A block in the queues, and the requests that its rows are answers to.

use std::sync::Arc;

use pgbraid_feed::{Block, RowRef};
use tokio::time::Instant;

use crate::{RowRefusal, ticket::Ticket};

/// Rows that were arranged together: those of one request, or of several that came together.
/// Queues share it.
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

    /// The request of a row, and the row's number in it.
    #[inline]
    fn request(&self, row: u32) -> (&Ticket, u32) {
        match &self.requests {
            Requests::One(ticket) => (ticket, row),
            Requests::Many { tickets, origin } => {
                let source = origin[row as usize];
                (&tickets[source.block as usize], source.row)
            }
        }
    }

    /// Marks a row as committed: 1, or 0 if it had its answer before. To be followed by
    /// [`Self::committed`] with the sum.
    #[inline]
    pub fn mark(&self, row: u32) -> u32 {
        let (ticket, number) = self.request(row);
        let first = u32::from(ticket.mark(number));
        if let Requests::Many { .. } = self.requests {
            ticket.committed(first);
        }
        first
    }

    /// Marks rows that lie side by side; as [`Self::mark`].
    pub fn mark_range(&self, start: u32, end: u32) -> u32 {
        match &self.requests {
            Requests::One(ticket) => ticket.mark_range(start, end),
            Requests::Many { .. } => (start..end).map(|row| self.mark(row)).sum(),
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
            Requests::Many { .. } => false,
        }
    }

    /// Whether all rows of a range have their answers.
    pub fn are_resolved(&self, start: u32, end: u32) -> bool {
        match &self.requests {
            Requests::One(ticket) => ticket.are_resolved(start, end),
            Requests::Many { .. } => (start..end).all(|row| {
                let (ticket, number) = self.request(row);
                ticket.is_resolved(number)
            }),
        }
    }
}
