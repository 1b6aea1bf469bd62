//! A batch's columns as PostgreSQL's binary arrays, written straight from the blocks.

use bytes::{BufMut, BytesMut};
use pgbraid_shardmap::KeyType;
use postgres_types::{IsNull, ToSql, Type};

use crate::{Batch, types::ColumnType};

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
    batch: &'a Batch,
    rows: &'a [u32],
    /// `None`: the keys.
    column: Option<usize>,
    element: Type,
    form: Form,
}

impl<'a> ArrayParam<'a> {
    /// The keys of rows.
    pub fn keys(batch: &'a Batch, rows: &'a [u32]) -> Self {
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
        }
    }

    /// A column of rows, all of which write it.
    pub fn column(batch: &'a Batch, rows: &'a [u32], column: usize) -> Self {
        let ty = &batch.schema().columns[column].ty;
        Self {
            batch,
            rows,
            column: Some(column),
            element: ty.wire_type(),
            form: Form::of(ty),
        }
    }

    fn value(&self, row: u32) -> Option<&[u8]> {
        match self.column {
            None => Some(self.batch.key(row)),
            Some(column) => self.batch.value(row, column),
        }
    }
}

impl ToSql for ArrayParam<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        let count = i32::try_from(self.rows.len())?;
        out.reserve(20 + self.rows.len() * 12);
        out.put_i32(1);
        let flags = out.len();
        out.put_i32(0);
        out.put_u32(self.element.oid());
        out.put_i32(count);
        out.put_i32(1);
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
        let block = Arc::new(block(&schema, &[5, -7], &[("c1", &[1, -2])]));
        let rows = [0, 1].map(|row| (TableId::new(0), RowRef { block: 0, row }));
        let batch = Batch::build(schema, vec![block], &rows);
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
}
