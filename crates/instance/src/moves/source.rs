//! The source of a move: publication, slot, fence, and the decision.

use std::time::{Duration, Instant};

use pgbraid_shardmap::InstanceName;
use postgres_types::PgLsn;
use tokio_postgres::Client;

use super::{Move, MovingRow, fence, moving_row};
use crate::{DbError, DbErrorKind, Instance, sql::quote_ident};

/// A connection to the source of a move.
pub struct SourceSide {
    pub(super) client: Client,
    pub(super) instance: InstanceName,
}

/// What the source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSeen {
    /// Its row of ownership.
    pub row: Option<MovingRow>,
    /// The publication is there.
    pub publication: bool,
    /// The slot is there and has all it needs.
    pub slot: bool,
    /// Bytes of WAL that the target has not applied yet; `None` if that is not known now.
    pub lag: Option<u64>,
}

/// A fence that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Every write that was let through lies before it.
    pub lsn: PgLsn,
    /// Which fence this is.
    pub cut: i32,
    /// When writers were locked out.
    pub at: Instant,
}

impl Instance {
    /// Connects to the source of a move.
    ///
    /// # Errors
    /// If it can't be reached, or is another server.
    pub async fn move_source(&self) -> Result<SourceSide, DbError> {
        Ok(SourceSide {
            client: self.connect("").await?,
            instance: self.name(),
        })
    }
}

impl SourceSide {
    /// Looks at the source.
    ///
    /// # Errors
    /// If it can't be asked.
    pub async fn look(&self, of: &Move) -> Result<SourceSeen, DbError> {
        let row = self
            .client
            .query_one(
                "select o.state, o.epoch, o.move_id = $3::text::uuid, o.moved_to, o.mover_term, \
                 o.cut, exists (select from pg_publication where pubname = $4::text), \
                 s.slot_name is not null and coalesce(s.wal_status, '') <> 'lost', \
                 case when s.active then pg_wal_lsn_diff(pg_current_wal_flush_lsn(), \
                 s.confirmed_flush_lsn)::int8 end \
                 from (select 1) as one \
                 left join pgbraid.ownership o on o.feed = $1 and o.tbl = $2 \
                 left join pg_replication_slots s on s.slot_name = $4::text",
                &[&of.feed(), &of.number(), &of.id_text(), &of.name()],
            )
            .await?;
        Ok(SourceSeen {
            row: moving_row(&row, 0)?,
            publication: row.get(6),
            slot: row.get(7),
            // Ahead of what is flushed: there is no lag.
            lag: row.get::<_, Option<i64>>(8).map(|lag| lag.max(0) as u64),
        })
    }

