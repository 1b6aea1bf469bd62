use std::collections::HashMap;

use proptest::prelude::*;

use crate::block::tests::{block, schema};

use super::*;

fn all(blocks: &[Block]) -> Vec<(TableId, RowRef)> {
    let mut rows = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        for row in 0..block.rows() {
            let row = RowRef {
                block: index as u32,
                row,
            };
            rows.push((TableId::new(0), row));
        }
    }
    rows
}

fn int(value: Option<&[u8]>) -> Option<i32> {
    value.map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn different_columns_of_one_key_become_one_row() {
    let schema = Arc::new(schema());
    let blocks = vec![
        block(&schema, &[2], &[("c1", &[7])]),
        block(&schema, &[2], &[("c2", &[8])]),
    ];
    let batch = Batch::build(schema, blocks.iter().collect(), &all(&blocks));
    assert_eq!(batch.rows().len(), 1);
    assert!(batch.deferred().is_empty());
    assert_eq!(int(batch.value(0, 0)), Some(7));
    assert_eq!(int(batch.value(0, 1)), Some(8));
    let statements = batch.statements();
    assert_eq!(statements.len(), 1);
    assert!(statements[0].mask.iter().eq([0, 1]));
}

#[test]
fn a_write_that_hides_another_waits_and_so_does_what_follows_it() {
    let schema = Arc::new(schema());
    let blocks = vec![
        block(&schema, &[2, 2], &[("c1", &[7, 8])]),
        block(&schema, &[2], &[("c2", &[9])]),
    ];
    let batch = Batch::build(schema.clone(), blocks.iter().collect(), &all(&blocks));
    assert_eq!(batch.sources(0).len(), 1);
    assert_eq!(int(batch.value(0, 0)), Some(7));
    assert_eq!(batch.deferred().len(), 2);
    let next = Batch::build(schema, blocks.iter().collect(), batch.deferred());
    assert_eq!(int(next.value(0, 0)), Some(8));
    assert_eq!(int(next.value(0, 1)), Some(9));
}

#[test]
fn equal_values_merge_and_with_last_the_later_value_wins() {
    let mut last = schema();
    last.coalesce = Coalesce::Last;
    let last = Arc::new(last);
    let same = Arc::new(schema());
    let blocks = vec![block(&same, &[2, 2], &[("c1", &[7, 7])])];
    assert_eq!(
        Batch::build(same, blocks.iter().collect(), &all(&blocks))
            .rows()
            .len(),
        1
    );
    let blocks = vec![block(&last, &[2, 2], &[("c1", &[7, 8])])];
    let batch = Batch::build(last, blocks.iter().collect(), &all(&blocks));
    assert!(batch.deferred().is_empty());
    assert_eq!(int(batch.value(0, 0)), Some(8));
}

proptest! {
    /// Whatever the order of keys and columns, writing batch after batch ends in the plain fold,
    /// each key stands once in a batch, and rows are sorted.
    #[test]
    fn batches_fold_like_the_events(
        writes in prop::collection::vec((0i64..6, 0usize..2, 0i32..3), 1..60)
    ) {
        let schema = Arc::new(schema());
        let blocks: Vec<Block> = writes
            .iter()
            .map(|(key, column, value)| {
                let name = ["c1", "c2"][*column];
                block(&schema, &[*key], &[(name, &[*value])])
            })
            .collect();
        let mut expected: HashMap<(i64, usize), Vec<i32>> = HashMap::new();
        for (key, column, value) in &writes {
            let seen = expected.entry((*key, *column)).or_default();
            if seen.last() != Some(value) {
                seen.push(*value);
            }
        }
        let mut stored: HashMap<(i64, usize), Vec<i32>> = HashMap::new();
        let mut rows = all(&blocks);
        while !rows.is_empty() {
            let batch = Batch::build(schema.clone(), blocks.iter().collect(), &rows);
            let keys: Vec<i64> = (0..batch.rows().len() as u32)
                .map(|row| i64::from_le_bytes(batch.key(row).try_into().unwrap()))
                .collect();
            prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
            let total: usize = batch.statements().iter().map(|s| s.rows.len()).sum();
            prop_assert_eq!(total, keys.len());
            for statement in batch.statements() {
                for row in statement.rows {
                    for column in statement.mask.iter() {
                        let value = int(batch.value(row, column)).unwrap();
                        let seen = stored.entry((keys[row as usize], column)).or_default();
                        if seen.last() != Some(&value) {
                            seen.push(value);
                        }
                    }
                }
            }
            rows = batch.deferred().to_vec();
        }
        prop_assert_eq!(stored, expected);
    }
}

proptest! {
    /// Text keys that share long beginnings, and one that is the beginning of another.
    #[test]
    fn text_keys_are_sorted_and_stand_once(
        keys in prop::collection::vec("(order-0000)?[ab]{0,3}", 1..40)
    ) {
        let mut schema = schema();
        schema.key.ty = pgbraid_shardmap::KeyType::Text;
        let schema = Arc::new(schema);
        let block = crate::input::ColumnarRequest {
            operation: Operation::Upsert,
            key: crate::input::NamedInput {
                name: "",
                nulls: Default::default(),
                input: crate::input::ColumnInput::Texts(&keys),
            },
            columns: vec![],
        };
        let blocks = vec![block.build(schema.clone()).unwrap()];
        let batch = Batch::build(schema, blocks.iter().collect(), &all(&blocks));
        let sorted: Vec<&[u8]> = (0..batch.rows().len() as u32).map(|row| batch.key(row)).collect();
        let mut expected: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(sorted, expected);
    }
}
