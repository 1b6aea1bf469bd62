use pgbraid_proto::v1::{self, value::Kind, write_request::Form};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::grpc::decode::scalar;

fn kinds() -> impl Strategy<Value = Option<Kind>> {
    prop_oneof![
        Just(None),
        Just(Some(Kind::Null(v1::Null {}))),
        any::<bool>().prop_map(|value| Some(Kind::Bool(value))),
        any::<i64>().prop_map(|value| Some(Kind::Int(value))),
        (-1e9..1e9).prop_map(|value| Some(Kind::Double(value))),
        ".{0,9}".prop_map(|value| Some(Kind::Text(value))),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|b| Some(Kind::Bytes(b.into()))),
    ]
}

fn value() -> impl Strategy<Value = v1::Value> {
    kinds().prop_map(|kind| v1::Value { kind })
}

fn request() -> impl Strategy<Value = v1::WriteRequest> {
    let row = (
        0..2i32,
        prop::option::of(value()),
        prop::collection::vec(value(), 0..4),
    );
    let rows = prop::collection::vec(row, 0..4);
    let columns = prop::collection::vec("[a-z]{0,5}", 0..4);
    (any::<u64>(), "[a-zé]{0,9}", columns, rows).prop_map(|(sequence, feed, columns, rows)| {
        let rows = rows
            .into_iter()
            .map(|(operation, key, values)| v1::Row {
                operation,
                key,
                values,
            })
            .collect();
        v1::WriteRequest {
            sequence,
            feed,
            form: Some(Form::Rows(v1::RowBatch { columns, rows })),
            timeout: None,
        }
    })
}

fn row(bytes: &[u8]) -> Option<WireRow<'_>> {
    let mut row = WireRow::default();
    row.read(bytes)?;
    Some(row)
}

/// What is read here is what prost reads.
fn same(bytes: &[u8]) -> bool {
    let Some(read) = read(bytes) else {
        return false;
    };
    let rows: Option<Vec<WireRow<'_>>> = read.rows.iter().map(|bytes| row(bytes)).collect();
    if let Some(alike) = Alike::of(bytes) {
        let found = alike.row(bytes).expect("it is like itself");
        assert_eq!(found, (read.sequence, read.rows[0]));
    }
    let Some(rows) = rows else {
        return false;
    };
    let Some((feed, columns)) = read.names() else {
        return false;
    };
    let message = v1::WriteRequest::decode(bytes).expect("what is read here, prost can read");
    assert_eq!((read.sequence, feed), (message.sequence, &*message.feed));
    assert!(message.timeout.is_none());
    let Some(Form::Rows(batch)) = &message.form else {
        panic!("read as rows: {message:?}")
    };
    assert!(columns.iter().eq(batch.columns.iter()));
    assert_eq!(rows.len(), batch.rows.len());
    for (row, expected) in rows.iter().zip(&batch.rows) {
        assert_eq!(row.operation == Operation::Delete, expected.operation == 1);
        assert_eq!(
            row.key,
            expected.key.as_ref().map_or(Scalar::Absent, scalar)
        );
        assert!(
            row.values
                .iter()
                .copied()
                .eq(expected.values.iter().map(scalar))
        );
    }
    true
}

proptest! {
    #[test]
    fn requests_are_read_as_prost_reads_them(request in request()) {
        prop_assert!(same(&request.encode_to_vec()));
    }

    /// Damaged ones are read alike or not at all.
    #[test]
    fn damage_is_never_read_otherwise(
        request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
        }
        same(&bytes);
    }

    /// What is taken to be like another request has its feed and columns, and one row.
    #[test]
    fn only_what_is_like_the_first_is_read_as_such(
        first in request(), other in request(), same_names in any::<bool>(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(), damage in any::<bool>(),
    ) {
        let mut other = other;
        if let (true, Some(Form::Rows(from)), Some(Form::Rows(to))) =
            (same_names, &first.form, &mut other.form)
        {
            to.columns = from.columns.clone();
            other.feed = first.feed.clone();
        }
        let first = first.encode_to_vec();
        let mut bytes = other.encode_to_vec();
        if damage && !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((sequence, row)) = Alike::of(&first).and_then(|alike| alike.row(&bytes)) {
            let (first, read) = (read(&first).unwrap(), read(&bytes).unwrap());
            prop_assert_eq!((read.feed, &read.columns), (first.feed, &first.columns));
            prop_assert_eq!((read.sequence, read.rows.as_slice()), (sequence, &[row][..]));
        }
    }

    #[test]
    fn answers_are_encoded_as_prost_does(sequence in any::<u64>(), rows in any::<u64>(), shift in 0u32..64) {
        for (sequence, rows) in [(sequence >> shift, rows), (sequence, rows >> shift), (0, 0)] {
            let message = v1::WriteResponse { sequence, rows_committed: rows, ..Default::default() };
            let mut found = Vec::new();
            put_committed(sequence, rows, &mut found);
            prop_assert_eq!(found, message.encode_to_vec());
        }
    }

    #[test]
    fn noise_is_never_read_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        same(&bytes);
    }
}

#[test]
fn other_forms_are_left_to_prost() {
    let columnar = v1::WriteRequest {
        form: Some(Form::Columnar(v1::ColumnarRows::default())),
        ..Default::default()
    };
    assert!(read(&columnar.encode_to_vec()).is_none());
    let timed = v1::WriteRequest {
        form: Some(Form::Rows(v1::RowBatch::default())),
        timeout: Some(Default::default()),
        ..Default::default()
    };
    assert!(read(&timed.encode_to_vec()).is_none());
}

proptest! {
    /// Of any length, at the end of the message and before other bytes.
    #[test]
    fn varints_read_back(value in any::<u64>(), shift in 0u32..64, rest in 0usize..9) {
        let value = value >> shift;
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(value, &mut bytes);
        bytes.resize(bytes.len() + rest, 0xff);
        let mut reader = Reader(&bytes);
        prop_assert_eq!(reader.varint(), Some(value));
        prop_assert_eq!(reader.0.len(), rest);
    }
}

/// A client's requests of one row each are read the short way.
#[test]
fn requests_of_one_row_are_alike() {
    let request = |sequence, key| v1::WriteRequest {
        sequence,
        feed: "orders".into(),
        form: Some(Form::Rows(v1::RowBatch {
            columns: vec!["c1".into(), "c2".into()],
            rows: vec![v1::Row {
                operation: 0,
                key: Some(v1::Value {
                    kind: Some(Kind::Int(key)),
                }),
                values: vec![v1::Value {
                    kind: Some(Kind::Int(-5)),
                }],
            }],
        })),
        timeout: None,
    };
    let first = request(0, 7).encode_to_vec();
    let other = request(300, 1 << 40).encode_to_vec();
    let alike = Alike::of(&first).unwrap();
    let (sequence, bytes) = alike.row(&other).unwrap();
    assert_eq!(sequence, 300);
    assert_eq!(row(bytes).unwrap().key, Scalar::Int(1 << 40));
    let mut of_another_feed = request(1, 7);
    of_another_feed.feed = "order2".into();
    assert!(alike.row(&of_another_feed.encode_to_vec()).is_none());
}
