//! The rows of one request, column by column, validated.

use std::sync::Arc;

use bytes::Bytes;
use pgbraid_shardmap::{KeyType, TableId, hash};

use crate::{ColumnMask, FeedSchema, Refusal};

/// What is done with a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Insert, or update the named columns of the stored row.
    #[default]
    Upsert,
    /// Delete by key.
    Delete,
}

/// Values of one column, one a row. NULL and absent rows have a place too, of any content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnData {
    /// `width` bytes a row, little-endian.
    Fixed {
        /// Bytes a row.
        width: usize,
        /// `width` × rows bytes; often a slice of the request's own message.
        bytes: Bytes,
    },
    /// Row i is `bytes[ends[i-1]..ends[i]]`, as PostgreSQL's binary format has it.
    Var {
        /// All values, end to end.
        bytes: Bytes,
        /// End of each row's value.
        ends: Vec<u32>,
    },
}

impl ColumnData {
    /// The value of a row.
    #[inline]
    pub fn get(&self, row: u32) -> &[u8] {
        let row = row as usize;
        match self {
            Self::Fixed { width, bytes } => &bytes[row * width..(row + 1) * width],
            Self::Var { bytes, ends } => {
                let start = if row == 0 { 0 } else { ends[row - 1] as usize };
                &bytes[start..ends[row] as usize]
            }
        }
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        match self {
            Self::Fixed { bytes, .. } => bytes.len(),
            Self::Var { bytes, ends } => bytes.len() + ends.len() * 4,
        }
    }
}

/// A column of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockColumn {
    /// Position in [`FeedSchema::columns`].
    pub column: usize,
    /// Its values.
    pub data: ColumnData,
    /// Bit i%8 of byte i/8: row i is NULL. Empty: none is.
    pub nulls: Bytes,
}

impl BlockColumn {
    /// The value of a row; `None` is NULL.
    #[inline]
    pub fn get(&self, row: u32) -> Option<&[u8]> {
        if !self.nulls.is_empty() && bit(&self.nulls, row) {
            None
        } else {
            Some(self.data.get(row))
        }
    }
}

#[inline]
pub(crate) fn bit(bits: &[u8], row: u32) -> bool {
    bits.get(row as usize / 8)
        .is_some_and(|byte| byte & (1 << (row % 8)) != 0)
}

/// The rows of one request. Immutable once built; queues share it.
#[derive(Clone, Debug)]
pub struct Block {
    /// The feed, as it was when the request was read.
    pub schema: Arc<FeedSchema>,
    pub(crate) rows: u32,
    pub(crate) keys: ColumnData,
    pub(crate) columns: Vec<BlockColumn>,
    /// Position in `columns` of each column of the feed; `u16::MAX`: not in the block.
    pub(crate) positions: Vec<u16>,
    pub(crate) masks: Vec<ColumnMask>,
    /// Index into `masks` for each row; `None`: all rows have the first.
    pub(crate) row_masks: Option<Vec<u16>>,
    pub(crate) operation: Operation,
    /// Rows whose operation is the other one. Empty: none.
    pub(crate) other_operation: Vec<u8>,
    /// Rows refused at the edge, ascending by row.
    pub(crate) refused: Vec<Refusal>,
}

/// The rows of a block, in the order of their tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Row indexes grouped by table, in request order within a table. Refused rows are left out.
    pub order: Vec<u32>,
    /// Table, and where its rows start and end in `order`.
    pub segments: Vec<(TableId, u32, u32)>,
}

impl Block {
    /// Number of rows, refused ones included.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Rows refused at the edge, ascending.
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// Bytes held, without the fixed cost of the block.
    pub fn size(&self) -> usize {
        self.keys.size()
            + self
                .columns
                .iter()
                .map(|column| column.data.size() + column.nulls.len())
                .sum::<usize>()
    }

    /// The columns that a row writes.
    #[inline]
    pub fn mask(&self, row: u32) -> &ColumnMask {
        match &self.row_masks {
            None => &self.masks[0],
            Some(masks) => &self.masks[masks[row as usize] as usize],
        }
    }

    /// The mask of all rows, if they share one.
    pub fn uniform_mask(&self) -> Option<&ColumnMask> {
        self.row_masks.is_none().then(|| &self.masks[0])
    }

    /// What is done with a row.
    #[inline]
    pub fn operation(&self, row: u32) -> Operation {
        if !self.other_operation.is_empty() && bit(&self.other_operation, row) {
            match self.operation {
                Operation::Upsert => Operation::Delete,
                Operation::Delete => Operation::Upsert,
            }
        } else {
            self.operation
        }
    }

    /// The operation of all rows, if they share one.
    pub fn uniform_operation(&self) -> Option<Operation> {
        self.other_operation.is_empty().then_some(self.operation)
    }

    /// The key of a row: 8 bytes little-endian, 16 bytes, or UTF-8.
    #[inline]
    pub fn key(&self, row: u32) -> &[u8] {
        self.keys.get(row)
    }

    /// A column, if the block has it.
    #[inline]
    pub fn column(&self, column: usize) -> Option<&BlockColumn> {
        match self.positions.get(column) {
            Some(&position) if position != u16::MAX => Some(&self.columns[position as usize]),
            _ => None,
        }
    }

    /// The key of a row as PostgreSQL prints it.
    pub fn key_text(&self, row: u32) -> String {
        crate::scalar::render::key_text(self.schema.key.ty, self.key(row))
    }

    /// Groups the rows by table with a counting sort: linear, and one pass over the keys.
    pub fn route(&self) -> Routed {
        let tables = self.schema.tables;
        let mut refused = self.refused.iter().map(|refusal| refusal.row).peekable();
        let mut of_row: Vec<u32> = Vec::with_capacity(self.rows as usize);
        let mut counts = vec![0u32; tables as usize + 1];
        for row in 0..self.rows {
            if refused.next_if_eq(&row).is_some() {
                while refused.next_if_eq(&row).is_some() {}
                of_row.push(u32::MAX);
                continue;
            }
            let table = hash::table_of(self.key_hash(row), tables).index();
            counts[table as usize + 1] += 1;
            of_row.push(table);
        }
        let mut segments = Vec::new();
        for table in 0..tables as usize {
            let start = counts[table];
            counts[table + 1] += start;
            if counts[table + 1] > start {
                segments.push((TableId::new(table as u32), start, counts[table + 1]));
            }
        }
        let mut order = vec![0u32; counts[tables as usize] as usize];
        for (row, table) in of_row.into_iter().enumerate() {
            if table != u32::MAX {
                let place = &mut counts[table as usize];
                order[*place as usize] = row as u32;
                *place += 1;
            }
        }
        Routed { order, segments }
    }

    #[inline]
    fn key_hash(&self, row: u32) -> u64 {
        let key = self.key(row);
        match self.schema.key.ty {
            KeyType::Int8 => hash::int8(i64::from_le_bytes(
                key.try_into().expect("int8 keys have 8 bytes"),
            )),
            KeyType::Uuid | KeyType::Text => hash::bytes(key),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
