//! Prepared statements of one connection, bounded, the least recently used going first.

use std::{collections::HashMap, sync::Arc};

use pgbraid_feed::{ColumnMask, FeedSchema};
use tokio_postgres::Statement;

use crate::write::WriteTarget;

/// What a statement does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StatementForm {
    Upsert,
    /// Of the keys that are stored.
    Update,
    /// Of the keys that are not.
    InsertMissing,
    Delete,
}

/// What tells one statement from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StatementKey {
    /// Address of the feed's schema: another state of the catalog is another address.
    pub schema: usize,
    pub target: WriteTarget,
    pub form: StatementForm,
    pub mask: ColumnMask,
}

#[derive(Debug)]
struct Kept {
    statement: Statement,
    used: u64,
    _schema: Arc<FeedSchema>,
}

#[derive(Debug)]
pub(crate) struct StatementCache {
    limit: usize,
    clock: u64,
    /// With the schema, so that its address is not used again while it stands for it here.
    kept: HashMap<StatementKey, Kept>,
}

impl StatementCache {
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            clock: 0,
            kept: HashMap::new(),
        }
    }

    pub fn get(&mut self, key: &StatementKey) -> Option<Statement> {
        self.clock += 1;
        let kept = self.kept.get_mut(key)?;
        kept.used = self.clock;
        Some(kept.statement.clone())
    }

    pub fn put(&mut self, key: StatementKey, statement: Statement, schema: Arc<FeedSchema>) {
        if self.kept.len() >= self.limit {
            // Letting go of a tenth at once keeps the search off the usual path.
            let mut used: Vec<u64> = self.kept.values().map(|kept| kept.used).collect();
            used.sort_unstable();
            let cut = used[used.len() / 10];
            self.kept.retain(|_, kept| kept.used > cut);
        }
        self.clock += 1;
        let kept = Kept {
            statement,
            used: self.clock,
            _schema: schema,
        };
        self.kept.insert(key, kept);
    }

    pub fn clear(&mut self) {
        self.kept.clear();
    }
}
