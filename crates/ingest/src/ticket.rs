//! Counts a request's rows until each is committed or refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pgbraid_feed::Block;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::Instant,
};

use crate::{Code, Outcome, RowRefusal};

/// A request in flight.
pub(crate) struct Ticket {
    pub block: Arc<Block>,
    /// Row indexes grouped by table.
    pub order: Vec<u32>,
    /// Rough bytes a row, for the queues' bounds.
    pub row_bytes: u64,
    pub deadline: Instant,
    resolved: Box<[AtomicU64]>,
    remaining: AtomicU32,
    refused: Mutex<Vec<RowRefusal>>,
    done: Notify,
    /// Given back when the last queue lets go of the request.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    pub fn new(
        block: Arc<Block>,
        order: Vec<u32>,
        deadline: Instant,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let rows = block.rows();
        let ticket = Self {
            row_bytes: (block.size() as u64 / u64::from(rows.max(1))) + 32,
            order,
            deadline,
            resolved: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            remaining: AtomicU32::new(rows),
            refused: Mutex::new(Vec::new()),
            done: Notify::new(),
            _memory: memory,
            block,
        };
        for refusal in ticket.block.refused() {
            ticket.refuse(RowRefusal::invalid(refusal.clone()));
        }
        ticket
    }

    /// Marks a row; false if it was marked before.
    #[inline]
    fn mark(&self, row: u32) -> bool {
        let bit = 1 << (row % 64);
        self.resolved[row as usize / 64].fetch_or(bit, Ordering::AcqRel) & bit == 0
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

    /// The row is committed; false if it had its answer already. To be counted with
    /// [`Self::committed`] afterwards, once for many rows.
    #[inline]
    pub fn mark_committed(&self, row: u32) -> bool {
        self.mark(row)
    }

    /// So many rows were marked as committed.
    pub fn committed(&self, rows: u32) {
        if rows > 0 {
            self.count_down(rows);
        }
    }

    /// The row is refused. False if it had its answer already.
    pub fn refuse(&self, refusal: RowRefusal) -> bool {
        // The lock is held over the mark, so that whoever sees the row resolved finds its refusal.
        let mut refused = self.refused.lock();
        let first = self.mark(refusal.refusal.row);
        if first {
            refused.push(refusal);
            drop(refused);
            self.count_down(1);
        }
        first
    }

    #[inline]
    fn count_down(&self, rows: u32) {
        if self.remaining.fetch_sub(rows, Ordering::AcqRel) == rows {
            self.done.notify_one();
        }
    }

    /// Refuses what has no answer yet.
    pub fn expire(&self, reason: &'static str, message: &str, retry_after: Duration) -> u64 {
        (0..self.block.rows())
            .filter(|row| {
                !self.is_resolved(*row)
                    && self.refuse(RowRefusal::again(
                        Code::Unavailable,
                        *row,
                        reason,
                        message.to_owned(),
                        retry_after,
                    ))
            })
            .count() as u64
    }

    /// Waits until every row has its answer.
    pub async fn wait(&self) {
        while !self.is_done() {
            self.done.notified().await;
        }
    }

    /// What became of the rows; meaningful once [`Self::is_done`].
    pub fn outcome(&self) -> Outcome {
        let mut refused = std::mem::take(&mut *self.refused.lock());
        refused.sort_by_key(|refusal| refusal.refusal.row);
        Outcome {
            committed: u64::from(self.block.rows()) - refused.len() as u64,
            refused,
        }
    }
}
