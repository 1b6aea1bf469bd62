//! A feed as the catalog has it, completed by the feed's settings.

use pgbraid_config::{self as config, FeedConfig};
use pgbraid_feed::{Coalesce, FeedSchema, MergePolicy, types::ColumnType};
use pgbraid_instance::{DbError, DbErrorKind};

/// Applies a feed's settings to its schema.
///
/// # Errors
/// If a setting names a column that is not there, or one of the wrong type.
pub(crate) fn apply(mut schema: FeedSchema, feed: &FeedConfig) -> Result<FeedSchema, DbError> {
    let name = schema.feed.clone();
    let wrong = |setting: &str, message: String| {
        DbError::new(
            DbErrorKind::Contradiction,
            format!("[feeds.{name}] {setting} in pgbraid.toml: {message}"),
        )
    };
    let find = |schema: &FeedSchema, setting: &str, column: &str| {
        schema.column_index(column).ok_or_else(|| {
            let hint = match schema.nearest_column(column) {
                Some(nearest) => format!(": did you mean {nearest:?}?"),
                None => String::new(),
            };
            wrong(
                setting,
                format!(
                    "{} has no column {column:?} beside its key{hint}",
                    feed.table
                ),
            )
        })
    };
    schema.coalesce = match feed.coalesce {
        config::Coalesce::Disjoint => Coalesce::Disjoint,
        config::Coalesce::Last => Coalesce::Last,
    };
    for (column, policy) in &feed.merge {
        let index = find(&schema, "merge", column)?;
        let policy = match policy {
            config::MergePolicy::Set => MergePolicy::Set,
            config::MergePolicy::KeepFirst => MergePolicy::KeepFirst,
            config::MergePolicy::JsonMerge => MergePolicy::JsonMerge,
            config::MergePolicy::Max => MergePolicy::Max,
            config::MergePolicy::Min => MergePolicy::Min,
        };
        let ty = &schema.columns[index].ty;
        let json = matches!(ty, ColumnType::Json | ColumnType::Jsonb);
        if policy == MergePolicy::JsonMerge && !json {
            return Err(wrong(
                "merge",
                format!(
                    "column {column:?} is {}, but json_merge needs json or jsonb",
                    ty.sql_name()
                ),
            ));
        }
        if matches!(policy, MergePolicy::Max | MergePolicy::Min) && *ty == ColumnType::Json {
            return Err(wrong(
                "merge",
                format!("column {column:?} is json, which has no order: {policy} needs one"),
            ));
        }
        schema.columns[index].policy = policy;
    }
    if let Some(column) = &feed.version_column {
        schema.version_column = Some(find(&schema, "version_column", column)?);
    }
    if let Some(column) = &feed.overflow {
        let index = find(&schema, "overflow", column)?;
        if schema.columns[index].ty != ColumnType::Jsonb {
            return Err(wrong(
                "overflow",
                format!(
                    "column {column:?} is {}, but it must be jsonb",
                    schema.columns[index].ty.sql_name()
                ),
            ));
        }
        // Unknown columns of several writers add up in one object.
        if !feed.merge.contains_key(column) {
            schema.columns[index].policy = MergePolicy::JsonMerge;
        }
        schema.overflow = Some(index);
    }
    Ok(schema)
}
