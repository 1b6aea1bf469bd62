//! Rows on their way into one upsert: sorted, and each key once.
//!
//! PostgreSQL refuses a key that stands in an `insert .. on conflict` twice, and unsorted batches
//! on two connections deadlock, so a batch is sorted by (table, key) and writes of one key are
//! merged where neither hides a value of the other. A write that would hide one is *deferred*:
//! it waits for a later batch, and so does everything after it for that key, which keeps the
//! order of the key's writes.

use std::sync::Arc;

use pgbraid_shardmap::{KeyType, TableId};

use self::{
    numbered::Numbered,
    sort::{Entry, sort},
};
use crate::{Block, Coalesce, ColumnMask, FeedSchema, MergePolicy, Operation};

/// A row of a block of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef {
    /// Index into [`Batch::blocks`].
    pub block: u32,
    /// Row in that block.
    pub row: u32,
}

/// A row as it goes to PostgreSQL: one write, or several of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedRow {
    /// Its table.
    pub table: TableId,
    start: u32,
    len: u32,
}

/// Rows of a batch that go into one statement: same operation, same columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What is done.
    pub operation: Operation,
    /// The columns that are written.
    pub mask: ColumnMask,
    /// Indexes into [`Batch::rows`], ascending, which is the order of (table, key).
    pub rows: Vec<u32>,
}

/// Rows for one instance in which each key stands once.
#[derive(Debug)]
pub struct Batch<'a> {
    schema: Arc<FeedSchema>,
    blocks: Vec<&'a Block>,
    sources: Vec<RowRef>,
    rows: Vec<MergedRow>,
    deferred: Vec<(TableId, RowRef)>,
    uniform: bool,
    /// The keys of `rows`, if they are numbers of one table; otherwise empty.
    keys: Vec<i64>,
}

impl<'a> Batch<'a> {
    /// Builds a batch from rows in their order of arrival. `rows` names blocks by index.
    pub fn build(
        schema: Arc<FeedSchema>,
        blocks: Vec<&'a Block>,
        rows: &[(TableId, RowRef)],
    ) -> Self {
        let mut batch = Self {
            schema,
            sources: Vec::new(),
            rows: Vec::new(),
            deferred: Vec::new(),
            uniform: is_uniform(&blocks),
            keys: Vec::new(),
            blocks,
        };
        match numbers(&batch.blocks, rows).map(Numbered::sorted) {
            Some(sorted) => batch.add_numbers(&sorted, rows),
            None => batch.add_keys(rows),
        }
        batch
    }

    /// Adds rows of one table whose keys are numbers.
    fn add_numbers(&mut self, sorted: &Numbered, rows: &[(TableId, RowRef)]) {
        let row_of = |entry: u64| rows[sorted.position(entry)];
        let table = rows[0].0;
        if sorted.are_distinct() {
            // Each key is written once.
            self.sources
                .extend(sorted.entries().iter().map(|entry| row_of(*entry).1));
            let row = |start| MergedRow {
                table,
                start,
                len: 1,
            };
            self.rows.extend((0..rows.len() as u32).map(row));
            self.keys.extend(sorted.keys().map(int8_of));
            return;
        }
        self.sources.reserve(rows.len());
        self.rows.reserve(rows.len());
        self.keys.reserve(rows.len());
        for group in sorted.groups() {
            self.keys.push(int8_of(sorted.key(group[0])));
            if let [entry] = group {
                self.rows.push(MergedRow {
                    table,
                    start: self.sources.len() as u32,
                    len: 1,
                });
                self.sources.push(row_of(*entry).1);
            } else {
                self.push_key(group.iter().map(|entry| row_of(*entry)));
            }
        }
    }

