//! Rows of one table out of many requests, end to end.
//!
//! A request of 1000 rows has a few for each of many tables. Where rows wait anyway they are
//! appended, as they come, to what waits for their table: a batch then reads them out of one piece
//! of memory, and not a few cache lines out of each of hundreds of requests.

use crate::{Block, ColumnData, block::bit};

/// Bytes of the values of one column from which on a chunk takes no further rows.
const MOST_BYTES: usize = 1 << 20;

/// Rows that write the same columns in the same form.
#[derive(Debug)]
pub struct Chunk {
    /// What they are, without any.
    kind: Block,
    rows: u32,
    /// So many rows of fixed width have room.
    room: u32,
    keys: Values,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    values: Values,
    /// As in [`BlockColumn`](crate::block::BlockColumn).
    nulls: Vec<u8>,
}

#[derive(Debug)]
enum Values {
    /// With room for rows to come, so that appending writes their values and nothing else: rows
    /// come from all processors, and what one has written another has to fetch.
    Fixed {
        width: usize,
        bytes: Vec<u8>,
    },
    Var {
        bytes: Vec<u8>,
        ends: Vec<u32>,
    },
}

impl Values {
    /// For values of the same form, with room for so many rows.
    fn like(data: &ColumnData, rows: usize) -> Self {
        match data {
            ColumnData::Fixed { width, .. } => Self::Fixed {
                width: *width,
                bytes: vec![0; width * rows],
            },
            ColumnData::Var { .. } => Self::Var {
                bytes: Vec::new(),
                ends: Vec::with_capacity(rows),
            },
        }
    }

    fn is_full(&self, rows: u32) -> bool {
        let bytes = match self {
            Self::Fixed { width, .. } => width * rows as usize,
            Self::Var { bytes, .. } => bytes.len(),
        };
        bytes >= MOST_BYTES
    }

    fn make_room(&mut self, rows: u32) {
        if let Self::Fixed { width, bytes } = self {
            bytes.resize(*width * rows as usize, 0);
        }
    }

    /// Appends the values of rows behind the first `rows`; of a form that it takes.
    fn append(&mut self, rows: u32, data: &ColumnData, start: u32, end: u32) {
        let (rows, start, end) = (rows as usize, start as usize, end as usize);
        match (self, data) {
            (Self::Fixed { bytes, .. }, ColumnData::Fixed { width, bytes: from }) => {
                let to = rows * width..(rows + end - start) * width;
                bytes[to].copy_from_slice(&from[start * width..end * width]);
            }
            (
                Self::Var { bytes, ends },
                ColumnData::Var {
                    bytes: from,
                    ends: their,
                },
            ) => {
                let first = match start {
                    0 => 0,
                    _ => their[start - 1],
                };
                let (base, last) = (bytes.len() as u32, their[end - 1]);
                bytes.extend_from_slice(&from[first as usize..last as usize]);
                ends.extend(their[start..end].iter().map(|end| end - first + base));
            }
            _ => debug_assert!(false, "values of another form"),
        }
    }

    fn finish(self, rows: u32) -> ColumnData {
        match self {
            Self::Fixed { width, mut bytes } => {
                bytes.truncate(width * rows as usize);
                ColumnData::Fixed {
                    width,
                    bytes: fit(bytes).into(),
                }
            }
            Self::Var { bytes, ends } => ColumnData::Var {
                bytes: fit(bytes).into(),
                ends: fit(ends),
            },
        }
    }
}

/// Without much room that nothing is in: rows may wait for long, and their bytes are counted.
fn fit<T>(mut values: Vec<T>) -> Vec<T> {
    if values.capacity() / 2 > values.len() {
        values.shrink_to_fit();
    }
    values
}

impl Chunk {
    /// An empty one for rows like those of a block, with room for so many. `None`: its rows do not
    /// all write the same columns, or not the same is done with them.
    pub fn like(block: &Block, rows: usize) -> Option<Self> {
        Some(Self {
            kind: block.kind()?,
            rows: 0,
            room: rows as u32,
            keys: Values::like(&block.keys, rows),
            columns: (block.columns.iter())
                .map(|column| Column {
                    values: Values::like(&column.data, rows),
                    nulls: Vec::new(),
                })
                .collect(),
        })
    }

    /// Whether rows of the block can be appended: they are of the same kind, and there is room.
    pub fn takes(&self, block: &Block) -> bool {
        let columns = self.columns.iter().map(|column| &column.values);
        self.kind.is_like(block)
            && !columns
                .chain([&self.keys])
                .any(|values| values.is_full(self.rows))
    }

    /// Appends rows that lie side by side in a block that it takes.
    pub fn append(&mut self, block: &Block, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let all = self.rows + end - start;
        if all > self.room {
            self.room = all.max(self.room * 2);
            self.keys.make_room(self.room);
            for column in &mut self.columns {
                column.values.make_room(self.room);
            }
        }
        self.keys.append(self.rows, &block.keys, start, end);
        for (ours, theirs) in self.columns.iter_mut().zip(&block.columns) {
            ours.values.append(self.rows, &theirs.data, start, end);
            if theirs.nulls.is_empty() && ours.nulls.is_empty() {
                continue;
            }
            ours.nulls.resize(all.div_ceil(8) as usize, 0);
            for (at, row) in (self.rows as usize..).zip(start..end) {
                ours.nulls[at / 8] |= u8::from(bit(&theirs.nulls, row)) << (at % 8);
            }
        }
        self.rows = all;
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The rows, in the order in which they were appended.
    pub fn finish(self) -> Block {
        let (mut block, rows) = (self.kind, self.rows);
        block.rows = rows;
        block.keys = self.keys.finish(rows);
        for (column, ours) in block.columns.iter_mut().zip(self.columns) {
            column.data = ours.values.finish(rows);
            column.nulls = ours.nulls.into();
        }
        block
    }
}

#[cfg(test)]
mod tests;
