//! A batch's columns as PostgreSQL's binary arrays, written straight from the blocks.

use bytes::{BufMut, BytesMut};
use pgbraid_shardmap::KeyType;
use postgres_types::{IsNull, ToSql, Type};

use crate::{Batch, Block, ColumnData, RowRef, Statement, types::ColumnType};

type BoxError = Box<dyn std::error::Error + Sync + Send>;

/// How an element is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Little-endian in the router, big-endian on the wire.
    Swapped2,
    Swapped4,
    Swapped8,
    /// The same bytes.
    AsIs,
}

impl Form {
    fn of(ty: &ColumnType) -> Self {
        use ColumnType as T;
        match ty {
            T::Int2 => Self::Swapped2,
            T::Int4 | T::Float4 | T::Date => Self::Swapped4,
            T::Int8 | T::Float8 | T::Time | T::Timestamp | T::Timestamptz => Self::Swapped8,
            _ => Self::AsIs,
        }
    }
}

/// One array parameter of a statement: a column, or the keys, of some rows of a batch.
#[derive(Debug)]
pub struct ArrayParam<'a> {
    batch: &'a Batch<'a>,
    /// Ascending, each once.
    rows: &'a [u32],
    /// `None`: the keys.
    column: Option<usize>,
    element: Type,
    form: Form,
    /// Bytes that this parameter and those after it are likely to take.
    ahead: usize,
}

impl<'a> ArrayParam<'a> {
    /// The keys of rows.
    pub fn keys(batch: &'a Batch<'a>, rows: &'a [u32]) -> Self {
        let (element, form) = match batch.schema().key.ty {
            KeyType::Int8 => (Type::INT8, Form::Swapped8),
            KeyType::Uuid => (Type::UUID, Form::AsIs),
            KeyType::Text => (Type::TEXT, Form::AsIs),
        };
        Self {
            batch,
            rows,
            column: None,
            element,
            form,
            ahead: 0,
        }
    }

    /// A column of rows, all of which write it.
    pub fn column(batch: &'a Batch<'a>, rows: &'a [u32], column: usize) -> Self {
        let ty = &batch.schema().columns[column].ty;
        Self {
            batch,
            rows,
            column: Some(column),
            element: ty.wire_type(),
            form: Form::of(ty),
            ahead: 0,
        }
    }

    /// All parameters of a statement: the keys, then its columns in their order.
    pub fn of(batch: &'a Batch<'a>, statement: &'a Statement) -> Vec<Self> {
        let rows = &statement.rows;
        let columns = statement
            .mask
            .iter()
            .map(|column| Self::column(batch, rows, column));
        let mut params: Vec<Self> = std::iter::once(Self::keys(batch, rows))
            .chain(columns)
            .collect();
        // Room for all at once: the buffer is not copied each time it grows.
        let ahead = params.iter().map(|param| param.likely_size()).sum();
        params[0].ahead = ahead;
        params
    }

    fn likely_size(&self) -> usize {
        let value = match self.form {
            Form::Swapped2 => 2,
            Form::Swapped4 => 4,
            Form::Swapped8 => 8,
            Form::AsIs => 16,
        };
        24 + self.rows.len() * (4 + value)
    }

    fn value(&self, row: u32) -> Option<&[u8]> {
        match self.column {
            None => Some(self.batch.key(row)),
            Some(column) => self.batch.value(row, column),
        }
    }

