//! Columnar requests: columns as they came, checked against the feed and turned into a [`Block`].
//!
//! Columns that already have the router's form are taken over without a copy.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Block, ColumnData, ColumnMask, FeedSchema, Operation, Refusal, RequestError,
    block::{BlockColumn, bit},
    columns::{Place, key_type, place, refuse},
    overflow::Overflow,
    scalar::{self, ValueError},
    types::{ColumnType, Storage},
};

/// The values of a column in one of the protocol's forms. Fixed-width bytes are little-endian.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum ColumnInput<'a> {
    Bools(Bytes),
    Int16s(Bytes),
    Int32s(Bytes),
    Int64s(Bytes),
    Float32s(Bytes),
    Float64s(Bytes),
    Uuids(Bytes),
    /// Texts end to end, and the end of each (u32, little-endian).
    Utf8 {
        data: Bytes,
        ends: Bytes,
    },
    Ints(&'a [i64]),
    Doubles(&'a [f64]),
    BoolList(&'a [bool]),
    Texts(&'a [String]),
    Blobs(&'a [Bytes]),
}

/// One value in one of the protocol's forms.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Scalar<'a> {
    Absent,
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Scalar<'_> {
    /// Appends the value in the router's form. NULL and absent values are the caller's business.
    pub(crate) fn write(self, ty: &ColumnType, out: &mut Vec<u8>) -> Result<(), ValueError> {
        match self {
            Self::Absent | Self::Null => Ok(()),
            Self::Bool(value) => scalar::from_bool(ty, value, out),
            Self::Int(value) => scalar::from_i64(ty, value, out),
            Self::Double(value) => scalar::from_f64(ty, value, out),
            Self::Text(value) => scalar::from_text(ty, value, out),
            Self::Bytes(value) => scalar::from_bytes(ty, value, out),
        }
    }
}

impl ColumnInput<'_> {
    /// Bytes a row of the fixed-width forms.
    fn width(&self) -> Option<(usize, &Bytes)> {
        match self {
            Self::Bools(bytes) => Some((1, bytes)),
            Self::Int16s(bytes) => Some((2, bytes)),
            Self::Int32s(bytes) | Self::Float32s(bytes) => Some((4, bytes)),
            Self::Int64s(bytes) | Self::Float64s(bytes) => Some((8, bytes)),
            Self::Uuids(bytes) => Some((16, bytes)),
            _ => None,
        }
    }

    /// Number of rows, or what is wrong with the lengths.
    pub fn rows(&self) -> Result<usize, String> {
        if let Some((width, bytes)) = self.width() {
            return if bytes.len() % width == 0 {
                Ok(bytes.len() / width)
            } else {
                Err(format!(
                    "{} bytes are no whole number of rows of {width} bytes",
                    bytes.len()
                ))
            };
        }
        match self {
            Self::Utf8 { data, ends } => {
                if ends.len() % 4 != 0 {
                    return Err(format!(
                        "`ends` has {} bytes, which is no multiple of 4",
                        ends.len()
                    ));
                }
                let mut before = 0u32;
                for end in ends.chunks_exact(4) {
                    let end = u32::from_le_bytes(end.try_into().expect("4 bytes"));
                    if end < before || end as usize > data.len() {
                        return Err(format!(
                            "`ends` must ascend within the {} bytes of `data`: found {end} after {before}",
                            data.len()
                        ));
                    }
                    before = end;
                }
                if before as usize != data.len() {
                    return Err(format!(
                        "`data` has {} bytes, but the last of `ends` is {before}",
                        data.len()
                    ));
                }
                Ok(ends.len() / 4)
            }
            Self::Ints(values) => Ok(values.len()),
            Self::Doubles(values) => Ok(values.len()),
            Self::BoolList(values) => Ok(values.len()),
            Self::Texts(values) => Ok(values.len()),
            Self::Blobs(values) => Ok(values.len()),
            _ => unreachable!("fixed-width forms were counted above"),
        }
    }

    /// The value of a row. Lengths were checked by [`Self::rows`].
    pub(crate) fn get(&self, row: usize) -> Result<Scalar<'_>, ValueError> {
        fn le<const N: usize>(bytes: &Bytes, row: usize) -> [u8; N] {
            bytes[row * N..(row + 1) * N]
                .try_into()
                .expect("slice of N bytes")
        }
        Ok(match self {
            Self::Bools(bytes) => match bytes[row] {
                0 => Scalar::Bool(false),
                1 => Scalar::Bool(true),
                other => {
                    return Err(ValueError::new(
                        scalar::Reason::InvalidBool,
                        format!("byte {other} is not a bool: expected 0 or 1"),
                    ));
                }
            },
            Self::Int16s(bytes) => Scalar::Int(i16::from_le_bytes(le(bytes, row)).into()),
            Self::Int32s(bytes) => Scalar::Int(i32::from_le_bytes(le(bytes, row)).into()),
            Self::Int64s(bytes) => Scalar::Int(i64::from_le_bytes(le(bytes, row))),
            Self::Float32s(bytes) => Scalar::Double(f32::from_le_bytes(le(bytes, row)).into()),
            Self::Float64s(bytes) => Scalar::Double(f64::from_le_bytes(le(bytes, row))),
            Self::Uuids(bytes) => Scalar::Bytes(&bytes[row * 16..(row + 1) * 16]),
            Self::Utf8 { data, ends } => {
                let end = |row: usize| u32::from_le_bytes(le(ends, row)) as usize;
                let start = if row == 0 { 0 } else { end(row - 1) };
                match std::str::from_utf8(&data[start..end(row)]) {
                    Ok(text) => Scalar::Text(text),
                    Err(error) => {
                        return Err(ValueError::new(
                            scalar::Reason::InvalidUtf8,
                            format!("not UTF-8: {error}"),
                        ));
                    }
                }
            }
            Self::Ints(values) => Scalar::Int(values[row]),
            Self::Doubles(values) => Scalar::Double(values[row]),
            Self::BoolList(values) => Scalar::Bool(values[row]),
            Self::Texts(values) => Scalar::Text(&values[row]),
            Self::Blobs(values) => Scalar::Bytes(&values[row]),
        })
    }

    /// The column as it is, where its form is the router's form of the type already.
    fn take_over(&self, ty: &ColumnType) -> Option<ColumnData> {
        use ColumnType as T;
        let (width, bytes) = match (self, ty) {
            (Self::Int16s(bytes), T::Int2) => (2, bytes),
            (Self::Int32s(bytes), T::Int4) | (Self::Float32s(bytes), T::Float4) => (4, bytes),
            (Self::Int64s(bytes), T::Int8) | (Self::Float64s(bytes), T::Float8) => (8, bytes),
            (Self::Uuids(bytes), T::Uuid) => (16, bytes),
            (Self::Bools(bytes), T::Bool) if bytes.iter().all(|byte| *byte <= 1) => (1, bytes),
            (Self::Utf8 { data, ends }, T::Text) => {
                let ends: Vec<u32> = ends
                    .chunks_exact(4)
                    .map(|end| u32::from_le_bytes(end.try_into().expect("4 bytes")))
                    .collect();
                let text = std::str::from_utf8(data).ok()?;
                let clean = !data.contains(&0)
                    && ends.iter().all(|end| text.is_char_boundary(*end as usize));
                return clean.then(|| ColumnData::Var {
                    bytes: data.clone(),
                    ends,
                });
            }
            _ => return None,
        };
        Some(ColumnData::Fixed {
            width,
            bytes: bytes.clone(),
        })
    }

    /// The column in the router's form; rows whose value does not fit are refused.
    fn convert(
        &self,
        ty: &ColumnType,
        name: &str,
        nulls: &[u8],
        rows: u32,
        refused: &mut Vec<Refusal>,
    ) -> ColumnData {
        if let Some(data) = self.take_over(ty) {
            return data;
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        let storage = ty.storage();
        if let Storage::Fixed(width) = storage {
            bytes.reserve(width * rows as usize);
        } else {
            ends.reserve(rows as usize);
        }
        for row in 0..rows {
            let start = bytes.len();
            if !bit(nulls, row)
                && let Err(error) = self
                    .get(row as usize)
                    .and_then(|value| value.write(ty, &mut bytes))
            {
                bytes.truncate(start);
                refuse(refused, row, name, error);
            }
            match storage {
                Storage::Fixed(width) => bytes.resize(start + width, 0),
                Storage::Var => ends.push(bytes.len() as u32),
            }
        }
        match storage {
            Storage::Fixed(width) => ColumnData::Fixed {
                width,
                bytes: bytes.into(),
            },
            Storage::Var => ColumnData::Var {
                bytes: bytes.into(),
                ends,
            },
        }
    }
}

/// A named column of a request.
#[derive(Clone, Debug)]
pub struct NamedInput<'a> {
    /// Name of the column.
    pub name: &'a str,
    /// Bit i%8 of byte i/8: row i is NULL. Empty: none is.
    pub nulls: Bytes,
    /// Values.
    pub input: ColumnInput<'a>,
}

impl NamedInput<'_> {
    fn checked_rows(&self, field: &str) -> Result<usize, RequestError> {
        let rows = self
            .input
            .rows()
            .map_err(|message| RequestError::new("BAD_COLUMN", field, message))?;
        if u32::try_from(rows).is_err() {
            return Err(RequestError::new(
                "TOO_MANY_ROWS",
                field,
                "more rows than a request can have",
            ));
        }
        if !self.nulls.is_empty() && self.nulls.len() != rows.div_ceil(8) {
            return Err(RequestError::new(
                "BAD_COLUMN",
                format!("{field}.nulls"),
                format!(
                    "the null bitmap has {} bytes, but {rows} rows need {}",
                    self.nulls.len(),
                    rows.div_ceil(8)
                ),
            ));
        }
        Ok(rows)
    }
}

