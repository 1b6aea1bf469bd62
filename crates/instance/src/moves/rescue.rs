//! A mover that dies in a cut-over leaves a table that nobody writes. Any router may end that: what
//! is not decided is undone, what is decided is carried out.

use std::time::Duration;

use pgbraid_feed::FeedSchema;
use pgbraid_shardmap::{Epoch, TableId};

use super::fence;
use crate::{
    DbError, Instance,
    sql::{leaf, qualified},
};

/// Tries again soon: no writer waits behind us for longer.
const LOCK: &str = "set local synchronous_commit = on; set local lock_timeout = 500";

impl Instance {
    /// On a source: takes back a fence that has stood for longer than `after` without a decision.
    /// Returns whether there was one.
    ///
    /// # Errors
    /// If the table can't be locked for a moment, or the instance not be reached.
    pub async fn undo_stale_fence(
        &self,
        schema: &FeedSchema,
        table: TableId,
        after: Duration,
    ) -> Result<bool, DbError> {
        let mut client = self.connect("").await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK).await?;
        let undone = transaction
            .execute(
                "update pgbraid.ownership set state = 'owned', moved_to = null, \
                 changed_at = clock_timestamp() where feed = $1 and tbl = $2 \
                 and state = 'moving_out' \
                 and changed_at < clock_timestamp() - $3::int8 * interval '1 ms'",
                &[
                    &schema.feed.as_str(),
                    &(table.index() as i32),
                    &(after.as_millis() as i64),
                ],
            )
            .await?;
        if undone == 0 {
            return Ok(false);
        }
        let leaf = qualified(&schema.schema, &leaf(&schema.table, table.index()));
        transaction
            .batch_execute(&format!(
                "{}; notify pgbraid_ownership",
                fence::lower(&leaf)
            ))
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// On a source: the move that has taken the table away for good, if one has: its id, and the
    /// epoch that the source had.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn decided_move(
        &self,
        schema: &FeedSchema,
        table: TableId,
        after: Duration,
    ) -> Result<Option<(String, Epoch)>, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_opt(
                "select move_id::text, epoch from pgbraid.ownership where feed = $1 and tbl = $2 \
                 and state = 'moved' and move_id is not null \
                 and changed_at < clock_timestamp() - $3::int8 * interval '1 ms'",
                &[
                    &schema.feed.as_str(),
                    &(table.index() as i32),
                    &(after.as_millis() as i64),
                ],
            )
            .await?;
        session.done();
        Ok(row.map(|row| (row.get(0), Epoch(row.get::<_, i64>(1) as u64))))
    }

    /// On a target: takes a table whose move the source has decided. Returns whether it was
    /// moving in by that move.
    ///
    /// # Errors
    /// If the table can't be locked for a moment, or the instance not be reached.
    pub async fn own_decided(
        &self,
        schema: &FeedSchema,
        table: TableId,
        id: &str,
        epoch: Epoch,
    ) -> Result<bool, DbError> {
        let mut client = self.connect("").await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK).await?;
        let owned = transaction
            .execute(
                "update pgbraid.ownership set state = 'owned', epoch = epoch + 1, \
                 moved_to = null, before_epoch = null, changed_at = clock_timestamp() \
                 where feed = $1 and tbl = $2 and state = 'moving_in' and epoch = $4 \
                 and move_id = $3::text::uuid",
                &[
                    &schema.feed.as_str(),
                    &(table.index() as i32),
                    &id,
                    &(epoch.0 as i64),
                ],
            )
            .await?;
        if owned == 0 {
            return Ok(false);
        }
        let leaf = qualified(&schema.schema, &leaf(&schema.table, table.index()));
        transaction
            .batch_execute(&format!(
                "{}; notify pgbraid_ownership",
                fence::lower(&leaf)
            ))
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}
