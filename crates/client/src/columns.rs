//! Builds requests in columnar form: the fast one.

use bytes::Bytes;
use pgbraid_proto::v1::{self, column::Values};

use crate::error::BuildError;

/// Builds a [`v1::WriteRequest`] in columnar form, in the fixed-width encodings, which cost the
/// router least. Every row writes all columns that are given; the others keep what is stored.
///
/// Values may be given as they are or as options, where `None` is NULL.
#[derive(Debug, Clone)]
pub struct Columns {
    feed: String,
    operation: v1::Operation,
    key: Option<(usize, v1::Column)>,
    columns: Vec<(usize, v1::Column)>,
    too_long: Option<String>,
}

macro_rules! fixed_width {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $form:ident, $bytes:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name<V: Into<Option<$type>>>(
            mut self,
            column: &str,
            values: impl IntoIterator<Item = V>,
        ) -> Self {
            let encode: fn($type) -> _ = $bytes;
            let (mut data, mut nulls) = (Vec::new(), Nulls::default());
            for value in values {
                let value: Option<$type> = value.into();
                nulls.push(value.is_none());
                data.extend_from_slice(&encode(value.unwrap_or_default()));
            }
            let column = nulls.column(column, Values::$form(data.into()));
            self.columns.push(column);
            self
        }
    )*};
}

impl Columns {
    /// For rows of this feed.
    pub fn new(feed: impl Into<String>) -> Self {
        Self {
            feed: feed.into(),
            operation: v1::Operation::Upsert,
            key: None,
            columns: Vec::new(),
            too_long: None,
        }
    }

    /// Deletes the rows of the keys; give no columns then.
    pub fn delete(mut self) -> Self {
        self.operation = v1::Operation::Delete;
        self
    }

    /// The keys of a feed whose key is int8.
    pub fn keys_int8(self, keys: impl IntoIterator<Item = i64>) -> Self {
        self.keys_from(|columns| columns.int64s("", keys))
    }

    /// The keys of a feed whose key is uuid.
    pub fn keys_uuid(self, keys: impl IntoIterator<Item = [u8; 16]>) -> Self {
        self.keys_from(|columns| columns.uuids("", keys))
    }

    /// The keys of a feed whose key is text.
    pub fn keys_text<S: AsRef<str>>(self, keys: impl IntoIterator<Item = S>) -> Self {
        self.keys_from(|columns| columns.texts("", keys.into_iter().map(Some)))
    }

    fixed_width! {
        /// A column of type bool.
        bools: bool => Bools, |value| [u8::from(value)];
        /// A column of type int2.
        int16s: i16 => Int16s, i16::to_le_bytes;
        /// A column of type int4.
        int32s: i32 => Int32s, i32::to_le_bytes;
        /// A column of type int8; or a timestamp in µs since 1970-01-01 UTC, a date in days since
        /// then, a time in µs since midnight.
        int64s: i64 => Int64s, i64::to_le_bytes;
        /// A column of type float4.
        float32s: f32 => Float32s, f32::to_le_bytes;
        /// A column of type float8.
        float64s: f64 => Float64s, f64::to_le_bytes;
        /// A column of type uuid.
        uuids: [u8; 16] => Uuids, |value| value;
    }

    /// A column of any type, each value in its PostgreSQL text form; `None` is NULL.
    pub fn texts<S: AsRef<str>>(
        mut self,
        column: &str,
        values: impl IntoIterator<Item = Option<S>>,
    ) -> Self {
        let (mut data, mut ends, mut nulls) = (Vec::new(), Vec::new(), Nulls::default());
        for value in values {
            nulls.push(value.is_none());
            if let Some(value) = value {
                data.extend_from_slice(value.as_ref().as_bytes());
            }
            let Ok(end) = u32::try_from(data.len()) else {
                self.too_long = Some(column.to_owned());
                return self;
            };
            ends.extend_from_slice(&end.to_le_bytes());
        }
        let utf8 = v1::Utf8 {
            data: data.into(),
            ends: ends.into(),
        };
        self.columns.push(nulls.column(column, Values::Utf8(utf8)));
        self
    }

    /// The request.
    ///
    /// # Errors
    /// There are no keys, or a column has another length than they.
    pub fn build(self) -> Result<v1::WriteRequest, BuildError> {
        if let Some(column) = self.too_long {
            return Err(BuildError::TooLong { column });
        }
        let (keys, key) = self.key.ok_or(BuildError::NoKeys)?;
        let mut columns = Vec::with_capacity(self.columns.len());
        for (found, column) in self.columns {
            if found != keys {
                let column = column.name;
                return Err(BuildError::Length {
                    column,
                    found,
                    keys,
                });
            }
            columns.push(column);
        }
        Ok(v1::WriteRequest {
            sequence: 0,
            feed: self.feed,
            form: Some(v1::write_request::Form::Columnar(v1::ColumnarRows {
                operation: self.operation.into(),
                key: Some(key),
                columns,
            })),
            timeout: None,
        })
    }

    fn keys_from(self, add: impl FnOnce(Self) -> Self) -> Self {
        let mut columns = add(self);
        if let Some(key) = columns.columns.pop() {
            columns.key = Some(key);
        }
        columns
    }
}

/// The bitmap of a column's NULLs, made when the first one comes.
#[derive(Default)]
struct Nulls {
    rows: usize,
    bits: Vec<u8>,
}

impl Nulls {
    fn push(&mut self, null: bool) {
        if null {
            self.bits.resize(self.rows / 8 + 1, 0);
            self.bits[self.rows / 8] |= 1 << (self.rows % 8);
        }
        self.rows += 1;
    }

    fn column(mut self, name: &str, values: Values) -> (usize, v1::Column) {
        if !self.bits.is_empty() {
            self.bits.resize(self.rows.div_ceil(8), 0);
        }
        let column = v1::Column {
            name: name.to_owned(),
            nulls: Bytes::from(self.bits),
            values: Some(values),
        };
        (self.rows, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_with_and_without_nulls() {
        let request = Columns::new("orders")
            .keys_int8(0..10)
            .int32s("a", 0..10)
            .int64s("b", (0..10).map(|i| (i != 9).then_some(i)))
            .texts("c", (0..10).map(|i| (i > 0).then_some("ü")))
            .build()
            .unwrap();
        let Some(v1::write_request::Form::Columnar(rows)) = request.form else {
            panic!("not columnar")
        };
        let key = rows.key.unwrap();
        assert!(key.nulls.is_empty());
        assert!(matches!(key.values, Some(Values::Int64s(b)) if b.len() == 80));
        assert!(rows.columns[0].nulls.is_empty());
        assert_eq!(rows.columns[1].nulls.as_ref(), [0, 2]);
        assert_eq!(rows.columns[2].nulls.as_ref(), [1, 0]);
        let Some(Values::Utf8(texts)) = &rows.columns[2].values else {
            panic!("not texts")
        };
        assert_eq!((texts.data.len(), texts.ends.len()), (18, 40));
    }

    #[test]
    fn what_cannot_be_built() {
        let short = Columns::new("f").keys_int8(0..3).int32s("a", 0..2).build();
        assert!(matches!(short, Err(BuildError::Length { found: 2, .. })));
        let none = Columns::new("f").int32s("a", 0..2).build();
        assert_eq!(none, Err(BuildError::NoKeys));
    }
}
