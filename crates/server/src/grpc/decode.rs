//! From the protocol's messages to blocks.

use std::sync::Arc;

use pgbraid_config::IngestConfig;
use pgbraid_feed::{
    Block, FeedSchema, Operation, RequestError,
    input::{ColumnInput, ColumnarRequest, NamedInput, Scalar},
    rows::RowsBuilder,
};
use pgbraid_proto::v1::{self, column::Values, value::Kind, write_request::Form};

use super::wire::{WireRow, WireRows};

/// The rows of a request, checked.
pub fn block(
    form: &Form,
    schema: &Arc<FeedSchema>,
    limits: &IngestConfig,
) -> Result<Block, RequestError> {
    match form {
        Form::Columnar(rows) => columnar(rows, schema, limits),
        Form::Rows(rows) => row_by_row(rows, schema, limits),
    }
}

fn operation(number: i32, field: impl Fn() -> String) -> Result<Operation, RequestError> {
    match v1::Operation::try_from(number) {
        Ok(v1::Operation::Upsert) => Ok(Operation::Upsert),
        Ok(v1::Operation::Delete) => Ok(Operation::Delete),
        Err(_) => Err(RequestError::new(
            "UNKNOWN_OPERATION",
            field(),
            format!("{number} is no operation: 0 is upsert, 1 is delete"),
        )),
    }
}

fn too_many(rows: usize, limits: &IngestConfig, field: &str) -> Result<(), RequestError> {
    if rows > limits.max_request_rows {
        return Err(RequestError::new(
            "TOO_MANY_ROWS",
            field,
            format!(
                "{rows} rows in one request: at most {} are taken (ingest.max_request_rows); \
                 send several requests",
                limits.max_request_rows
            ),
        ));
    }
    Ok(())
}

fn columnar(
    request: &v1::ColumnarRows,
    schema: &Arc<FeedSchema>,
    limits: &IngestConfig,
) -> Result<Block, RequestError> {
    let key = request.key.as_ref().ok_or_else(|| {
        RequestError::new(
            "NO_KEY",
            "columnar.key",
            "the key column is not there: every row needs one",
        )
    })?;
    let key = named(key, "columnar.key")?;
    if let Ok(rows) = key.input.rows() {
        too_many(rows, limits, "columnar.key")?;
    }
    let columns = request
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| named(column, &format!("columnar.columns[{at}]")))
        .collect::<Result<_, _>>()?;
    ColumnarRequest {
        operation: operation(request.operation, || "columnar.operation".into())?,
        key,
        columns,
    }
    .build(schema.clone())
}

/// A column as the feed takes it: fixed-width bytes are shared with the message, not copied.
pub(crate) fn named<'a>(
    column: &'a v1::Column,
    field: &str,
) -> Result<NamedInput<'a>, RequestError> {
    let values = column.values.as_ref().ok_or_else(|| {
        RequestError::new(
            "NO_VALUES",
            field,
            format!("column {:?} has no values", column.name),
        )
    })?;
    let input = match values {
        Values::Bools(bytes) => ColumnInput::Bools(bytes.clone()),
        Values::Int16s(bytes) => ColumnInput::Int16s(bytes.clone()),
        Values::Int32s(bytes) => ColumnInput::Int32s(bytes.clone()),
        Values::Int64s(bytes) => ColumnInput::Int64s(bytes.clone()),
        Values::Float32s(bytes) => ColumnInput::Float32s(bytes.clone()),
        Values::Float64s(bytes) => ColumnInput::Float64s(bytes.clone()),
        Values::Uuids(bytes) => ColumnInput::Uuids(bytes.clone()),
        Values::Utf8(text) => ColumnInput::Utf8 {
            data: text.data.clone(),
            ends: text.ends.clone(),
        },
        Values::Ints(ints) => ColumnInput::Ints(&ints.values),
        Values::Doubles(doubles) => ColumnInput::Doubles(&doubles.values),
        Values::Texts(texts) => ColumnInput::Texts(&texts.values),
        Values::Blobs(blobs) => ColumnInput::Blobs(&blobs.values),
        Values::PackedBools(bools) => ColumnInput::BoolList(&bools.values),
    };
    Ok(NamedInput {
        name: &column.name,
        nulls: column.nulls.clone(),
        input,
    })
}

pub(super) fn scalar(value: &v1::Value) -> Scalar<'_> {
    match &value.kind {
        None => Scalar::Absent,
        Some(Kind::Null(_)) => Scalar::Null,
        Some(Kind::Bool(value)) => Scalar::Bool(*value),
        Some(Kind::Int(value)) => Scalar::Int(*value),
        Some(Kind::Double(value)) => Scalar::Double(*value),
        Some(Kind::Text(value)) => Scalar::Text(value),
        Some(Kind::Bytes(value)) => Scalar::Bytes(value),
    }
}

fn row_by_row(
    request: &v1::RowBatch,
    schema: &Arc<FeedSchema>,
    limits: &IngestConfig,
) -> Result<Block, RequestError> {
    too_many(request.rows.len(), limits, "rows.rows")?;
    let mut builder = RowsBuilder::new(schema.clone(), &request.columns, request.rows.len())?;
    for (at, row) in request.rows.iter().enumerate() {
        let operation = operation(row.operation, || format!("rows.rows[{at}].operation"))?;
        let key = row.key.as_ref().map_or(Scalar::Absent, scalar);
        builder.push(operation, key, row.values.iter().map(scalar))?;
    }
    builder.finish()
}

/// A row-form request as it came off the wire; `None`: prost is to read it.
pub(super) fn wire_rows(
    request: &WireRows<'_>,
    schema: &Arc<FeedSchema>,
    limits: &IngestConfig,
) -> Option<Result<Block, RequestError>> {
    if let Err(error) = too_many(request.rows.len(), limits, "rows.rows") {
        return Some(Err(error));
    }
    let (_, columns) = request.names()?;
    let mut builder = match RowsBuilder::new(schema.clone(), &columns, request.rows.len()) {
        Ok(builder) => builder,
        Err(error) => return Some(Err(error)),
    };
    let mut row = WireRow::default();
    for bytes in &request.rows {
        row.read(bytes)?;
        if let Err(error) = builder.push(row.operation, row.key, row.values.iter().copied()) {
            return Some(Err(error));
        }
    }
    Some(builder.finish())
}
