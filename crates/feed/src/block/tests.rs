use std::sync::Arc;

use pgbraid_shardmap::{FeedName, KeyType};

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
