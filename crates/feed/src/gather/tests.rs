use proptest::prelude::*;

use crate::{
    FeedSchema, Operation,
    block::tests::{block, schema},
    input::{ColumnInput, ColumnarRequest, NamedInput},
};

use super::*;

/// A request of keys and texts; a row without a key is refused.
fn request(schema: &Arc<FeedSchema>, rows: &[(Option<i64>, Option<String>)]) -> Block {
    let bits = |of: &dyn Fn(usize) -> bool| -> Bytes {
        let mut bits = vec![0u8; rows.len().div_ceil(8)];
        for at in 0..rows.len() {
            bits[at / 8] |= u8::from(of(at)) << (at % 8);
        }
        bits.into()
    };
    let keys: Vec<i64> = rows.iter().map(|(key, _)| key.unwrap_or(0)).collect();
    let texts: Vec<String> = rows
        .iter()
        .map(|(_, text)| text.clone().unwrap_or_default())
        .collect();
    let nulls = match rows.iter().any(|(_, text)| text.is_none()) {
        true => bits(&|at| rows[at].1.is_none()),
        false => Bytes::new(),
    };
    ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "",
            nulls: bits(&|at| rows[at].0.is_none()),
            input: ColumnInput::Ints(&keys),
        },
        columns: vec![NamedInput {
            name: "note",
            nulls,
            input: ColumnInput::Texts(&texts),
        }],
    }
    .build(schema.clone())
    .unwrap()
}

proptest! {
    /// Every valid row of every request stands once, with its values, in its table, and behind
    /// those of the table that came before.
    #[test]
    fn rows_of_all_requests_stand_by_table_in_their_order(
        requests in prop::collection::vec(
            prop::collection::vec(
                (prop::option::weighted(0.9, -9i64..9), prop::option::of("[a-c]{0,3}")), 1..30),
            1..6),
        turn in 0u32..64,
    ) {
        let schema = Arc::new(schema());
        let places: Vec<u32> = (0..64).map(|table| (table + turn) % 64).collect();
        let blocks: Vec<Block> = requests.iter().map(|rows| request(&schema, rows)).collect();
        let blocks: Vec<&Block> = blocks.iter().collect();
        let gathered = gather(&blocks, &places).unwrap();
        let valid = requests.iter().flatten().filter(|(key, _)| key.is_some()).count();
        prop_assert_eq!(gathered.origin.len(), valid);
        prop_assert_eq!(gathered.block.rows() as usize, valid);
        let order: Vec<u32> =
            gathered.segments.iter().map(|(table, ..)| places[table.index() as usize]).collect();
        prop_assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
        let mut next = 0;
        for (table, start, end) in gathered.segments {
            prop_assert_eq!(start, next);
            next = end;
            let numbers: Vec<(u32, u32)> = gathered.origin[start as usize..end as usize]
                .iter().map(|source| (source.block, source.row)).collect();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            for row in start..end {
                let source = gathered.origin[row as usize];
                let (key, text) = &requests[source.block as usize][source.row as usize];
                let key = key.unwrap();
                prop_assert_eq!(hash::table_of(hash::int8(key), 64), table);
                prop_assert_eq!(gathered.block.key(row), key.to_le_bytes());
                let found = gathered.block.column(2).unwrap().get(row);
                prop_assert_eq!(found, text.as_ref().map(String::as_bytes));
            }
        }
        prop_assert_eq!(next as usize, valid);
    }
}

#[test]
fn numbers_move_with_their_row_and_only_like_requests_are_gathered() {
    let schema = Arc::new(schema());
    let one = block(&schema, &[1, 2, 3], &[("c1", &[10, 20, 30])]);
    let two = block(&schema, &[4, 1], &[("c1", &[40, 11])]);
    assert!(one.is_like(&two));
    let gathered = gather(&[&one, &two], &[]).unwrap();
    for (row, source) in (0..).zip(&gathered.origin) {
        let from = [&one, &two][source.block as usize];
        assert_eq!(gathered.block.key(row), from.key(source.row));
        let value = |block: &Block, row| block.column(0).unwrap().get(row).unwrap().to_vec();
        assert_eq!(value(&gathered.block, row), value(from, source.row));
    }
    let other_column = block(&schema, &[1], &[("c2", &[1])]);
    let more_columns = block(&schema, &[1], &[("c1", &[1]), ("c2", &[1])]);
    let other_state = block(&Arc::new((*schema).clone()), &[1], &[("c1", &[1])]);
    for other in [other_column, more_columns, other_state] {
        assert!(!one.is_like(&other));
    }
    assert!(gather(&[], &[]).is_none());
}