    /// Adds rows of any tables and keys.
    fn add_keys(&mut self, rows: &[(TableId, RowRef)]) {
        let key_of = |entry: Entry| {
            let row = rows[entry.position()].1;
            self.blocks[row.block as usize].key(row.row)
        };
        let ty = self.schema.key.ty;
        let mut entries: Vec<Entry> = Vec::with_capacity(rows.len());
        // Rows of one request and table come in a run: what they share is looked up once.
        for run in runs(rows) {
            let (table, first) = run[0];
            let block = self.blocks[first.block as usize];
            let numbered = run.iter().zip(entries.len()..);
            match block.int8_keys() {
                Some(keys) => entries.extend(numbered.map(|((_, row), at)| {
                    Entry::new(table, int8_prefix(keys[row.row as usize]), at)
                })),
                None => {
                    entries.extend(numbered.map(|((_, row), at)| {
                        Entry::new(table, bytes_prefix(block.key(row.row)), at)
                    }))
                }
            }
        }
        sort(&mut entries);
        if ty != KeyType::Int8 {
            // Keys that share their first 8 bytes are not in order yet.
            for tied in entries.chunk_by_mut(|a, b| a.group() == b.group()) {
                if tied.len() > 1 {
                    tied.sort_by(|a, b| key_of(*a).cmp(key_of(*b)));
                }
            }
        }
        let same_key = |a: &Entry, b: &Entry| {
            a.group() == b.group() && (ty == KeyType::Int8 || key_of(*a) == key_of(*b))
        };
        // Where each key's writes end.
        let mut ends = Vec::with_capacity(entries.len());
        let mut end = 0;
        for group in entries.chunk_by(same_key) {
            end += group.len();
            ends.push(end);
        }
        self.sources.reserve(entries.len());
        self.rows.reserve(ends.len());
        let mut start = 0;
        for end in ends {
            let group = &entries[start..end];
            self.push_key(group.iter().map(|entry| rows[entry.position()]));
            start = end;
        }
    }

    /// Adds the writes of one key, in their order.
    fn push_key(&mut self, mut writes: impl Iterator<Item = (TableId, RowRef)>) {
        let Some((table, first)) = writes.next() else {
            return;
        };
        let start = self.sources.len();
        self.sources.push(first);
        for (table, next) in writes.by_ref() {
            if can_merge(&self.schema, &self.blocks, &self.sources[start..], next) {
                self.sources.push(next);
            } else {
                self.deferred.push((table, next));
                break;
            }
        }
        self.deferred.extend(writes);
        self.rows.push(MergedRow {
            table,
            start: start as u32,
            len: (self.sources.len() - start) as u32,
        });
    }

    /// The feed.
    pub fn schema(&self) -> &Arc<FeedSchema> {
        &self.schema
    }

    /// The blocks that the batch was built from.
    pub fn blocks(&self) -> &[&'a Block] {
        &self.blocks
    }

    /// The rows, by (table, key).
    pub fn rows(&self) -> &[MergedRow] {
        &self.rows
    }

    /// Number of writes in the rows: those that were merged count each.
    pub fn writes(&self) -> usize {
        self.sources.len()
    }

    /// Writes that wait for a later batch, in order for each key.
    pub fn deferred(&self) -> &[(TableId, RowRef)] {
        &self.deferred
    }

    /// The writes that were merged into a row, in their order.
    pub fn sources(&self, row: u32) -> &[RowRef] {
        let merged = &self.rows[row as usize];
        &self.sources[merged.start as usize..(merged.start + merged.len) as usize]
    }

    /// The last write that was merged into a row.
    #[inline]
    pub(crate) fn last_source(&self, row: u32) -> RowRef {
        let merged = &self.rows[row as usize];
        self.sources[(merged.start + merged.len - 1) as usize]
    }

    /// The write of each row, where no row has more than one.
    pub(crate) fn lone_sources(&self) -> Option<&[RowRef]> {
        (self.sources.len() == self.rows.len()).then_some(&self.sources)
    }

    /// The keys of all rows, where they are numbers that were at hand when the rows were sorted.
    pub(crate) fn number_keys(&self) -> Option<&[i64]> {
        (!self.keys.is_empty()).then_some(&self.keys)
    }

    /// Whether every block writes the same columns of all its rows, and does the same with them.
    /// The writes that were merged into a row are then equal, or the last one counts.
    pub fn is_uniform(&self) -> bool {
        self.uniform
    }

    /// The key of a row.
    pub fn key(&self, row: u32) -> &[u8] {
        let source = self.sources(row)[0];
        self.blocks[source.block as usize].key(source.row)
    }

    /// The value of a column; `None` is NULL. The last write that has the column counts.
    #[inline]
    pub fn value(&self, row: u32, column: usize) -> Option<&[u8]> {
        let sources = self.sources(row);
        let source = if sources.len() == 1 {
            sources[0]
        } else {
            *sources
                .iter()
                .rev()
                .find(|source| {
                    self.blocks[source.block as usize]
                        .mask(source.row)
                        .contains(column)
                })
                .unwrap_or(&sources[0])
        };
        self.blocks[source.block as usize]
            .column(column)
            .and_then(|values| values.get(source.row))
    }

