//! Requests as they come from the network: encoded, and the same in every run.

use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use pgbraid_proto::v1::{self, column::Values, value::Kind, write_request};
use prost::Message;

use crate::{
    feed,
    random::{self, SplitMix},
};

/// How rows are laid out in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns of fixed-width bytes.
    Columnar,
    /// Row messages, many in a request.
    Rows,
    /// One row message a request.
    Single,
}

/// Keys are below 2 to this, like those of 8M stored rows, unless so many are needed that they
/// would repeat.
const KEY_BITS: u32 = 23;

/// Keys in no order, each once.
pub fn keys(count: usize) -> Vec<i64> {
    let bits = KEY_BITS.max((count as u64 * 2).ilog2());
    (0..count as u64)
        .map(|number| random::scatter(number, bits) as i64)
        .collect()
}

/// So many requests of so many rows. No key stands in two of them. Requests of [`Form::Single`]
/// have one row whatever is asked for.
pub fn requests(form: Form, count: usize, rows: usize) -> Vec<Bytes> {
    let rows = if form == Form::Single { 1 } else { rows };
    let keys = keys(count * rows);
    let mut random = SplitMix::new(1);
    keys.chunks(rows)
        .zip(1..)
        .map(|(keys, sequence)| {
            let form = match form {
                Form::Columnar => columnar(keys, &mut random),
                Form::Rows | Form::Single => row_by_row(keys, &mut random),
            };
            encoded(sequence, form)
        })
        .collect()
}

/// A request on the wire.
pub fn encoded(sequence: u64, form: write_request::Form) -> Bytes {
    let request = v1::WriteRequest {
        sequence,
        feed: feed::NAME.to_owned(),
        form: Some(form),
        timeout: None,
    };
    request.encode_to_vec().into()
}

/// A column.
pub fn column(name: &str, values: Values) -> v1::Column {
    v1::Column {
        name: name.to_owned(),
        nulls: Bytes::new(),
        values: Some(values),
    }
}

/// Keys as fixed-width bytes.
pub fn int64s(keys: &[i64]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(keys.len() * 8);
    keys.iter().for_each(|key| bytes.put_i64_le(*key));
    bytes.freeze()
}

/// Random values as fixed-width bytes.
pub fn int32s(rows: usize, random: &mut SplitMix) -> Bytes {
    let mut bytes = BytesMut::with_capacity(rows * 4);
    (0..rows).for_each(|_| bytes.put_i32_le(random.below(10_000) as i32));
    bytes.freeze()
}

fn columnar(keys: &[i64], random: &mut SplitMix) -> write_request::Form {
    let columns = feed::WRITTEN
        .iter()
        .map(|name| column(name, Values::Int32s(int32s(keys.len(), random))))
        .collect();
    write_request::Form::Columnar(v1::ColumnarRows {
        operation: v1::Operation::Upsert.into(),
        key: Some(column("", Values::Int64s(int64s(keys)))),
        columns,
    })
}

fn row_by_row(keys: &[i64], random: &mut SplitMix) -> write_request::Form {
    let int = |value: i64| v1::Value {
        kind: Some(Kind::Int(value)),
    };
    let rows = keys
        .iter()
        .map(|key| v1::Row {
            operation: v1::Operation::Upsert.into(),
            key: Some(int(*key)),
            values: feed::WRITTEN
                .iter()
                .map(|_| int(random.below(10_000) as i64))
                .collect(),
        })
        .collect();
    write_request::Form::Rows(v1::RowBatch {
        columns: feed::WRITTEN.map(str::to_owned).to_vec(),
        rows,
    })
}