    /// The column's bytes in each block of the batch, if every row of every block has a value of
    /// `width` bytes: the usual case, in which a value is found by its block and row alone.
    fn dense(&self, width: usize) -> Option<Vec<&'a [u8]>> {
        let batch = self.batch;
        if self.column.is_some() && !batch.is_uniform() {
            return None;
        }
        // The usual place of the column, that of the first block.
        let place = match self.column {
            Some(column) => batch.blocks().first()?.place(column)?,
            None => 0,
        };
        let bytes_of = |block: &'a Block| {
            let data = match self.column {
                None => block.key_data(),
                Some(column) => {
                    let column = block.column_at(place, column)?;
                    column.nulls.is_empty().then_some(&column.data)?
                }
            };
            match data {
                ColumnData::Fixed { width: w, bytes } if *w == width => Some(&bytes[..]),
                _ => None,
            }
        };
        let mut all = Vec::with_capacity(batch.blocks().len());
        for block in batch.blocks() {
            all.push(bytes_of(block)?);
        }
        Some(all)
    }

    /// Appends each value with its length, through `swap`.
    fn put<const N: usize, const M: usize>(
        &self,
        blocks: &[&[u8]],
        out: &mut BytesMut,
        swap: impl Fn([u8; N]) -> [u8; M],
    ) {
        let start = out.len();
        out.resize(start + self.rows.len() * M, 0);
        let blocks: Vec<&[[u8; N]]> = blocks.iter().map(|bytes| bytes.as_chunks().0).collect();
        let (places, _) = out[start..].as_chunks_mut::<M>();
        let value = |source: RowRef| swap(blocks[source.block as usize][source.row as usize]);
        match self.batch.lone_sources() {
            // All rows in their order, of which each was written once.
            Some(sources) if sources.len() == self.rows.len() => {
                for (place, source) in places.iter_mut().zip(sources) {
                    *place = value(*source);
                }
            }
            _ => {
                for (place, row) in places.iter_mut().zip(self.rows) {
                    *place = value(self.batch.last_source(*row));
                }
            }
        }
    }

    /// The keys of the whole batch, where it has them as numbers.
    fn number_keys(&self) -> Option<&[i64]> {
        let keys = self.batch.number_keys();
        keys.filter(|keys| self.column.is_none() && keys.len() == self.rows.len())
    }

    /// The fast way for columns of numbers without NULLs; false: not such a column.
    fn put_dense(&self, out: &mut BytesMut) -> bool {
        if let Some(keys) = self.number_keys() {
            let start = out.len();
            out.resize(start + keys.len() * 12, 0);
            let (places, _) = out[start..].as_chunks_mut();
            for (place, key) in places.iter_mut().zip(keys) {
                *place = int8(key.cast_unsigned());
            }
            return true;
        }
        match self.form {
            Form::Swapped4 => match self.dense(4) {
                Some(blocks) => self.put(&blocks, out, |value: [u8; 4]| {
                    (4u64 << 32 | u64::from(u32::from_le_bytes(value))).to_be_bytes()
                }),
                None => return false,
            },
            Form::Swapped8 => match self.dense(8) {
                Some(blocks) => self.put(&blocks, out, |value| int8(u64::from_le_bytes(value))),
                None => return false,
            },
            Form::AsIs if self.element == Type::UUID => match self.dense(16) {
                Some(blocks) => self.put(&blocks, out, |value: [u8; 16]| {
                    let mut place = [0; 20];
                    place[3] = 16;
                    place[4..].copy_from_slice(&value);
                    place
                }),
                None => return false,
            },
            _ => return false,
        }
        true
    }
}

/// Eight bytes with their length.
#[inline]
fn int8(value: u64) -> [u8; 12] {
    let mut place = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    place[4..].copy_from_slice(&value.to_be_bytes());
    place
}

