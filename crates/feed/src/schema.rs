//! What a feed looks like: its parent table as PostgreSQL's catalog has it, and its settings.

use std::{collections::HashMap, fmt, str::FromStr};

use pgbraid_shardmap::{FeedName, KeyType};

use crate::{ColumnMask, types::ColumnType};

/// How a written value meets the stored one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MergePolicy {
    /// The written value replaces the stored one.
    #[default]
    Set,
    /// The stored value stays unless it is NULL.
    KeepFirst,
    /// `stored || written` (json and jsonb objects).
    JsonMerge,
    /// The greater of the two; NULL loses.
    Max,
    /// The smaller of the two; NULL loses.
    Min,
}

impl MergePolicy {
    /// The name used in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::KeepFirst => "keep_first",
            Self::JsonMerge => "json_merge",
            Self::Max => "max",
            Self::Min => "min",
        }
    }
}

impl fmt::Display for MergePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MergePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::Set,
            Self::KeepFirst,
            Self::JsonMerge,
            Self::Max,
            Self::Min,
        ]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or_else(|| {
            format!("{text:?} is not a merge policy: use set, keep_first, json_merge, max or min")
        })
    }
}

/// Whether two writes of one key in a batch may become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalesce {
    /// Only where neither hides a value of the other, so that rules see every value written.
    #[default]
    Disjoint,
    /// Always; the later value wins. For feeds without rules on passing values.
    Last,
}

/// A column of a feed, other than its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name as in the catalog, unquoted.
    pub name: String,
    /// Type.
    pub ty: ColumnType,
    /// How a written value meets the stored one.
    pub policy: MergePolicy,
    /// NOT NULL.
    pub not_null: bool,
    /// Computed by PostgreSQL: can't be written.
    pub generated: bool,
}

/// The key column: the order id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Name as in the catalog, unquoted.
    pub name: String,
    /// Type.
    pub ty: KeyType,
}

/// A feed: one logical wide table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSchema {
    /// The feed's name.
    pub feed: FeedName,
    /// Schema of the parent table, unquoted.
    pub schema: String,
    /// Name of the parent table, unquoted. Its partitions are this name, `_`, and their number.
    pub table: String,
    /// The key.
    pub key: KeyColumn,
    /// All other columns, in the catalog's order.
    pub columns: Vec<Column>,
    /// The column that orders versions of a row, if there is one.
    pub version_column: Option<usize>,
    /// The jsonb column that keeps unknown columns, if there is one.
    pub overflow: Option<usize>,
    /// Whether two writes of one key in a batch may become one.
    pub coalesce: Coalesce,
    /// Number of tables (hash partitions).
    pub tables: u32,
    /// Columns that are NOT NULL without a default: an insert that leaves one out is refused.
    pub required: ColumnMask,
    /// Whether the table has triggers of its own that see an `insert .. on conflict` differently
    /// from an update.
    pub insert_triggers: bool,
    by_name: HashMap<String, usize>,
}

impl FeedSchema {
    /// A feed with default policies, no version column and no overflow column.
    pub fn new(
        feed: FeedName,
        schema: impl Into<String>,
        table: impl Into<String>,
        key: KeyColumn,
        columns: Vec<Column>,
        tables: u32,
    ) -> Self {
        let by_name = columns
            .iter()
            .enumerate()
            .map(|(index, column)| (column.name.clone(), index))
            .collect();
        Self {
            feed,
            schema: schema.into(),
            table: table.into(),
            key,
            columns,
            version_column: None,
            overflow: None,
            coalesce: Coalesce::default(),
            tables,
            required: ColumnMask::new(),
            insert_triggers: false,
            by_name,
        }
    }

    /// Position of a column by its exact name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The name most like `name`, for error messages.
    pub fn nearest_column(&self, name: &str) -> Option<&str> {
        let wanted = name.to_lowercase();
        self.columns
            .iter()
            .map(|column| column.name.as_str())
            .chain([self.key.name.as_str()])
            .map(|known| (distance(&wanted, &known.to_lowercase()), known))
            .filter(|(distance, known)| *distance <= 1 + known.chars().count() / 4)
            .min()
            .map(|(_, known)| known)
    }
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_column_that_was_meant() {
        let schema = crate::block::tests::schema();
        assert_eq!(schema.nearest_column("C1"), Some("c1"));
        assert_eq!(schema.nearest_column("nothing_like_it"), None);
        assert_eq!(schema.column_index("c1"), Some(0));
        assert_eq!(schema.column_index("C1"), None);
    }

    #[test]
    fn policies_round_trip() {
        for policy in ["set", "keep_first", "json_merge", "max", "min"] {
            assert_eq!(policy.parse::<MergePolicy>().unwrap().as_str(), policy);
        }
        assert!(
            "sum"
                .parse::<MergePolicy>()
                .unwrap_err()
                .contains("keep_first")
        );
    }
}
