//! The feed that is written to: that of the published workloads, an `int8` key and twelve `int4`.

use std::sync::Arc;

use pgbraid_config::{IngestConfig, RouterConfig};
use pgbraid_feed::{Column, FeedSchema, KeyColumn, MergePolicy, types::ColumnType};
use pgbraid_shardmap::{FeedName, KeyType};

/// Its name.
pub const NAME: &str = "feed";

/// Those of its columns that the requests write, beside the key.
pub const WRITTEN: [&str; 2] = ["c1", "c2"];

/// The feed with so many tables.
pub fn schema(tables: u32) -> Arc<FeedSchema> {
    let names: Vec<String> = (1..=12).map(|number| format!("c{number}")).collect();
    let columns: Vec<(&str, ColumnType)> = names
        .iter()
        .map(|name| (name.as_str(), ColumnType::Int4))
        .collect();
    Arc::new(schema_of(KeyType::Int8, &columns, tables))
}

/// A feed with a key `id` and these columns.
pub fn schema_of(key: KeyType, columns: &[(&str, ColumnType)], tables: u32) -> FeedSchema {
    let columns = columns
        .iter()
        .map(|(name, ty)| Column {
            name: (*name).to_owned(),
            ty: ty.clone(),
            policy: MergePolicy::Set,
            not_null: false,
            generated: false,
        })
        .collect();
    FeedSchema::new(
        FeedName::parse(NAME).expect("a feed's name"),
        "public",
        NAME,
        KeyColumn {
            name: "id".to_owned(),
            ty: key,
        },
        columns,
        tables,
    )
}

/// The router's settings for ingestion, as they are without a file.
pub fn limits() -> IngestConfig {
    RouterConfig::parse("", "defaults")
        .expect("a router needs no settings")
        .ingest
}