impl ToSql for ArrayParam<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        let count = i32::try_from(self.rows.len())?;
        out.reserve(self.ahead.max(self.likely_size()));
        out.put_i32(1);
        let flags = out.len();
        out.put_i32(0);
        out.put_u32(self.element.oid());
        out.put_i32(count);
        out.put_i32(1);
        if self.put_dense(out) {
            return Ok(IsNull::No);
        }
        let mut any_null = false;
        for row in self.rows {
            let Some(value) = self.value(*row) else {
                any_null = true;
                out.put_i32(-1);
                continue;
            };
            out.put_i32(i32::try_from(value.len())?);
            match self.form {
                Form::AsIs => out.put_slice(value),
                Form::Swapped2 => out.put_u16(u16::from_le_bytes(value.try_into()?)),
                Form::Swapped4 => out.put_u32(u32::from_le_bytes(value.try_into()?)),
                Form::Swapped8 => out.put_u64(u64::from_le_bytes(value.try_into()?)),
            }
        }
        if any_null {
            out[flags..flags + 4].copy_from_slice(&1i32.to_be_bytes());
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        match ty.kind() {
            postgres_types::Kind::Array(element) if *element == self.element => {
                self.to_sql(ty, out)
            }
            _ => Err(format!("expected an array of {}, found {ty}", self.element).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgbraid_shardmap::TableId;
    use postgres_types::FromSql;

    use crate::{
        RowRef,
        block::tests::{block, schema},
    };

    use super::*;

    #[test]
    fn arrays_read_back_as_postgres_reads_them() {
        let schema = Arc::new(schema());
        let block = block(&schema, &[5, -7], &[("c1", &[1, -2])]);
        let rows = [0, 1].map(|row| (TableId::new(0), RowRef { block: 0, row }));
        let batch = Batch::build(schema, vec![&block], &rows);
        let mut out = BytesMut::new();
        ArrayParam::keys(&batch, &[0, 1])
            .to_sql_checked(&Type::INT8_ARRAY, &mut out)
            .unwrap();
        assert_eq!(
            Vec::<i64>::from_sql(&Type::INT8_ARRAY, &out).unwrap(),
            [-7, 5]
        );
        out.clear();
        ArrayParam::column(&batch, &[0, 1], 0)
            .to_sql_checked(&Type::INT4_ARRAY, &mut out)
            .unwrap();
        assert_eq!(
            Vec::<Option<i32>>::from_sql(&Type::INT4_ARRAY, &out).unwrap(),
            [Some(-2), Some(1)]
        );
        assert!(
            ArrayParam::keys(&batch, &[0])
                .to_sql_checked(&Type::TEXT_ARRAY, &mut out)
                .is_err()
        );
    }

    /// The fast way and the general one write the same: a NULL in another request of the batch
    /// takes the column off the fast way.
    #[test]
    fn nulls_and_merged_writes_read_back() {
        let schema = Arc::new(schema());
        let ints = |keys: &[i64], values: &[i64], nulls: &[u8]| {
            let request = crate::input::ColumnarRequest {
                operation: crate::Operation::Upsert,
                key: crate::input::NamedInput {
                    name: "",
                    nulls: Default::default(),
                    input: crate::input::ColumnInput::Ints(keys),
                },
                columns: vec![crate::input::NamedInput {
                    name: "c1",
                    nulls: nulls.to_vec().into(),
                    input: crate::input::ColumnInput::Ints(values),
                }],
            };
            request.build(schema.clone()).unwrap()
        };
        for (nulls, expected) in [
            (&[][..], vec![Some(1), Some(2), Some(3)]),
            (&[0b10][..], vec![Some(1), Some(2), None]),
        ] {
            // Key 6 is written twice with one value.
            let blocks = [ints(&[5, 6], &[1, 2], &[]), ints(&[6, 7], &[2, 3], nulls)];
            let rows: Vec<(TableId, RowRef)> = (0..4)
                .map(|at| {
                    (
                        TableId::new(0),
                        RowRef {
                            block: at / 2,
                            row: at % 2,
                        },
                    )
                })
                .collect();
            let batch = Batch::build(schema.clone(), blocks.iter().collect(), &rows);
            let mut out = BytesMut::new();
            ArrayParam::column(&batch, &[0, 1, 2], 0)
                .to_sql_checked(&Type::INT4_ARRAY, &mut out)
                .unwrap();
            assert_eq!(
                Vec::<Option<i32>>::from_sql(&Type::INT4_ARRAY, &out).unwrap(),
                expected
            );
        }
    }
}
