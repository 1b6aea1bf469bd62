//! Drops what is left of tables that moved away.

use std::time::Duration;

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::{Epoch, TableId};

use super::fence;
use crate::{
    DbError, DbErrorKind, Instance,
    sql::{leaf, qualified},
};

/// A table that moved away and is still there, fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The table.
    pub table: TableId,
    /// The epoch in which it was owned here.
    pub epoch: Epoch,
    /// Where it went.
    pub moved_to: Option<String>,
    /// How long ago.
    pub age: Duration,
    /// Bytes that it holds.
    pub bytes: u64,
}

impl Instance {
    /// What is left of a feed's tables that moved away. Those of moves that are not finished are
    /// left out.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn leftovers(&self, schema: &FeedSchema) -> Result<Vec<Leftover>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select o.tbl, o.epoch, o.moved_to, \
                 (extract(epoch from clock_timestamp() - o.changed_at) * 1000)::int8, \
                 pg_total_relation_size(c.oid) \
                 from pgbraid.ownership o \
                 join pg_namespace n on n.nspname = $2 \
                 join pg_class c on c.relnamespace = n.oid and c.relname = $3 || '_' || o.tbl \
                 where o.feed = $1 and o.state = 'moved' and o.move_id is null order by 1",
                &[&schema.feed.as_str(), &schema.schema, &schema.table],
            )
            .await?;
        session.done();
        Ok(rows
            .into_iter()
            .map(|row| Leftover {
                table: TableId::new(row.get::<_, i32>(0) as u32),
                epoch: Epoch(row.get::<_, i64>(1) as u64),
                moved_to: row.get(2),
                age: Duration::from_millis(row.get::<_, i64>(3).max(0) as u64),
                bytes: row.get::<_, i64>(4).max(0) as u64,
            })
            .collect())
    }

    /// Drops what is left of a table: detaches it concurrently, which locks nobody out, then drops
    /// it. The row that says where it went stays.
    ///
    /// # Errors
    /// If the table is not one that moved away at that epoch, or can't be detached or dropped.
    pub async fn drop_leftover(&self, schema: &FeedSchema, left: &Leftover) -> Result<(), DbError> {
        let mut client = self
            .connect("-c statement_timeout=0 -c idle_in_transaction_session_timeout=0")
            .await?;
        let other = self.connect("-c statement_timeout=0").await?;
        let number = left.table.index();
        let parent = qualified(&schema.schema, &schema.table);
        let child = qualified(&schema.schema, &leaf(&schema.table, number));
        let transaction = client.transaction().await?;
        // Under the row's lock nothing can make the table anew or take it back.
        transaction
            .query_opt(
                "select from pgbraid.ownership where feed = $1 and tbl = $2 and epoch = $3 \
                 and state = 'moved' and move_id is null for update",
                &[
                    &schema.feed.as_str(),
                    &(number as i32),
                    &(left.epoch.0 as i64),
                ],
            )
            .await?
            .ok_or_else(|| {
                DbError::new(
                    DbErrorKind::Contradiction,
                    format!(
                        "{} of feed {} on {} is not a table that moved away any more: nothing \
                         was dropped",
                        left.table,
                        schema.feed,
                        self.name()
                    ),
                )
            })?;
        fence::detach(&other, &parent, &child).await?;
        transaction
            .batch_execute(&format!("drop table if exists {child}"))
            .await?;
        Ok(transaction.commit().await?)
    }
}