    /// Marks the table with the move, or takes over one that another mover left behind.
    ///
    /// # Errors
    /// If the source does not own the table at the move's epoch, or another move has it.
    pub async fn mark(&self, of: &Move) -> Result<(), DbError> {
        let marked = self
            .client
            .execute(
                "update pgbraid.ownership set move_id = $3::text::uuid, mover_term = $5 \
                 where feed = $1 and tbl = $2 and epoch = $4 and state in ('owned', 'moving_out') \
                 and (move_id is null or move_id = $3::text::uuid) and mover_term <= $5",
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &(of.epoch.0 as i64),
                    &of.term,
                ],
            )
            .await?;
        match marked {
            1 => Ok(()),
            _ => Err(of.out_of_date("marking", self.instance)),
        }
    }

    /// Makes publication and slot. The publication first: changes from before it could not be
    /// decoded.
    ///
    /// # Errors
    /// If they can't be made.
    pub async fn publish(&self, of: &Move) -> Result<(), DbError> {
        let name = of.name();
        let there = self
            .client
            .query_opt("select from pg_publication where pubname = $1", &[&name])
            .await?;
        if there.is_none() {
            let sql = format!(
                "create publication {} for table only {}",
                quote_ident(&name),
                of.leaf()
            );
            self.client.batch_execute(&sql).await?;
        }
        self.client
            .execute(
                "select pg_create_logical_replication_slot($1::text, 'pgoutput') \
                 where not exists (select from pg_replication_slots where slot_name = $1::text)",
                &[&name],
            )
            .await?;
        Ok(())
    }

    /// Fences the table, in one short transaction.
    ///
    /// # Errors
    /// `Conflict` if writers held the table for longer than `lock_timeout`: nothing has changed.
    pub async fn fence(&mut self, of: &Move, lock_timeout: Duration) -> Result<Fenced, DbError> {
        let transaction = self.client.transaction().await?;
        transaction
            .batch_execute(&format!(
                "set local synchronous_commit = on; set local lock_timeout = {}",
                lock_timeout.as_millis().max(1)
            ))
            .await?;
        let row = transaction
            .query_opt(
                "update pgbraid.ownership set state = 'moving_out', moved_to = $6, cut = cut + 1, \
                 mover_term = $5, changed_at = clock_timestamp() \
                 where feed = $1 and tbl = $2 and state = 'owned' and epoch = $4 \
                 and move_id = $3::text::uuid and mover_term <= $5 returning cut",
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &(of.epoch.0 as i64),
                    &of.term,
                    &of.target.to_string(),
                ],
            )
            .await?
            .ok_or_else(|| of.out_of_date("fencing", self.instance))?;
        let at = Instant::now();
        transaction
            .batch_execute(&format!("{}; notify pgbraid_ownership", fence::raise(of)))
            .await?;
        transaction.commit().await?;
        // Whoever wrote the table has committed before the fence did.
        let lsn = self
            .client
            .query_one("select pg_current_wal_flush_lsn()", &[])
            .await?
            .get(0);
        Ok(Fenced {
            lsn,
            cut: row.get(0),
            at,
        })
    }

    /// Whether the target has applied everything up to a position, and flushed it. What is not known
    /// is no. The target reports a position once it has no transaction before it left to flush; the
    /// slot shows that to every role, where `pg_stat_replication` needs one of its own.
    ///
    /// # Errors
    /// If the source can't be asked.
    pub async fn replayed(&self, of: &Move, lsn: PgLsn) -> Result<bool, DbError> {
        let row = self
            .client
            .query_one(
                "select coalesce((select confirmed_flush_lsn >= $2 from pg_replication_slots \
                 where slot_name = $1::text), false)",
                &[&of.name(), &lsn],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Decides the move: from here on the table is the target's. The only place where that is
    /// decided; [`Self::undo`] meets the same row, so that one of the two happens.
    ///
    /// # Errors
    /// If that fence was undone meanwhile: then the source goes on owning the table.
    pub async fn decide(&mut self, of: &Move, cut: i32) -> Result<(), DbError> {
        let transaction = self.client.transaction().await?;
        transaction
            .batch_execute("set local synchronous_commit = on")
            .await?;
        let decided = transaction
            .execute(
                "update pgbraid.ownership set state = 'moved', changed_at = clock_timestamp() \
                 where feed = $1 and tbl = $2 and state = 'moving_out' and epoch = $4 \
                 and move_id = $3::text::uuid and mover_term <= $5 and cut = $6",
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &(of.epoch.0 as i64),
                    &of.term,
                    &cut,
                ],
            )
            .await?;
        if decided != 1 {
            return Err(of.out_of_date("deciding the move of", self.instance));
        }
        Ok(transaction.commit().await?)
    }

    /// Takes the fence back if the move is not decided yet. Returns whether there was one.
    ///
    /// # Errors
    /// If the table can't be locked for a moment, or the source not be reached.
    pub async fn undo(&mut self, of: &Move) -> Result<bool, DbError> {
        let transaction = self.client.transaction().await?;
        transaction
            .batch_execute("set local lock_timeout = 1000")
            .await?;
        let undone = transaction
            .execute(
                "update pgbraid.ownership set state = 'owned', moved_to = null, \
                 changed_at = clock_timestamp() where feed = $1 and tbl = $2 \
                 and state = 'moving_out' and epoch = $4 and move_id = $3::text::uuid",
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &(of.epoch.0 as i64),
                ],
            )
            .await?;
        if undone == 0 {
            return Ok(false);
        }
        transaction
            .batch_execute(&format!(
                "{}; notify pgbraid_ownership",
                fence::lower(&of.leaf())
            ))
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Drops slot and publication. A walsender that still holds the slot is ended first.
    ///
    /// # Errors
    /// If they can't be dropped.
    pub async fn unpublish(&self, of: &Move) -> Result<(), DbError> {
        let name = of.name();
        let dropped = self
            .client
            .batch_execute(&format!(
                "select pg_terminate_backend(active_pid) from pg_replication_slots \
                 where slot_name = '{name}' and active_pid is not null; \
                 select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                 where slot_name = '{name}'"
            ))
            .await;
        match dropped.map_err(DbError::from) {
            // The walsender has not left yet.
            Err(error) if error.sqlstate.as_deref() == Some("55006") => {
                return Err(DbError {
                    kind: DbErrorKind::Conflict,
                    ..error
                });
            }
            other => other?,
        }
        let sql = format!("drop publication if exists {}", quote_ident(&name));
        Ok(self.client.batch_execute(&sql).await?)
    }

    /// Forgets the move. If the source has kept the table, it is as it was before the move.
    ///
    /// # Errors
    /// If the source can't be reached.
    pub async fn unmark(&self, of: &Move) -> Result<(), DbError> {
        let row = self
            .client
            .query_opt(
                "update pgbraid.ownership set move_id = null where feed = $1 and tbl = $2 \
                 and move_id = $3::text::uuid and state in ('owned', 'moved') returning state",
                &[&of.feed(), &of.number(), &of.id_text()],
            )
            .await?;
        if row.is_some_and(|row| row.get::<_, String>(0) == "owned") {
            fence::remove_if_idle(&self.client, &of.leaf()).await;
        }
        Ok(())
    }
}
