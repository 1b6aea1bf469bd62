//! The settings of one feed.

use std::collections::BTreeMap;

use pgbraid_shardmap::FeedName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{Check, MAX_NAME_BYTES};
use crate::error::ConfigError;
use crate::qualified_name::QualifiedName;
use crate::raw::router::RawFeed;

/// The settings of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedConfig {
    /// The parent table. Its name leaves room for the suffix of a leaf: `orders_17`.
    pub table: QualifiedName,
    /// Which writes of one key are merged into one.
    pub coalesce: Coalesce,
    /// The column by which an older version of a row never overwrites a newer one.
    pub version_column: Option<String>,
    /// The jsonb column that takes unknown columns; without it they are refused.
    pub overflow: Option<String>,
    /// The policy of columns that do not have the default one.
    pub merge: BTreeMap<String, MergePolicy>,
}

/// Which writes of one key in a batch are merged into one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coalesce {
    /// Those that write different columns, or the same values; others wait for the next batch, so
    /// that rules see every value.
    #[default]
    Disjoint,
    /// All; the later value wins. For feeds without rules on passing values.
    Last,
}

/// What becomes of a column's stored value when a new one comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergePolicy {
    /// The new value replaces it.
    #[default]
    Set,
    /// The first value that is not null stays.
    KeepFirst,
    /// The keys of the new object are put into the stored one (`||` of jsonb).
    JsonMerge,
    /// The greater one stays.
    Max,
    /// The lesser one stays.
    Min,
}

impl FeedConfig {
    /// The settings of a feed that pgbraid.toml does not mention.
    pub fn default_for(feed: &FeedName) -> Self {
        Self {
            table: QualifiedName {
                schema: "public".into(),
                name: feed.as_str().to_owned(),
            },
            coalesce: Coalesce::default(),
            version_column: None,
            overflow: None,
            merge: BTreeMap::new(),
        }
    }

    /// The policy of a column.
    pub fn merge_policy(&self, column: &str) -> MergePolicy {
        self.merge.get(column).copied().unwrap_or_default()
    }

    pub(crate) fn build(
        check: Check<'_>,
        feed: &FeedName,
        raw: &RawFeed,
    ) -> Result<Self, ConfigError> {
        let key = |name: &str| format!("feeds.{feed}.{name}");
        let mut config = Self::default_for(feed);
        config.coalesce = raw.coalesce;
        if let Some(at) = &raw.table {
            let bad = |error| check.refuse(at, format!("{}: {error}", key("table")), "");
            config.table = at.parse().map_err(bad)?;
            let len = config.table.name.len();
            if len > MAX_TABLE_NAME_BYTES {
                let message = format!(
                    "{}: the table's name has {len} bytes, allowed are 1 to {MAX_TABLE_NAME_BYTES}",
                    key("table")
                );
                let help = "its leaves are named after it, such as orders_4095, and PostgreSQL cuts names after 63 bytes";
                return Err(check.refuse(at, message, help));
            }
        }
        if let Some(at) = &raw.version_column {
            config.version_column = Some(check.name(&key("version_column"), at)?);
        }
        if let Some(at) = &raw.overflow {
            if raw.version_column.as_deref() == Some(&**at) {
                let message = format!("{} is also the version column", key("overflow"));
                let help = "name a column of type jsonb that is used for nothing else";
                return Err(check.refuse(at, message, help));
            }
            config.overflow = Some(check.name(&key("overflow"), at)?);
        }
        for (column, &policy) in &raw.merge {
            let name = check.name(&key("merge"), column)?;
            config.merge.insert(name, policy);
        }
        Ok(config)
    }
}

/// What `_4095`, the longest suffix of a leaf, leaves of a name.
const MAX_TABLE_NAME_BYTES: usize = MAX_NAME_BYTES - "_4095".len();
