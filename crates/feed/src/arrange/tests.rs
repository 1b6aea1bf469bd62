use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    Operation,
    block::tests::{block, schema},
    input::{ColumnInput, ColumnarRequest, NamedInput},
};

use super::*;

#[test]
fn every_row_stands_once_with_its_table_in_the_requests_order() {
    let schema = Arc::new(schema());
    let keys: Vec<i64> = (0..1000).map(|i| (i % 300) - 150).collect();
    let values: Vec<i32> = (0..1000).collect();
    let arranged = block(&schema, &keys, &[("c1", &values)]).arrange(&[]);
    let mut seen = vec![false; 1000];
    let mut end_before = 0;
    for (table, start, end) in &arranged.segments {
        assert_eq!(*start, end_before);
        end_before = *end;
        assert!(arranged.origin[*start as usize..*end as usize].is_sorted());
        for row in *start..*end {
            let origin = arranged.origin[row as usize] as usize;
            assert!(!std::mem::replace(&mut seen[origin], true));
            assert_eq!(arranged.block.key(row), keys[origin].to_le_bytes());
            let value = arranged.block.column(0).unwrap().get(row).unwrap();
            assert_eq!(value, values[origin].to_le_bytes());
            assert_eq!(hash::table_of(hash::int8(keys[origin]), 64), *table);
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
}

#[test]
fn refused_rows_are_left_out() {
    let block = ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "id",
            nulls: vec![0b10].into(),
            input: ColumnInput::Ints(&[1, 2, 3]),
        },
        columns: vec![],
    }
    .build(Arc::new(schema()))
    .unwrap();
    assert_eq!(block.refused().len(), 1);
    assert_eq!(block.refused()[0].reason, "NULL_KEY");
    let mut origin = block.arrange(&[]).origin;
    origin.sort();
    assert_eq!(origin, [0, 2]);
}

proptest! {
    /// Texts, NULLs, and few or many rows for the tables: the same values at the same rows,
    /// in the order of the tables' places.
    #[test]
    fn values_and_nulls_move_with_their_row(
        rows in prop::collection::vec((-9i64..9, prop::option::of("[a-c]{0,3}")), 1..40),
        turn in 0u32..64, few in any::<bool>(),
    ) {
        let mut schema = schema();
        schema.tables = if few { 4 } else { 64 };
        let tables = schema.tables;
        let schema = Arc::new(schema);
        let keys: Vec<i64> = rows.iter().map(|(key, _)| *key).collect();
        let texts: Vec<String> = rows.iter().map(|(_, t)| t.clone().unwrap_or_default()).collect();
        let mut nulls = vec![0u8; rows.len().div_ceil(8)];
        for (at, (_, text)) in rows.iter().enumerate() {
            nulls[at / 8] |= u8::from(text.is_none()) << (at % 8);
        }
        let block = ColumnarRequest {
            operation: Operation::Upsert,
            key: NamedInput { name: "", nulls: Bytes::new(), input: ColumnInput::Ints(&keys) },
            columns: vec![NamedInput {
                name: "note", nulls: nulls.into(), input: ColumnInput::Texts(&texts),
            }],
        }
        .build(schema.clone())
        .unwrap();
        let places: Vec<u32> = (0..tables).map(|table| (table + turn) % tables).collect();
        let arranged = block.arrange(&places);
        prop_assert_eq!(arranged.origin.len(), rows.len());
        let order: Vec<u32> =
            arranged.segments.iter().map(|(table, ..)| places[table.index() as usize]).collect();
        prop_assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
        for (table, start, end) in arranged.segments {
            for row in start..end {
                let (key, text) = &rows[arranged.origin[row as usize] as usize];
                prop_assert_eq!(hash::table_of(hash::int8(*key), tables), table);
                prop_assert_eq!(arranged.block.key(row), key.to_le_bytes());
                let found = arranged.block.column(2).unwrap().get(row);
                prop_assert_eq!(found, text.as_ref().map(String::as_bytes));
            }
        }
    }
}
