//! The rows of several requests, moved side by side for each table, as one block.
//!
//! A request of 1000 rows that goes to 4096 tables has a row for each, and a row by itself costs
//! several times what it costs beside others: each piece is queued, taken, read and answered by
//! itself, in memory that nothing else of the batch lies in. Requests that come together are
//! therefore put together first, as [`Block::arrange`] does it with one.

use std::sync::Arc;

use bytes::Bytes;
use pgbraid_shardmap::{TableId, hash};

use crate::{
    Block, ColumnData, RowRef,
    block::{BlockColumn, bit},
};

/// The rows of several blocks that are to be written, in the order of their tables' places.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The rows, without the refused ones.
    pub block: Block,
    /// For each row of `block`, which block and row it was; ascending within a table.
    pub origin: Vec<RowRef>,
    /// Table, and where its rows start and end in `block`.
    pub segments: Vec<(TableId, u32, u32)>,
}

impl Block {
    /// The block without its rows: all that [`Self::is_like`] looks at. `None`: its rows do not all
    /// write the same columns, or not the same is done with them.
    pub(crate) fn kind(&self) -> Option<Block> {
        let none = |data: &ColumnData| match data {
            ColumnData::Fixed { width, .. } => ColumnData::Fixed {
                width: *width,
                bytes: Bytes::new(),
            },
            ColumnData::Var { .. } => ColumnData::Var {
                bytes: Bytes::new(),
                ends: Vec::new(),
            },
        };
        Some(Block {
            schema: self.schema.clone(),
            rows: 0,
            keys: none(&self.keys),
            columns: (self.columns.iter())
                .map(|column| BlockColumn {
                    column: column.column,
                    data: none(&column.data),
                    nulls: Bytes::new(),
                })
                .collect(),
            positions: self.positions.clone(),
            masks: vec![self.uniform_mask()?.clone()],
            row_masks: None,
            operation: self.uniform_operation()?,
            other_operation: Vec::new(),
            refused: Vec::new(),
        })
    }

    /// Whether the two can be gathered: all rows of both write the same columns, in the same
    /// form, and the same is done with them.
    pub fn is_like(&self, other: &Block) -> bool {
        let same_form = |a: &ColumnData, b: &ColumnData| match (a, b) {
            (ColumnData::Fixed { width: a, .. }, ColumnData::Fixed { width: b, .. }) => a == b,
            (ColumnData::Var { .. }, ColumnData::Var { .. }) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.schema, &other.schema)
            && self.uniform_mask().is_some()
            && self.uniform_mask() == other.uniform_mask()
            && self.uniform_operation().is_some()
            && self.uniform_operation() == other.uniform_operation()
            && same_form(&self.keys, &other.keys)
            && self.columns.len() == other.columns.len()
            && (self.columns.iter().zip(&other.columns))
                .all(|(a, b)| a.column == b.column && same_form(&a.data, &b.data))
    }
}

/// Groups the rows of blocks that are alike by table, each table's in the order of the blocks and
/// of their rows. `places` is as in [`Block::arrange`]. None: there is no block.
///
/// # Panics
/// If `places` is neither empty nor as long as the feed has tables.
pub fn gather(blocks: &[&Block], places: &[u32]) -> Option<Gathered> {
    let first = *blocks.first()?;
    debug_assert!(blocks.iter().all(|block| block.is_like(first)));
    let tables = first.schema.tables;
    assert!(
        places.is_empty() || places.len() == tables as usize,
        "one place for each table"
    );
    let table_of = |block: &Block, row: u32| hash::table_of(block.key_hash(row), tables);
    // A counting sort, as in `arrange`.
    let rows = blocks.iter().map(|block| block.rows as usize).sum();
    let mut next = vec![0u32; tables as usize];
    let mut place_of = Vec::with_capacity(rows);
    for block in blocks {
        place_of.extend(block.places_of_valid(places));
    }
    for place in &place_of {
        next[*place as usize] += 1;
    }
    let mut ends = Vec::with_capacity(place_of.len().min(tables as usize));
    let mut start = 0;
    for count in &mut next {
        let rows = std::mem::replace(count, start);
        if rows > 0 {
            ends.push((start, start + rows));
        }
        start += rows;
    }
    let mut origin = vec![RowRef { block: 0, row: 0 }; place_of.len()];
    let mut place_of = place_of.into_iter();
    for (number, block) in (0..).zip(blocks) {
        let mut put = |row: u32, place: u32| {
            let at = &mut next[place as usize];
            origin[*at as usize] = RowRef { block: number, row };
            *at += 1;
        };
        match block.refused.is_empty() {
            true => (0..block.rows)
                .zip(&mut place_of)
                .for_each(|(row, place)| put(row, place)),
            false => block
                .valid_rows()
                .zip(&mut place_of)
                .for_each(|(row, place)| put(row, place)),
        }
    }
    let segments = (ends.into_iter())
        .map(|(start, end)| {
            let RowRef { block, row } = origin[start as usize];
            (table_of(blocks[block as usize], row), start, end)
        })
        .collect();
    Some(Gathered {
        block: pick(blocks, first, &origin),
        origin,
        segments,
    })
}

