//! Unknown columns, kept in the jsonb column that the feed's settings name.

use serde_json::{Map, Number, Value};

use crate::{
    ColumnData, ColumnMask, FeedSchema, Refusal, RequestError,
    block::{BlockColumn, bit},
    columns::refuse,
    input::{NamedInput, Scalar},
    scalar::{Reason, ValueError},
};

/// PostgreSQL's jsonb input starts with the version of its format.
const JSONB_VERSION: u8 = 1;

/// The objects that one request puts into the overflow column.
pub(crate) struct Overflow {
    column: Option<usize>,
    rows: Vec<Map<String, Value>>,
    names: Vec<String>,
}

impl Overflow {
    pub(crate) fn new(schema: &FeedSchema) -> Self {
        Self {
            column: schema.overflow,
            rows: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Notes an unknown column's name; a name given twice is an error.
    pub(crate) fn name(&mut self, name: &str, field: &str) -> Result<(), RequestError> {
        if self.names.iter().any(|known| known == name) {
            return Err(RequestError::new(
                "REPEATED_COLUMN",
                field,
                format!("column {name:?} stands in the request twice"),
            ));
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Whether any row has an unknown column.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.iter().all(Map::is_empty)
    }

    /// The object of a row, made if it is not there yet.
    fn row(&mut self, row: u32) -> &mut Map<String, Value> {
        if self.rows.len() <= row as usize {
            self.rows.resize_with(row as usize + 1, Map::new);
        }
        &mut self.rows[row as usize]
    }

    pub(crate) fn has(&self, row: u32) -> bool {
        self.rows
            .get(row as usize)
            .is_some_and(|object| !object.is_empty())
    }

    pub(crate) fn add(
        &mut self,
        row: u32,
        name: &str,
        value: Scalar<'_>,
    ) -> Result<(), ValueError> {
        if let Some(value) = json(value)? {
            self.row(row).insert(name.to_owned(), value);
        }
        Ok(())
    }

    pub(crate) fn add_column(
        &mut self,
        named: &NamedInput<'_>,
        rows: u32,
        field: &str,
        refused: &mut Vec<Refusal>,
    ) -> Result<(), RequestError> {
        self.name(named.name, field)?;
        for row in 0..rows {
            let value = if bit(&named.nulls, row) {
                Ok(Scalar::Null)
            } else {
                named.input.get(row as usize)
            };
            if let Err(error) = value.and_then(|value| self.add(row, named.name, value)) {
                refuse(refused, row, named.name, error);
            }
        }
        Ok(())
    }

    /// The overflow column, if the request has unknown columns.
    pub(crate) fn finish(
        self,
        rows: u32,
        mask: &ColumnMask,
    ) -> Result<Option<BlockColumn>, RequestError> {
        let Some(column) = self.column.filter(|_| !self.names.is_empty()) else {
            return Ok(None);
        };
        if mask.contains(column) {
            return Err(RequestError::new(
                "OVERFLOW_WRITTEN_TWICE",
                "columns",
                format!(
                    "the request writes the overflow column itself and the unknown column {:?}: \
                     put all of it into one of the two",
                    self.names[0]
                ),
            ));
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(rows as usize);
        for row in 0..rows as usize {
            bytes.push(JSONB_VERSION);
            match self.rows.get(row) {
                Some(object) => serde_json::to_writer(&mut bytes, object)
                    .expect("a map with text keys is always JSON"),
                None => bytes.extend_from_slice(b"{}"),
            }
            ends.push(bytes.len() as u32);
        }
        Ok(Some(BlockColumn {
            column,
            data: ColumnData::Var {
                bytes: bytes.into(),
                ends,
            },
            nulls: Default::default(),
        }))
    }
}

fn json(value: Scalar<'_>) -> Result<Option<Value>, ValueError> {
    Ok(Some(match value {
        Scalar::Absent => return Ok(None),
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Int(value) => Value::Number(value.into()),
        Scalar::Double(value) => Value::Number(Number::from_f64(value).ok_or_else(|| {
            ValueError::new(
                Reason::OutOfRange,
                format!("{value} has no form in JSON: the column is unknown and kept as JSON"),
            )
        })?),
        Scalar::Text(text) if text.contains('\0') => {
            return Err(ValueError::new(
                Reason::InvalidText,
                "text holds a NUL character, which PostgreSQL can't store: remove it".into(),
            ));
        }
        Scalar::Text(text) => Value::String(text.to_owned()),
        Scalar::Bytes(_) => {
            return Err(ValueError::new(
                Reason::WrongType,
                "bytes have no form in JSON: the column is unknown and kept as JSON; send text"
                    .into(),
            ));
        }
    }))
}
