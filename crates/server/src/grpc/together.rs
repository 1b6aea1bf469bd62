//! Requests of one row each that have arrived together.

use std::sync::Arc;

use pgbraid_feed::{Block, FeedSchema, Operation, RequestError, rows::RowsBuilder};

use super::wire::{WireRow, WireRows};

/// The most requests that are queued as one.
const MOST: usize = 256;

/// Requests of one row each that become one block.
pub(super) struct Together {
    builder: RowsBuilder,
    columns: usize,
    sequences: Vec<u64>,
}

impl Together {
    /// For requests like this one.
    pub fn new(schema: Arc<FeedSchema>, request: &WireRows<'_>) -> Option<Self> {
        let (_, columns) = request.names()?;
        Some(Self {
            builder: RowsBuilder::new(schema, &columns, MOST).ok()?,
            columns: request.columns.len(),
            sequences: Vec::with_capacity(32),
        })
    }

    pub fn has_room(&self) -> bool {
        self.sequences.len() < MOST
    }

    /// Adds a request's row, unless its shape is wrong.
    pub fn add(&mut self, sequence: u64, row: &[u8]) -> bool {
        let bytes = row;
        let mut row = WireRow::default();
        if row.read(bytes).is_none() {
            return false;
        }
        let fits = match row.operation {
            Operation::Upsert => row.values.len() <= self.columns,
            Operation::Delete => row.values.is_empty(),
        };
        let added = fits
            && (self.builder)
                .push(row.operation, row.key, row.values.iter().copied())
                .is_ok();
        if added {
            self.sequences.push(sequence);
        }
        added
    }

    /// The requests' sequence numbers, and their rows in the same order.
    pub fn finish(self) -> (Vec<u64>, Result<Block, RequestError>) {
        (self.sequences, self.builder.finish())
    }
}
