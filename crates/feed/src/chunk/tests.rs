use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    FeedSchema, Operation,
    block::tests::{block, schema},
    input::{ColumnInput, ColumnarRequest, NamedInput},
};

use super::*;

/// A request of keys, numbers and texts.
fn request(schema: &Arc<FeedSchema>, rows: &[(i64, Option<i64>, Option<String>)]) -> Block {
    let bits = |of: &dyn Fn(usize) -> bool| -> Bytes {
        if !(0..rows.len()).any(of) {
            return Bytes::new();
        }
        let mut bits = vec![0u8; rows.len().div_ceil(8)];
        for at in 0..rows.len() {
            bits[at / 8] |= u8::from(of(at)) << (at % 8);
        }
        bits.into()
    };
    let keys: Vec<i64> = rows.iter().map(|(key, ..)| *key).collect();
    let numbers: Vec<i64> = rows
        .iter()
        .map(|(_, number, _)| number.unwrap_or(0))
        .collect();
    let texts: Vec<String> = rows
        .iter()
        .map(|(.., text)| text.clone().unwrap_or_default())
        .collect();
    ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "",
            nulls: Bytes::new(),
            input: ColumnInput::Ints(&keys),
        },
        columns: vec![
            NamedInput {
                name: "c1",
                nulls: bits(&|at| rows[at].1.is_none()),
                input: ColumnInput::Ints(&numbers),
            },
            NamedInput {
                name: "note",
                nulls: bits(&|at| rows[at].2.is_none()),
                input: ColumnInput::Texts(&texts),
            },
        ],
    }
    .build(schema.clone())
    .unwrap()
}

proptest! {
    /// What was appended reads as it did in its requests, NULLs too.
    #[test]
    fn rows_read_as_in_their_requests(
        requests in prop::collection::vec(
            (prop::collection::vec(
                (any::<i64>(), prop::option::weighted(0.8, -9i64..9), prop::option::weighted(0.8, "[a-c]{0,3}")),
                1..30,
            ), any::<[prop::sample::Index; 2]>()),
            1..6),
        room in 0usize..40,
    ) {
        let schema = Arc::new(schema());
        let blocks: Vec<Block> = requests.iter().map(|(rows, _)| request(&schema, rows)).collect();
        let mut chunk = Chunk::like(&blocks[0], room).unwrap();
        let mut expected = Vec::new();
        for (block, (rows, cuts)) in blocks.iter().zip(&requests) {
            let mut cuts = cuts.map(|cut| cut.index(rows.len() + 1));
            cuts.sort_unstable();
            prop_assert!(chunk.takes(block));
            chunk.append(block, cuts[0] as u32, cuts[1] as u32);
            expected.extend_from_slice(&rows[cuts[0]..cuts[1]]);
            prop_assert_eq!(chunk.rows() as usize, expected.len());
        }
        let block = chunk.finish();
        prop_assert_eq!(block.rows() as usize, expected.len());
        for (row, (key, number, text)) in (0..).zip(&expected) {
            prop_assert_eq!(block.key(row), key.to_le_bytes());
            let found = block.column(0).unwrap().get(row).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()));
            prop_assert_eq!(found.map(i64::from), *number);
            prop_assert_eq!(block.column(2).unwrap().get(row), text.as_ref().map(String::as_bytes));
        }
    }
}

#[test]
fn only_rows_of_its_kind_are_taken() {
    let of = Arc::new(schema());
    let first = block(&of, &[1, 2], &[("c1", &[10, 20])]);
    let chunk = Chunk::like(&first, 8).unwrap();
    assert!(chunk.takes(&block(&of, &[3], &[("c1", &[30])])));
    let other_column = block(&of, &[1], &[("c2", &[1])]);
    let more_columns = block(&of, &[1], &[("c1", &[1]), ("c2", &[1])]);
    let other_state = block(&Arc::new(schema()), &[1], &[("c1", &[1])]);
    let mut delete = block(&of, &[1], &[("c1", &[1])]);
    delete.operation = Operation::Delete;
    for other in [other_column, more_columns, other_state, delete] {
        assert!(!chunk.takes(&other));
    }
    let mut mixed = block(&of, &[1, 2], &[("c1", &[1, 2])]);
    mixed.other_operation = vec![0b10];
    assert!(!chunk.takes(&mixed));
    assert!(Chunk::like(&mixed, 8).is_none());
}

#[test]
fn a_full_chunk_takes_no_more() {
    let schema = Arc::new(schema());
    let text = "x".repeat(MOST_BYTES / 2);
    let half = request(&schema, &[(1, None, Some(text))]);
    let mut chunk = Chunk::like(&half, 8).unwrap();
    for _ in 0..2 {
        assert!(chunk.takes(&half));
        chunk.append(&half, 0, 1);
    }
    assert!(!chunk.takes(&half));
}

#[test]
fn room_for_rows_that_did_not_come_is_given_back() {
    for len in [1, 30, 1000] {
        let mut values = Vec::with_capacity(1000);
        values.resize(len, 0u8);
        let fitted = fit(values);
        assert_eq!(fitted.len(), len);
        assert!(fitted.capacity() <= 2 * len + 1, "{}", fitted.capacity());
    }
}
