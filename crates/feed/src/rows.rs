//! Requests row by row: each row may write other columns of those that the request names.

use std::{collections::HashMap, sync::Arc};

use smallvec::{SmallVec, smallvec};

use crate::{
    Block, ColumnData, ColumnMask, FeedSchema, Operation, Refusal, RequestError,
    block::BlockColumn,
    columns::{Place, key_type, place, refuse},
    input::Scalar,
    overflow::Overflow,
    scalar::ValueError,
    types::{ColumnType, Storage},
};

/// The bits of the request's columns that a row writes.
type Present = SmallVec<[u64; 2]>;

/// Collects the values of one column.
struct Growing {
    ty: ColumnType,
    storage: Storage,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<u8>,
    any_null: bool,
}

impl Growing {
    fn new(ty: ColumnType, rows: usize) -> Self {
        let storage = ty.storage();
        let (bytes, ends) = match storage {
            Storage::Fixed(width) => (Vec::with_capacity(width * rows), Vec::new()),
            Storage::Var => (Vec::new(), Vec::with_capacity(rows)),
        };
        Self {
            ty,
            storage,
            bytes,
            ends,
            nulls: vec![0; rows.div_ceil(8)],
            any_null: false,
        }
    }

    /// Appends the value of the next row. On an error its place is kept.
    fn push(&mut self, row: u32, value: Scalar<'_>) -> Result<(), ValueError> {
        let start = self.bytes.len();
        // By far the most values: they need none of what the others do.
        if let Scalar::Int(int) = value {
            match self.ty {
                ColumnType::Int8 => {
                    self.bytes.extend_from_slice(&int.to_le_bytes());
                    return Ok(());
                }
                ColumnType::Int4 => {
                    if let Ok(int) = i32::try_from(int) {
                        self.bytes.extend_from_slice(&int.to_le_bytes());
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        let result = value.write(&self.ty, &mut self.bytes);
        if result.is_err() {
            self.bytes.truncate(start);
        }
        if value == Scalar::Null {
            self.nulls[row as usize / 8] |= 1 << (row % 8);
            self.any_null = true;
        }
        match self.storage {
            Storage::Fixed(width) => self.bytes.resize(start + width, 0),
            Storage::Var => self.ends.push(self.bytes.len() as u32),
        }
        result
    }

    fn data(self) -> (ColumnData, bytes::Bytes) {
        let nulls = if self.any_null {
            self.nulls.into()
        } else {
            Default::default()
        };
        let data = match self.storage {
            Storage::Fixed(width) => ColumnData::Fixed {
                width,
                bytes: self.bytes.into(),
            },
            Storage::Var => ColumnData::Var {
                bytes: self.bytes.into(),
                ends: self.ends,
            },
        };
        (data, nulls)
    }
}

/// Builds a block row by row.
pub struct RowsBuilder {
    schema: Arc<FeedSchema>,
    names: Vec<String>,
    /// For each of the request's columns: its position in the feed, or none for the overflow.
    places: Vec<Option<usize>>,
    columns: Vec<Option<Growing>>,
    keys: Growing,
    capacity: usize,
    rows: u32,
    overflow: Overflow,
    masks: Vec<ColumnMask>,
    known: HashMap<Present, u16>,
    last: Option<(Present, u16)>,
    row_masks: Vec<u16>,
    deletes: Vec<u8>,
    any_delete: bool,
    refused: Vec<Refusal>,
}

impl RowsBuilder {
    /// A builder for `capacity` rows that write some of the named columns.
    ///
    /// # Errors
    /// For unknown, repeated or unwritable columns.
    pub fn new(
        schema: Arc<FeedSchema>,
        names: &[impl AsRef<str>],
        capacity: usize,
    ) -> Result<Self, RequestError> {
        if capacity == 0 {
            return Err(RequestError::new(
                "EMPTY_REQUEST",
                "rows.rows",
                "the request has no rows: give at least one",
            ));
        }
        let mut overflow = Overflow::new(&schema);
        let mut taken = ColumnMask::new();
        let mut places = Vec::with_capacity(names.len());
        let mut columns = Vec::with_capacity(names.len());
        for (at, name) in names.iter().map(AsRef::as_ref).enumerate() {
            let field = format!("rows.columns[{at}]");
            match place(&schema, name, &field, &taken)? {
                Place::Column(column) => {
                    taken.insert(column);
                    places.push(Some(column));
                    columns.push(Some(Growing::new(
                        schema.columns[column].ty.clone(),
                        capacity,
                    )));
                }
                Place::Overflow => {
                    overflow.name(name, &field)?;
                    places.push(None);
                    columns.push(None);
                }
            }
        }
        Ok(Self {
            keys: Growing::new(key_type(schema.key.ty), capacity),
            names: names.iter().map(|name| name.as_ref().to_owned()).collect(),
            places,
            columns,
            capacity,
            rows: 0,
            overflow,
            masks: Vec::new(),
            known: HashMap::new(),
            last: None,
            row_masks: Vec::with_capacity(capacity),
            deletes: vec![0; capacity.div_ceil(8)],
            any_delete: false,
            refused: Vec::new(),
            schema,
        })
    }

    /// Adds a row. `values` may be shorter than the columns: the rest is absent.
    ///
    /// # Errors
    /// Where the row's shape is wrong: more values than columns, more rows than announced.
    pub fn push<'a>(
        &mut self,
        operation: Operation,
        key: Scalar<'_>,
        values: impl ExactSizeIterator<Item = Scalar<'a>>,
    ) -> Result<(), RequestError> {
        let row = self.rows;
        let field = || format!("rows.rows[{row}].values");
        if row as usize >= self.capacity {
            return Err(RequestError::new(
                "TOO_MANY_ROWS",
                field(),
                "more rows than announced",
            ));
        }
        if values.len() > self.places.len() {
            return Err(RequestError::new(
                "TOO_MANY_VALUES",
                field(),
                format!(
                    "{} values for {} columns: name every column in rows.columns",
                    values.len(),
                    self.places.len()
                ),
            ));
        }
        self.push_key(row, key);
        let delete = operation == Operation::Delete;
        if delete {
            self.deletes[row as usize / 8] |= 1 << (row % 8);
            self.any_delete = true;
        }
        let words = self.places.len().div_ceil(64) + 1;
        let mut present: Present = match words {
            1 | 2 => SmallVec::from_buf_and_len([0; 2], words),
            _ => smallvec![0; words],
        };
        let mut values = values;
        for at in 0..self.places.len() {
            let value = values.next().unwrap_or(Scalar::Absent);
            if delete && value != Scalar::Absent {
                return Err(RequestError::new(
                    "COLUMNS_IN_DELETE",
                    field(),
                    "a delete names its key only: leave the values out",
                ));
            }
            let result = match (&mut self.columns[at], self.places[at]) {
                (Some(growing), Some(column)) => {
                    if value != Scalar::Absent {
                        present[at / 64] |= 1 << (at % 64);
                    }
                    let stored = growing.push(row, value);
                    if value == Scalar::Null && self.schema.columns[column].not_null {
                        Err(ValueError::not_null())
                    } else {
                        stored
                    }
                }
                _ => self.overflow.add(row, &self.names[at], value),
            };
            if let Err(error) = result {
                refuse(&mut self.refused, row, &self.names[at], error);
            }
        }
        if self.overflow.has(row)
            && let Some(last) = present.last_mut()
        {
            // The word after the columns' own: this row has unknown columns as well.
            *last |= 1 << 63;
        }
        let mask = self.mask(present)?;
        self.row_masks.push(mask);
        self.rows += 1;
        Ok(())
    }

    fn push_key(&mut self, row: u32, key: Scalar<'_>) {
        let result = match key {
            Scalar::Absent | Scalar::Null => {
                let _ = self.keys.push(row, Scalar::Absent);
                Err(ValueError::null_key())
            }
            key => self.keys.push(row, key),
        };
        if let Err(error) = result {
            refuse(&mut self.refused, row, &self.schema.key.name, error);
        }
    }

    /// The number of the mask for these present columns.
    fn mask(&mut self, present: Present) -> Result<u16, RequestError> {
        // Compared word by word: there are few.
        if let Some((last, mask)) = &self.last
            && last.iter().zip(&present).all(|(last, word)| last == word)
        {
            return Ok(*mask);
        }
        let mask = match self.known.get(&present) {
            Some(mask) => *mask,
            None => {
                let number = u16::try_from(self.masks.len()).map_err(|_| {
                    RequestError::new(
                        "TOO_MANY_COLUMN_SETS",
                        "rows.rows",
                        "more than 65536 different sets of columns in one request: split it",
                    )
                })?;
                let mut mask: ColumnMask = self
                    .places
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| present[at / 64] & (1 << (at % 64)) != 0)
                    .filter_map(|(_, place)| *place)
                    .collect();
                if present.last().is_some_and(|word| word & (1 << 63) != 0)
                    && let Some(overflow) = self.schema.overflow
                {
                    mask.insert(overflow);
                }
                self.masks.push(mask);
                self.known.insert(present.clone(), number);
                number
            }
        };
        self.last = Some((present, mask));
        Ok(mask)
    }

    /// The finished block.
    ///
    /// # Errors
    /// If the overflow column is written both ways.
    pub fn finish(mut self) -> Result<Block, RequestError> {
        let mut positions = vec![u16::MAX; self.schema.columns.len()];
        let mut columns = Vec::with_capacity(self.columns.len());
        for (growing, column) in self.columns.drain(..).zip(&self.places) {
            if let (Some(growing), Some(column)) = (growing, *column) {
                positions[column] = columns.len() as u16;
                let (data, nulls) = growing.data();
                columns.push(BlockColumn {
                    column,
                    data,
                    nulls,
                });
            }
        }
        if !self.overflow.is_empty() {
            let named: ColumnMask = self.places.iter().flatten().copied().collect();
            if let Some(column) = self.overflow.finish(self.rows, &named)? {
                positions[column.column] = columns.len() as u16;
                columns.push(column);
            }
        }
        self.refused.sort_by_key(|refusal| refusal.row);
        self.refused.dedup_by_key(|refusal| refusal.row);
        Ok(Block {
            schema: self.schema,
            rows: self.rows,
            keys: self.keys.data().0,
            columns,
            positions,
            row_masks: (self.masks.len() > 1).then_some(self.row_masks),
            masks: self.masks,
            operation: Operation::Upsert,
            other_operation: if self.any_delete {
                self.deletes
            } else {
                Vec::new()
            },
            refused: self.refused,
        })
    }
}

#[cfg(test)]
mod tests;
