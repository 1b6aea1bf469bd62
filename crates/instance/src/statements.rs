//! Prepared statements of one connection, bounded, the least recently used going first.

use std::collections::HashMap;

use pgbraid_feed::{ColumnMask, Operation};
use pgbraid_shardmap::FeedName;
use tokio_postgres::Statement;

use crate::write::WriteTarget;

/// What tells one statement from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StatementKey {
    pub feed: FeedName,
    /// Changes with the feed's columns.
    pub schema: usize,
    pub target: WriteTarget,
    pub operation: Operation,
    pub mask: ColumnMask,
}

#[derive(Debug)]
pub(crate) struct StatementCache {
    limit: usize,
    clock: u64,
    kept: HashMap<StatementKey, (Statement, u64)>,
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
        let (statement, used) = self.kept.get_mut(key)?;
        *used = self.clock;
        Some(statement.clone())
    }

    pub fn put(&mut self, key: StatementKey, statement: Statement) {
        if self.kept.len() >= self.limit {
            // Letting go of a tenth at once keeps the search off the usual path.
            let mut used: Vec<u64> = self.kept.values().map(|(_, used)| *used).collect();
            used.sort_unstable();
            let cut = used[used.len() / 10];
            self.kept.retain(|_, (_, used)| *used > cut);
        }
        self.clock += 1;
        self.kept.insert(key, (statement, self.clock));
    }

    pub fn clear(&mut self) {
        self.kept.clear();
    }
}