/// A block of these rows, in this order.
fn pick(blocks: &[&Block], first: &Block, rows: &[RowRef]) -> Block {
    let column = |place: usize| {
        let all = blocks.iter().map(|block| &block.columns[place]);
        let nulls: Vec<&Bytes> = all.clone().map(|column| &column.nulls).collect();
        BlockColumn {
            column: first.columns[place].column,
            data: pick_data(&all.map(|column| &column.data).collect::<Vec<_>>(), rows),
            nulls: pick_bits(&nulls, rows),
        }
    };
    let keys: Vec<&ColumnData> = blocks.iter().map(|block| &block.keys).collect();
    Block {
        schema: first.schema.clone(),
        rows: rows.len() as u32,
        keys: pick_data(&keys, rows),
        columns: (0..first.columns.len()).map(column).collect(),
        positions: first.positions.clone(),
        masks: first.masks.clone(),
        row_masks: None,
        operation: first.operation,
        other_operation: Vec::new(),
        refused: Vec::new(),
    }
}

fn pick_bits(bits: &[&Bytes], rows: &[RowRef]) -> Bytes {
    if bits.iter().all(|bits| bits.is_empty()) {
        return Bytes::new();
    }
    let mut picked = vec![0; rows.len().div_ceil(8)];
    for (at, source) in rows.iter().enumerate() {
        let is_set = bit(bits[source.block as usize], source.row);
        picked[at / 8] |= u8::from(is_set) << (at % 8);
    }
    picked.into()
}

fn pick_data(data: &[&ColumnData], rows: &[RowRef]) -> ColumnData {
    let value = |source: &RowRef| data[source.block as usize].get(source.row);
    match data[0] {
        ColumnData::Fixed { width, .. } => ColumnData::Fixed {
            width: *width,
            bytes: match width {
                1 => pick_fixed::<1>(data, rows),
                2 => pick_fixed::<2>(data, rows),
                4 => pick_fixed::<4>(data, rows),
                8 => pick_fixed::<8>(data, rows),
                16 => pick_fixed::<16>(data, rows),
                _ => (rows.iter().flat_map(value).copied())
                    .collect::<Vec<u8>>()
                    .into(),
            },
        },
        ColumnData::Var { .. } => {
            let mut bytes = Vec::with_capacity(rows.iter().map(|row| value(row).len()).sum());
            let mut ends = Vec::with_capacity(rows.len());
            for row in rows {
                bytes.extend_from_slice(value(row));
                ends.push(bytes.len() as u32);
            }
            ColumnData::Var {
                bytes: bytes.into(),
                ends,
            }
        }
    }
}

fn pick_fixed<const N: usize>(data: &[&ColumnData], rows: &[RowRef]) -> Bytes {
    let blocks: Vec<&[[u8; N]]> = data
        .iter()
        .map(|data| match data {
            ColumnData::Fixed { bytes, .. } => bytes.as_chunks().0,
            ColumnData::Var { .. } => &[],
        })
        .collect();
    let picked: Vec<[u8; N]> = rows
        .iter()
        .map(|source| blocks[source.block as usize][source.row as usize])
        .collect();
    picked.into_flattened().into()
}

#[cfg(test)]
mod tests;
