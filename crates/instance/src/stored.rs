//! How many of a batch's keys are stored already, as far as experience tells.
//!
//! A bare update is a sixth faster than the upsert, but what it does not find must be inserted
//! afterwards. Which is better depends on who writes: the system that takes orders in inserts, the
//! others update what it inserted. They write different columns, so that the share is kept by
//! column mask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use pgbraid_feed::{ColumnMask, FeedSchema};

/// Fewer rows are upserted: what a second statement would cost is more than what is saved.
const FEWEST_ROWS: usize = 256;

/// The share of missing keys above which the upsert is the better way.
const MOST_MISSING: f32 = 0.1;

/// After so many upserts the update is tried again.
const TRY_AGAIN: u32 = 16;

/// Masks that are remembered.
const MOST_MASKS: usize = 4096;

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Of the last update.
    missing: f32,
    upserts: u32,
}

/// Remembers the share of stored keys by column mask.
#[derive(Debug, Default)]
pub(crate) struct StoredShare {
    known: Mutex<HashMap<(usize, ColumnMask), Known>>,
}

impl StoredShare {
    /// Whether to update first and insert what is missing then.
    pub fn update_first(&self, schema: &Arc<FeedSchema>, mask: &ColumnMask, rows: usize) -> bool {
        if rows < FEWEST_ROWS
            || mask.is_empty()
            || schema.insert_triggers
            // PostgreSQL refuses such an upsert whatever is stored, and so it shall stay: that it
            // works in large batches only would be no help.
            || !schema.required.iter().all(|column| mask.contains(column))
            // An update that finds an older version says the same as one that finds nothing.
            || schema.version_column.is_some_and(|column| mask.contains(column))
        {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_MASKS {
            known.clear();
        }
        let known = (known.entry((Arc::as_ptr(schema) as usize, mask.clone()))).or_default();
        if known.missing <= MOST_MISSING || known.upserts >= TRY_AGAIN {
            known.upserts = 0;
            return true;
        }
        known.upserts += 1;
        false
    }

    /// An update found so many of its rows.
    pub fn found(&self, schema: &Arc<FeedSchema>, mask: &ColumnMask, rows: usize, found: usize) {
        let missing = rows.saturating_sub(found) as f32 / rows.max(1) as f32;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (known.entry((Arc::as_ptr(schema) as usize, mask.clone()))).or_default();
        known.missing = missing;
    }
}

#[cfg(test)]
mod tests {
    use pgbraid_feed::{Column, KeyColumn, MergePolicy, types::ColumnType};
    use pgbraid_shardmap::{FeedName, KeyType};

    use super::*;

    fn schema() -> FeedSchema {
        let column = |name: &str| Column {
            name: name.into(),
            ty: ColumnType::Int4,
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
            vec![column("a"), column("b")],
            4,
        )
    }

    #[test]
    fn learns_who_inserts_and_asks_again_now_and_then() {
        let (share, schema) = (StoredShare::default(), Arc::new(schema()));
        let (inserts, updates): (ColumnMask, ColumnMask) =
            ([0].into_iter().collect(), [1].into_iter().collect());
        assert!(share.update_first(&schema, &inserts, 1000));
        share.found(&schema, &inserts, 1000, 0);
        share.found(&schema, &updates, 1000, 990);
        assert!(share.update_first(&schema, &updates, 1000));
        let tried = (0..2 * TRY_AGAIN)
            .filter(|_| share.update_first(&schema, &inserts, 1000))
            .count();
        assert_eq!(tried, 1);
        share.found(&schema, &inserts, 1000, 1000);
        assert!(share.update_first(&schema, &inserts, 1000));
        assert!(
            !share.update_first(&schema, &inserts, 10),
            "a few rows are upserted"
        );
    }

    #[test]
    fn where_an_update_would_not_mean_the_same_rows_are_upserted() {
        let (share, mask) = (StoredShare::default(), [0].into_iter().collect());
        let refused = |change: &dyn Fn(&mut FeedSchema)| {
            let mut schema = schema();
            change(&mut schema);
            !share.update_first(&Arc::new(schema), &mask, 1000)
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|schema| schema.insert_triggers = true));
        assert!(refused(&|schema| schema.version_column = Some(0)));
        assert!(refused(&|schema| schema.required.insert(1)));
        assert!(!refused(&|schema| schema.required.insert(0)));
    }
}
