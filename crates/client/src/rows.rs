//! Builds requests row by row: each row may write other columns.

use bytes::Bytes;
use pgbraid_proto::v1::{self, value::Kind};

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Field {
    /// The stored value stays.
    #[default]
    Absent,
    /// Stores NULL.
    Null,
    /// A bool.
    Bool(bool),
    /// Any integer.
    Int(i64),
    /// Any floating point number.
    Double(f64),
    /// Any type, in its PostgreSQL text form.
    Text(String),
    /// A bytea, or the 16 bytes of a uuid.
    Bytes(Bytes),
}

macro_rules! from {
    ($($type:ty => $variant:ident),*) => {$(
        impl From<$type> for Field {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from!(bool => Bool, i16 => Int, i32 => Int, i64 => Int, f32 => Double, f64 => Double,
      &str => Text, String => Text, Bytes => Bytes, Vec<u8> => Bytes);

/// `None` is NULL.
impl<T: Into<Field>> From<Option<T>> for Field {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<Field> for v1::Value {
    fn from(field: Field) -> Self {
        let kind = match field {
            Field::Absent => None,
            Field::Null => Some(Kind::Null(v1::Null {})),
            Field::Bool(value) => Some(Kind::Bool(value)),
            Field::Int(value) => Some(Kind::Int(value)),
            Field::Double(value) => Some(Kind::Double(value)),
            Field::Text(value) => Some(Kind::Text(value)),
            Field::Bytes(value) => Some(Kind::Bytes(value)),
        };
        Self { kind }
    }
}

/// Builds a [`v1::WriteRequest`] row by row. [`Columns`](crate::Columns) is faster.
#[derive(Debug, Clone)]
pub struct Rows {
    feed: String,
    batch: v1::RowBatch,
}

impl Rows {
    /// For rows of this feed; each row gives values of these columns, in this order.
    pub fn new<S: Into<String>>(
        feed: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            feed: feed.into(),
            batch: v1::RowBatch {
                columns: columns.into_iter().map(Into::into).collect(),
                rows: Vec::new(),
            },
        }
    }

    /// Writes a row. Values missing at the end are absent.
    pub fn upsert(
        mut self,
        key: impl Into<Field>,
        values: impl IntoIterator<Item = Field>,
    ) -> Self {
        let values = values.into_iter().map(v1::Value::from).collect();
        self.push(v1::Operation::Upsert, key.into(), values);
        self
    }

    /// Deletes a row.
    pub fn delete(mut self, key: impl Into<Field>) -> Self {
        self.push(v1::Operation::Delete, key.into(), Vec::new());
        self
    }

    /// The request.
    pub fn build(self) -> v1::WriteRequest {
        v1::WriteRequest {
            sequence: 0,
            feed: self.feed,
            form: Some(v1::write_request::Form::Rows(self.batch)),
            timeout: None,
        }
    }

    fn push(&mut self, operation: v1::Operation, key: Field, values: Vec<v1::Value>) {
        self.batch.rows.push(v1::Row {
            operation: operation.into(),
            key: Some(key.into()),
            values,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_not_null() {
        let request = Rows::new("orders", ["a", "b"])
            .upsert(1i64, [Field::Absent, None::<i32>.into()])
            .delete("x")
            .build();
        let Some(v1::write_request::Form::Rows(batch)) = request.form else {
            panic!("not rows")
        };
        assert_eq!(batch.rows[0].values[0].kind, None);
        assert_eq!(batch.rows[0].values[1].kind, Some(Kind::Null(v1::Null {})));
        assert_eq!(batch.rows[1].operation, v1::Operation::Delete as i32);
    }
}
