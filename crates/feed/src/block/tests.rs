use std::sync::Arc;

use pgbraid_shardmap::{FeedName, KeyType, TableId, hash};

use crate::{
    Column, FeedSchema, KeyColumn, MergePolicy,
    input::{ColumnInput, ColumnarRequest, NamedInput},
    types::ColumnType,
};

use super::*;

/// id int8; c1 int4, c2 int4, note text, at timestamptz, amount numeric(10,2)
pub(crate) fn schema() -> FeedSchema {
    let column = |name: &str, ty| Column {
        name: name.into(),
        ty,
        policy: MergePolicy::Set,
        not_null: false,
        generated: false,
    };
    FeedSchema::new(
        FeedName::parse("orders").unwrap(),
        "public",
        "orders",
        KeyColumn {
            name: "id".into(),
            ty: KeyType::Int8,
        },
        vec![
            column("c1", ColumnType::Int4),
            column("c2", ColumnType::Int4),
            column("note", ColumnType::Text),
            column("at", ColumnType::Timestamptz),
            column(
                "amount",
                ColumnType::Numeric {
                    precision: Some(10),
                    scale: 2,
                },
            ),
        ],
        64,
    )
}

/// A block of keys that writes the given int4 columns.
pub(crate) fn block(schema: &Arc<FeedSchema>, keys: &[i64], columns: &[(&str, &[i32])]) -> Block {
    ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "",
            nulls: Bytes::new(),
            input: ColumnInput::Int64s(
                keys.iter()
                    .flat_map(|key| key.to_le_bytes())
                    .collect::<Vec<_>>()
                    .into(),
            ),
        },
        columns: columns
            .iter()
            .map(|(name, values)| NamedInput {
                name,
                nulls: Bytes::new(),
                input: ColumnInput::Int32s(
                    values
                        .iter()
                        .flat_map(|v| v.to_le_bytes())
                        .collect::<Vec<_>>()
                        .into(),
                ),
            })
            .collect(),
    }
    .build(schema.clone())
    .unwrap()
}

#[test]
fn routes_every_row_once_and_keeps_the_order_within_a_table() {
    let schema = Arc::new(schema());
    let keys: Vec<i64> = (0..1000).map(|i| (i % 300) - 150).collect();
    let values = vec![0; 1000];
    let block = block(&schema, &keys, &[("c1", &values)]);
    let routed = block.route();
    assert_eq!(routed.order.len(), 1000);
    let mut seen = vec![false; 1000];
    let mut end_before = 0;
    for (table, start, end) in &routed.segments {
        assert_eq!(*start, end_before);
        end_before = *end;
        let rows = &routed.order[*start as usize..*end as usize];
        assert!(rows.is_sorted());
        for row in rows {
            assert!(!std::mem::replace(&mut seen[*row as usize], true));
            let hash = hash::int8(keys[*row as usize]);
            assert_eq!(hash::table_of(hash, 64), TableId::new(table.index()));
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
}

#[test]
fn refused_rows_are_not_routed() {
    let schema = Arc::new(schema());
    let block = ColumnarRequest {
        operation: Operation::Upsert,
        key: NamedInput {
            name: "id",
            nulls: vec![0b10].into(),
            input: ColumnInput::Ints(&[1, 2, 3]),
        },
        columns: vec![],
    }
    .build(schema)
    .unwrap();
    assert_eq!(block.refused().len(), 1);
    assert_eq!(block.refused()[0].reason, "NULL_KEY");
    let mut order = block.route().order;
    order.sort();
    assert_eq!(order, [0, 2]);
}
