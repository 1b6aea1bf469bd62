//! The source of a move: publication, slot, fence, and the decision.

use std::time::{Duration, Instant};

use pgbraid_shardmap::InstanceName;
use postgres_types::PgLsn;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::{FLUSHED, Move, MovingRow, fence, moving_row};
use crate::{DbError, DbErrorKind, Instance, sql::quote_ident};

/// A connection to the source of a move.
pub struct SourceSide {
    pub(super) client: Client,
    pub(super) instance: InstanceName,
    /// What is asked while writers wait.
    hurried: Option<Hurried>,
}

/// Statements of the cut-over, prepared before it.
#[derive(Clone)]
struct Hurried {
    replayed: Statement,
    decide: Statement,
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
    /// Bytes of WAL that were written by then.
    pub written: u64,
}

/// A fence that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Every write that was let through lies before it.
    pub lsn: PgLsn,
    /// Which fence this is.
    pub cut: i32,
    /// When the lock was asked for: writers waited from then on, at the most.
    pub at: Instant,
    /// How long it took until the fence stood.
    pub locked: Duration,
}

const REPLAYED: &str = "select coalesce((select confirmed_flush_lsn >= $2 from \
     pg_replication_slots where slot_name = $1::text), false)";

const DECIDE: &str = "update pgbraid.ownership set state = 'moved', \
     changed_at = clock_timestamp() where feed = $1 and tbl = $2 and state = 'moving_out' \
     and epoch = $4 and move_id = $3::text::uuid and mover_term <= $5 and cut = $6";

impl Instance {
    /// Connects to the source of a move.
    ///
    /// # Errors
    /// If it can't be reached, or is another server.
    pub async fn move_source(&self) -> Result<SourceSide, DbError> {
        Ok(SourceSide {
            // What a cut-over commits must not be lost.
            client: self.connect("-c synchronous_commit=on").await?,
            instance: self.name(),
            hurried: None,
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
                 s.confirmed_flush_lsn)::int8 end, \
                 pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::int8 \
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
            written: row.get::<_, i64>(9).max(0) as u64,
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

    /// Prepares what is asked while writers wait.
    async fn hurried(&mut self) -> Result<Hurried, DbError> {
        if let Some(hurried) = &self.hurried {
            return Ok(hurried.clone());
        }
        let hurried = Hurried {
            replayed: self.client.prepare(REPLAYED).await?,
            decide: self.client.prepare(DECIDE).await?,
        };
        Ok(self.hurried.insert(hurried).clone())
    }

    /// Makes the fence, lowered, so that it only has to be raised while writers wait.
    ///
    /// # Errors
    /// `Conflict` if writers held the table for longer than `lock_timeout`.
    pub async fn prepare_fence(&self, of: &Move, lock_timeout: Duration) -> Result<(), DbError> {
        let leaf = of.leaf();
        if fence::is_made(&self.client, &leaf).await? {
            return Ok(());
        }
        let made = self
            .client
            .batch_execute(&format!(
                "begin; set local lock_timeout = {}; {}; {}; commit",
                lock_timeout.as_millis().max(1),
                fence::make(of, fence::When::Before),
                fence::lower(&leaf)
            ))
            .await;
        if made.is_err() {
            let _ = self.client.batch_execute("rollback").await;
        }
        Ok(made?)
    }

    /// Raises the fence, in one short transaction. Writers wait from when the table is locked, so
    /// that this and all that follows is one message. It has to be made.
    ///
    /// # Errors
    /// `Conflict` if writers held the table for longer than `lock_timeout`: nothing has changed.
    pub async fn fence(&mut self, of: &Move, lock_timeout: Duration) -> Result<Fenced, DbError> {
        let fenced = self.try_fence(of, lock_timeout).await;
        if fenced.is_err() {
            let _ = self.client.batch_execute("rollback").await;
        }
        fenced
    }

    async fn try_fence(&mut self, of: &Move, lock_timeout: Duration) -> Result<Fenced, DbError> {
        self.hurried().await?;
        self.client
            .batch_execute(&format!(
                "begin; set local lock_timeout = {}",
                lock_timeout.as_millis().max(1)
            ))
            .await?;
        let row = self
            .client
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
        // Whoever wrote the table has committed before the fence did.
        let answers = self
            .client
            .simple_query(&format!(
                "{}; notify pgbraid_ownership; commit; select pg_current_wal_flush_lsn()",
                fence::raise(&of.leaf())
            ))
            .await?;
        let lsn = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        let lsn = lsn.ok_or_else(|| {
            DbError::new(DbErrorKind::Contradiction, "the source tells no position")
        })?;
        Ok(Fenced {
            lsn,
            cut: row.get(0),
            at,
            locked: at.elapsed(),
        })
    }

    /// Whether the target has applied everything up to a position, and flushed it. What is not known
    /// is no. The target reports a position once it has no transaction before it left to flush; the
    /// slot shows that to every role, where `pg_stat_replication` needs one of its own.
    ///
    /// # Errors
    /// If the source can't be asked.
    pub async fn replayed(&mut self, of: &Move, lsn: PgLsn) -> Result<bool, DbError> {
        let ask = self.hurried().await?.replayed;
        let row = self.client.query_one(&ask, &[&of.name(), &lsn]).await?;
        Ok(row.get(0))
    }

    /// Writes something that means nothing, so that the target hears of the source and reports what
    /// it has flushed. By itself it does so every 0.2 s where nothing else is written.
    ///
    /// # Errors
    /// If the source can't be reached.
    pub async fn nudge(&self) -> Result<(), DbError> {
        Ok(self.client.batch_execute(FLUSHED).await?)
    }

    /// Decides the move: from here on the table is the target's. The only place where that is
    /// decided; [`Self::undo`] meets the same row, so that one of the two happens.
    ///
    /// # Errors
    /// If that fence was undone meanwhile: then the source goes on owning the table.
    pub async fn decide(&mut self, of: &Move, cut: i32) -> Result<(), DbError> {
        let decide = self.hurried().await?.decide;
        let decided = self
            .client
            .execute(
                &decide,
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
        match decided {
            1 => Ok(()),
            _ => Err(of.out_of_date("deciding the move of", self.instance)),
        }
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