/// A columnar request: every row writes the same columns.
#[derive(Clone, Debug)]
pub struct ColumnarRequest<'a> {
    /// What is done with all rows.
    pub operation: Operation,
    /// The keys.
    pub key: NamedInput<'a>,
    /// The columns that are written. Deletes have none.
    pub columns: Vec<NamedInput<'a>>,
}

impl ColumnarRequest<'_> {
    /// Checks the request against the feed.
    ///
    /// # Errors
    /// Where the request's shape is wrong: unknown or repeated columns, columns of different
    /// length, no rows. Values that do not fit refuse their own row only.
    pub fn build(&self, schema: Arc<FeedSchema>) -> Result<Block, RequestError> {
        let rows = self.key.checked_rows("columnar.key")?;
        if rows == 0 {
            return Err(RequestError::new(
                "EMPTY_REQUEST",
                "columnar.key",
                "the request has no rows: give at least one key",
            ));
        }
        if !self.key.name.is_empty() && self.key.name != schema.key.name {
            return Err(RequestError::new(
                "WRONG_KEY_COLUMN",
                "columnar.key.name",
                format!(
                    "{:?} is not the key of feed {}: its key column is {:?}",
                    self.key.name, schema.feed, schema.key.name
                ),
            ));
        }
        if self.operation == Operation::Delete && !self.columns.is_empty() {
            return Err(RequestError::new(
                "COLUMNS_IN_DELETE",
                "columnar.columns",
                "a delete names keys only: leave the columns out",
            ));
        }
        let mut refused = Vec::new();
        let rows32 = rows as u32;
        if !self.key.nulls.is_empty() {
            for row in (0..rows32).filter(|row| bit(&self.key.nulls, *row)) {
                refuse(&mut refused, row, &schema.key.name, ValueError::null_key());
            }
        }
        let keys = self.key.input.convert(
            &key_type(schema.key.ty),
            &schema.key.name,
            &self.key.nulls,
            rows32,
            &mut refused,
        );
        let mut columns: Vec<BlockColumn> = Vec::with_capacity(self.columns.len());
        let mut positions = vec![u16::MAX; schema.columns.len()];
        let mut mask = ColumnMask::new();
        let mut overflow = Overflow::new(&schema);
        for (at, named) in self.columns.iter().enumerate() {
            let field = format!("columnar.columns[{at}]");
            let here = named.checked_rows(&field)?;
            if here != rows {
                return Err(RequestError::new(
                    "COLUMN_LENGTH",
                    field,
                    format!(
                        "column {:?} has {here} rows, but there are {rows} keys",
                        named.name
                    ),
                ));
            }
            let column = match place(&schema, named.name, &field, &mask)? {
                Place::Column(column) => column,
                Place::Overflow => {
                    overflow.add_column(named, rows32, &field, &mut refused)?;
                    continue;
                }
            };
            let definition = &schema.columns[column];
            if definition.not_null && !named.nulls.is_empty() {
                for row in (0..rows32).filter(|row| bit(&named.nulls, *row)) {
                    refuse(&mut refused, row, named.name, ValueError::not_null());
                }
            }
            positions[column] = columns.len() as u16;
            mask.insert(column);
            columns.push(BlockColumn {
                column,
                data: named.input.convert(
                    &definition.ty,
                    named.name,
                    &named.nulls,
                    rows32,
                    &mut refused,
                ),
                nulls: named.nulls.clone(),
            });
        }
        if let Some(column) = overflow.finish(rows32, &mask)? {
            positions[column.column] = columns.len() as u16;
            mask.insert(column.column);
            columns.push(column);
        }
        refused.sort_by_key(|refusal: &Refusal| refusal.row);
        refused.dedup_by_key(|refusal| refusal.row);
        Ok(Block {
            schema,
            rows: rows32,
            keys,
            columns,
            positions,
            masks: vec![mask],
            row_masks: None,
            operation: self.operation,
            other_operation: Vec::new(),
            refused,
        })
    }
}

#[cfg(test)]
mod tests;
