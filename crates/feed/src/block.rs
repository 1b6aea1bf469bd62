//! The rows of one request, column by column, validated.

use std::sync::Arc;

use bytes::Bytes;
use pgbraid_shardmap::{KeyType, hash};

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

    /// All keys.
    #[inline]
    pub(crate) fn key_data(&self) -> &ColumnData {
        &self.keys
    }

    /// All keys, if they are int8.
    #[inline]
    pub(crate) fn int8_keys(&self) -> Option<&[[u8; 8]]> {
        match (&self.keys, self.schema.key.ty) {
            (ColumnData::Fixed { width: 8, bytes }, KeyType::Int8) => Some(bytes.as_chunks().0),
            _ => None,
        }
    }

    /// Where a column stands in this block.
    pub(crate) fn place(&self, column: usize) -> Option<usize> {
        (self.positions.get(column))
            .filter(|place| **place != u16::MAX)
            .map(|place| usize::from(*place))
    }

    /// A column, which most likely stands at `place`.
    #[inline]
    pub(crate) fn column_at(&self, place: usize, column: usize) -> Option<&BlockColumn> {
        match self.columns.get(place) {
            Some(found) if found.column == column => Some(found),
            _ => self.column(column),
        }
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

    #[inline]
    pub(crate) fn key_hash(&self, row: u32) -> u64 {
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