    /// The statements that write the batch, the largest first.
    pub fn statements(&self) -> Vec<Statement> {
        if let Some(statement) = self.one_statement() {
            return vec![statement];
        }
        let mut statements: Vec<Statement> = Vec::new();
        let mut last = 0;
        for row in 0..self.rows.len() as u32 {
            let sources = self.sources(row);
            let first = &self.blocks[sources[0].block as usize];
            let operation = first.operation(sources[0].row);
            let merged;
            let mask = if sources.len() == 1 {
                first.mask(sources[0].row)
            } else {
                let mut all = ColumnMask::new();
                for source in sources {
                    all.union(self.blocks[source.block as usize].mask(source.row));
                }
                merged = all;
                &merged
            };
            let fits = |s: &Statement| s.operation == operation && s.mask == *mask;
            if !statements.get(last).is_some_and(fits) {
                last = statements.iter().position(fits).unwrap_or_else(|| {
                    statements.push(Statement {
                        operation,
                        mask: mask.clone(),
                        rows: Vec::new(),
                    });
                    statements.len() - 1
                });
            }
            statements[last].rows.push(row);
        }
        statements.sort_by_key(|statement| std::cmp::Reverse(statement.rows.len()));
        statements
    }

    /// The usual case.
    fn one_statement(&self) -> Option<Statement> {
        let first = self.blocks.first().filter(|_| self.uniform)?;
        Some(Statement {
            operation: first.uniform_operation()?,
            mask: first.uniform_mask()?.clone(),
            rows: (0..self.rows.len() as u32).collect(),
        })
    }
}

/// Rows of one request and table, which come in runs.
fn runs(rows: &[(TableId, RowRef)]) -> impl Iterator<Item = &[(TableId, RowRef)]> {
    rows.chunk_by(|a, b| a.1.block == b.1.block && a.0 == b.0)
}

/// The keys of rows of one table, if all are numbers.
fn numbers(blocks: &[&Block], rows: &[(TableId, RowRef)]) -> Option<Numbered> {
    let (table, _) = rows.first()?;
    let mut keys = Vec::with_capacity(rows.len());
    for run in runs(rows) {
        let (of, first) = run[0];
        if of != *table {
            return None;
        }
        let all = blocks[first.block as usize].int8_keys()?;
        keys.extend(
            run.iter()
                .map(|(_, row)| int8_prefix(all[row.row as usize])),
        );
    }
    Numbered::new(keys)
}

/// See [`Batch::is_uniform`].
fn is_uniform(blocks: &[&Block]) -> bool {
    let same = |a: &Block, b: &Block| {
        a.uniform_mask().is_some()
            && a.uniform_mask() == b.uniform_mask()
            && a.uniform_operation().is_some()
            && a.uniform_operation() == b.uniform_operation()
            // Blocks read under two states of the catalog may number their columns differently.
            && Arc::ptr_eq(&a.schema, &b.schema)
    };
    blocks
        .first()
        .is_some_and(|first| blocks.iter().all(|block| same(first, block)))
}

/// The first 8 bytes of a key, as a number in the order of keys. Any order will do as long as
/// every router has the same one.
#[inline]
fn int8_prefix(key: [u8; 8]) -> u64 {
    i64::from_le_bytes(key).cast_unsigned() ^ (1 << 63)
}

/// The key of such a number.
#[inline]
fn int8_of(prefix: u64) -> i64 {
    (prefix ^ (1 << 63)).cast_signed()
}

/// The same of a text or uuid.
#[inline]
fn bytes_prefix(key: &[u8]) -> u64 {
    let mut word = [0; 8];
    let len = key.len().min(8);
    word[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(word)
}

/// Whether a write may join earlier ones of the same key without hiding anything.
fn can_merge(schema: &FeedSchema, blocks: &[&Block], earlier: &[RowRef], next: RowRef) -> bool {
    let block = &blocks[next.block as usize];
    let mask = block.mask(next.row);
    let operation = block.operation(next.row);
    let versioned = |mask: &ColumnMask| schema.version_column.is_some_and(|v| mask.contains(v));
    earlier.iter().all(|row| {
        let before = &blocks[row.block as usize];
        let before_mask = before.mask(row.row);
        // Blocks read under two states of the catalog number their columns differently.
        let same_schema = Arc::ptr_eq(&before.schema, &block.schema)
            || before.schema.columns == block.schema.columns;
        same_schema
            && before.operation(row.row) == operation
            && versioned(before_mask) == versioned(mask)
            && (before_mask.is_disjoint(mask)
                || before_mask.common(mask).all(|column| {
                    let later_wins = schema.coalesce == Coalesce::Last
                        && schema.columns[column].policy == MergePolicy::Set
                        && schema.version_column.is_none();
                    later_wins
                        || before.column(column).map(|c| c.get(row.row))
                            == block.column(column).map(|c| c.get(next.row))
                }))
    })
}

mod numbered;
mod sort;
#[cfg(test)]
mod tests;
