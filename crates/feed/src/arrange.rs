//! A block's rows, moved side by side for each table.
//!
//! A request of 1000 rows is spread over all tables, and a batch takes a table's rows out of
//! hundreds of requests. Moved once, while the request is in the processor's cache, the rows of a
//! table lie side by side from then on, so that the batch reads a few cache lines of each request
//! and not one a row and column.

use bytes::Bytes;
use pgbraid_shardmap::{TableId, hash};

use crate::{
    Block, ColumnData,
    block::{BlockColumn, bit},
};

/// The rows of a block that are to be written, in the order of their tables' places.
#[derive(Clone, Debug)]
pub struct Arranged {
    /// The rows, without the refused ones.
    pub block: Block,
    /// For each row of `block`, its number in the request; ascending within a table.
    pub origin: Vec<u32>,
    /// Table, and where its rows start and end in `block`.
    pub segments: Vec<(TableId, u32, u32)>,
}

impl Block {
    /// Groups the rows by table: in linear time, in one pass over the keys, and with the rows of
    /// a table in the request's order. `places` gives each table's place in the result (a
    /// permutation); empty stands for the tables' own order.
    ///
    /// # Panics
    /// If `places` is neither empty nor as long as the feed has tables.
    pub fn arrange(self, places: &[u32]) -> Arranged {
        let tables = self.schema.tables;
        assert!(
            places.is_empty() || places.len() == tables as usize,
            "one place for each table"
        );
        if self.rows == 1 && self.refused.is_empty() {
            let table = hash::table_of(self.key_hash(0), tables);
            return Arranged {
                block: self,
                origin: vec![0],
                segments: vec![(table, 0, 1)],
            };
        }
        let place = |table: u32| match places.get(table as usize) {
            Some(place) => *place,
            None => table,
        };
        let table_of = |row: u32| hash::table_of(self.key_hash(row), tables);
        let valid = self.rows as usize - self.refused_rows();
        let (origin, segments) = if valid * 8 < tables as usize {
            // Few rows for many tables: sorting them is cheaper than a pass over the tables.
            let mut rows: Vec<(u32, u32, TableId)> = (self.valid_rows())
                .map(|row| {
                    let table = table_of(row);
                    (place(table.index()), row, table)
                })
                .collect();
            rows.sort_unstable_by_key(|(place, row, _)| (*place, *row));
            let mut segments = Vec::new();
            let mut end = 0;
            for rows in rows.chunk_by(|a, b| a.0 == b.0) {
                let start = end;
                end += rows.len() as u32;
                segments.push((rows[0].2, start, end));
            }
            (rows.into_iter().map(|(_, row, _)| row).collect(), segments)
        } else {
            // A counting sort. `next` is first the number of rows of each place, then where its
            // next row goes.
            let mut next = vec![0u32; tables as usize];
            let place_of = self.places_of_valid(places);
            for place in &place_of {
                next[*place as usize] += 1;
            }
            let mut segments = Vec::with_capacity(valid.min(tables as usize));
            let mut start = 0;
            for count in &mut next {
                let rows = std::mem::replace(count, start);
                if rows > 0 {
                    // Which table it is, its first row will tell.
                    segments.push((TableId::new(0), start, start + rows));
                }
                start += rows;
            }
            let mut origin = vec![0u32; valid];
            let mut put = |place: u32, row: u32| {
                let at = &mut next[place as usize];
                origin[*at as usize] = row;
                *at += 1;
            };
            let placed = place_of.into_iter();
            match self.refused.is_empty() {
                true => placed.zip(0..).for_each(|(place, row)| put(place, row)),
                false => (placed.zip(self.valid_rows())).for_each(|(place, row)| put(place, row)),
            }
            for (table, start, _) in &mut segments {
                *table = table_of(origin[*start as usize]);
            }
            (origin, segments)
        };
        let block = match origin.is_sorted() && origin.len() == self.rows as usize {
            true => self,
            false => self.pick(&origin),
        };
        Arranged {
            block,
            origin,
            segments,
        }
    }

    /// The place of each row that was not refused, in their order.
    pub(crate) fn places_of_valid(&self, places: &[u32]) -> Vec<u32> {
        let tables = self.schema.tables;
        let mut found = match self.int8_keys() {
            Some(keys) if self.refused.is_empty() => hash::tables_of_int8(keys, tables),
            _ => (self.valid_rows())
                .map(|row| hash::table_of(self.key_hash(row), tables).index())
                .collect(),
        };
        if !places.is_empty() {
            for place in &mut found {
                *place = places[*place as usize];
            }
        }
        found
    }

    fn refused_rows(&self) -> usize {
        self.refused
            .chunk_by(|a, b| a.row == b.row)
            .map(|_| 1)
            .sum()
    }

    /// The rows that were not refused at the edge.
    pub(crate) fn valid_rows(&self) -> impl Iterator<Item = u32> {
        let mut refused = self.refused.iter().map(|refusal| refusal.row).peekable();
        (0..self.rows).filter(move |row| {
            let out = refused.peek() == Some(row);
            while refused.next_if_eq(row).is_some() {}
            !out
        })
    }

    /// A block of these rows, in this order.
    fn pick(self, rows: &[u32]) -> Block {
        let keys = pick_data(&self.keys, rows);
        let columns = self
            .columns
            .iter()
            .map(|column| BlockColumn {
                column: column.column,
                data: pick_data(&column.data, rows),
                nulls: pick_bits(&column.nulls, rows).into(),
            })
            .collect();
        Block {
            rows: rows.len() as u32,
            keys,
            columns,
            row_masks: self
                .row_masks
                .as_ref()
                .map(|masks| rows.iter().map(|row| masks[*row as usize]).collect()),
            other_operation: pick_bits(&self.other_operation, rows),
            ..self
        }
    }
}

fn pick_bits(bits: &[u8], rows: &[u32]) -> Vec<u8> {
    if bits.is_empty() {
        return Vec::new();
    }
    let mut picked = vec![0; rows.len().div_ceil(8)];
    for (at, row) in rows.iter().enumerate() {
        picked[at / 8] |= u8::from(bit(bits, *row)) << (at % 8);
    }
    picked
}

fn pick_data(data: &ColumnData, rows: &[u32]) -> ColumnData {
    match data {
        ColumnData::Fixed { width, bytes } => ColumnData::Fixed {
            width: *width,
            bytes: match width {
                1 => pick_fixed::<1>(bytes, rows),
                2 => pick_fixed::<2>(bytes, rows),
                4 => pick_fixed::<4>(bytes, rows),
                8 => pick_fixed::<8>(bytes, rows),
                16 => pick_fixed::<16>(bytes, rows),
                _ => rows
                    .iter()
                    .flat_map(|row| data.get(*row))
                    .copied()
                    .collect::<Vec<u8>>()
                    .into(),
            },
        },
        ColumnData::Var { .. } => {
            let total = rows.iter().map(|row| data.get(*row).len()).sum();
            let mut bytes = Vec::with_capacity(total);
            let mut ends = Vec::with_capacity(rows.len());
            for row in rows {
                bytes.extend_from_slice(data.get(*row));
                ends.push(bytes.len() as u32);
            }
            ColumnData::Var {
                bytes: bytes.into(),
                ends,
            }
        }
    }
}

fn pick_fixed<const N: usize>(bytes: &[u8], rows: &[u32]) -> Bytes {
    let (values, _) = bytes.as_chunks::<N>();
    let picked: Vec<[u8; N]> = rows.iter().map(|row| values[*row as usize]).collect();
    picked.into_flattened().into()
}

#[cfg(test)]
mod tests;
