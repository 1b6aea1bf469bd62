//! The target of a move: partition, subscription, and the end of waiting.

use std::time::Duration;

use pgbraid_shardmap::InstanceName;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{FLUSHED, Move, MovingRow, fence, moving_row};
use crate::{
    DbError, DbErrorKind, Instance, changes,
    identity::TIMELINE,
    sql::{qualified, quote_ident, quote_literal},
};

/// How long a table may be prepared to be owned: less than the time after which routers help.
const PREPARED_MS: u32 = 3000;

/// Connections to the target of a move: as the role of pgbraid, and as one that may subscribe.
pub struct TargetSide {
    client: Client,
    admin: Client,
    instance: InstanceName,
}

/// What the target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSeen {
    /// Its row of ownership.
    pub row: Option<MovingRow>,
    /// The partition is there.
    pub table: bool,
    /// It is there and has rows.
    pub filled: bool,
    /// The subscription is there.
    pub subscription: bool,
    /// The copy is done and changes are being applied.
    pub ready: bool,
    /// The server is the one on which the copy began.
    pub same_server: bool,
    /// Rows copied so far, while the copy runs.
    pub copied_rows: Option<u64>,
    /// Bytes read by the copy so far.
    pub copied_bytes: Option<u64>,
    /// Bytes of the partition.
    pub bytes: u64,
    /// Who copies and applies.
    pub workers: Workers,
}

/// The workers of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// The subscription is enabled.
    pub enabled: bool,
    /// One applies changes.
    pub applying: bool,
    /// One copies the table, or none has to.
    pub copying: bool,
    /// Their errors so far; before PostgreSQL 15 nobody counts them.
    pub errors: u64,
}

impl Instance {
    /// Connects to the target of a move; `admin` is the same instance under a role that may make
    /// subscriptions.
    ///
    /// # Errors
    /// If it can't be reached, or is another server.
    pub async fn move_target(&self, admin: &Instance) -> Result<TargetSide, DbError> {
        Ok(TargetSide {
            client: self.connect("-c synchronous_commit=on").await?,
            admin: admin.connect("").await?,
            instance: self.name(),
        })
    }
}

impl TargetSide {
    /// Looks at the target.
    ///
    /// # Errors
    /// If it can't be asked.
    pub async fn look(&self, of: &Move) -> Result<TargetSeen, DbError> {
        // Before 15 there are no counts of errors.
        let errors = "(select apply_error_count + sync_error_count from \
             pg_stat_subscription_stats where subid = s.oid)";
        let counts: bool = self
            .admin
            .query_one(
                "select to_regclass('pg_catalog.pg_stat_subscription_stats') is not null",
                &[],
            )
            .await?
            .get(0);
        let row = self
            .admin
            .query_one(
                &format!(
                    "select o.state, o.epoch, o.move_id = $3::text::uuid, o.moved_to, \
                     o.mover_term, o.cut, t.leaf is not null, s.oid is not null, \
                     coalesce(r.srsubstate = 'r', false), \
                     coalesce(o.move_timeline = {TIMELINE}, \
                     true), p.tuples_processed, p.bytes_processed, \
                     coalesce(pg_total_relation_size(t.leaf), 0), coalesce({}, 0)::int8, \
                     coalesce(s.subenabled, false), \
                     exists (select from pg_stat_subscription w where w.subid = s.oid \
                     and w.relid is null and w.pid is not null), \
                     coalesce(r.srsubstate in ('f', 's', 'r'), false) or \
                     exists (select from pg_stat_subscription w where w.subid = s.oid \
                     and w.relid = t.leaf and w.pid is not null) \
                     from (select to_regclass($5) as leaf) as t \
                     left join pgbraid.ownership o on o.feed = $1 and o.tbl = $2 \
                     left join pg_subscription s on s.subname = $4::text and s.subdbid = \
                     (select oid from pg_database where datname = current_database()) \
                     left join pg_subscription_rel r on r.srsubid = s.oid and r.srrelid = t.leaf \
                     left join pg_stat_progress_copy p on p.relid = t.leaf and \
                     p.datname = current_database()",
                    if counts { errors } else { "0" }
                ),
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &of.name(),
                    &of.leaf(),
                ],
            )
            .await?;
        let table = row.get(6);
        let filled = table && {
            let sql = format!("select exists (select from {})", of.leaf());
            self.client.query_one(&sql, &[]).await?.get(0)
        };
        let count = |at: usize| row.get::<_, Option<i64>>(at).map(|n| n.max(0) as u64);
        Ok(TargetSeen {
            row: moving_row(&row, 0)?,
            table,
            filled,
            subscription: row.get(7),
            ready: row.get(8),
            same_server: row.get(9),
            copied_rows: count(10),
            copied_bytes: count(11),
            bytes: count(12).unwrap_or(0),
            workers: Workers {
                errors: count(13).unwrap_or(0),
                enabled: row.get(14),
                applying: row.get(15),
                copying: row.get(16),
            },
        })
    }

    /// Makes the partition with its fence, and says that the table is moving in.
    ///
    /// # Errors
    /// If the target holds what is left of the table from before, or a partition can't be made.
    pub async fn make(&mut self, of: &Move) -> Result<(), DbError> {
        let left: bool = self
            .client
            .query_one("select to_regclass($1) is not null", &[&of.leaf()])
            .await?
            .get(0);
        let transaction = self.client.transaction().await?;
        // Whoever changes the feed's triggers waits for this table, or it for him.
        transaction
            .execute("select from pgbraid.rule_set for share", &[])
            .await?;
        transaction
            .execute(
                "insert into pgbraid.feed (name, table_schema, table_name, tables) \
                 values ($1, $2, $3, $4) on conflict (name) do nothing",
                &[
                    &of.feed(),
                    &of.schema.schema,
                    &of.schema.table,
                    &(of.schema.tables as i32),
                ],
            )
            .await?;
        let made = transaction
            .execute(
                &format!(
                    "insert into pgbraid.ownership as o \
                 (feed, tbl, epoch, state, move_id, mover_term, move_timeline) \
                 select $1, $2, $4, 'moving_in', $3::text::uuid, $5, \
                 {TIMELINE} \
                 on conflict (feed, tbl) do update set before_epoch = o.epoch, \
                 epoch = excluded.epoch, state = 'moving_in', move_id = excluded.move_id, \
                 mover_term = excluded.mover_term, move_timeline = excluded.move_timeline, \
                 changed_at = clock_timestamp() \
                 where o.state = 'moved' and o.epoch < excluded.epoch and o.move_id is null \
                 and o.mover_term <= excluded.mover_term"
                ),
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &(of.epoch.0 as i64),
                    &of.term,
                ],
            )
            .await?;
        if made != 1 {
            return Err(of.out_of_date("making", self.instance));
        }
        if left {
            return Err(DbError::new(
                DbErrorKind::Contradiction,
                format!(
                    "{} still has an old {} of feed {}: drop it with `pgbraid map clean` first",
                    self.instance, of.table, of.schema.feed
                ),
            ));
        }
        // `create table .. partition of` would wait for all who read or write the parent, and keep
        // out all others meanwhile. To attach an empty table does neither.
        let (leaf, parent) = (of.leaf(), qualified(&of.schema.schema, &of.schema.table));
        let tablespace: Option<String> = transaction
            .query_one(
                "select (select spcname from pg_tablespace t where t.oid = c.reltablespace)::text \
                 from pg_class c where c.oid = to_regclass($1)",
                &[&parent],
            )
            .await?
            .get(0);
        let tablespace = tablespace.map_or_else(String::new, |name| {
            format!(" tablespace {}", quote_ident(&name))
        });
        // What a partition has of its own, or gets when it is attached, is left out.
        transaction
            .batch_execute(&format!(
                "create table {leaf} (like {parent} including all excluding indexes \
                 excluding identity excluding statistics excluding comments) \
                 with (fillfactor = 85){tablespace}; {}; {}; \
                 alter table {parent} attach partition {leaf} \
                 for values with (modulus {}, remainder {})",
                fence::make(of, fence::When::After),
                fence::raise(&leaf),
                of.schema.tables,
                of.table.index(),
            ))
            .await?;
        // Its changes are told from the first write of its owner on; the copy fires no trigger.
        changes::track_leaf(&transaction, &of.schema, of.table).await?;
        Ok(transaction.commit().await?)
    }

    /// Takes over a table that another mover left behind.
    ///
    /// # Errors
    /// If it is not moving in by this move any more, or a later mover has it.
    pub async fn adopt(&self, of: &Move) -> Result<(), DbError> {
        let adopted = self
            .client
            .execute(
                "update pgbraid.ownership set mover_term = $4 where feed = $1 and tbl = $2 \
                 and move_id = $3::text::uuid and mover_term <= $4",
                &[&of.feed(), &of.number(), &of.id_text(), &of.term],
            )
            .await?;
        match adopted {
            1 => Ok(()),
            _ => Err(of.out_of_date("taking over", self.instance)),
        }
    }

    /// Subscribes to the source: copies the table, then applies what changes. Atomic: the slot is
    /// there already. Transactions are applied without a wait for the disk each, one after the
    /// other as they are: a source that has many small ones would never be caught up with. What is
    /// reported as applied is what survives a crash all the same; see [`Self::flush`].
    ///
    /// # Errors
    /// If the role may not, or the target can't reach the source.
    pub async fn subscribe(&self, of: &Move, conninfo: &str) -> Result<(), DbError> {
        let name = of.name();
        // A statement that fails is logged by the server, with the password in it.
        let _ = self
            .admin
            .batch_execute("set log_min_error_statement = panic; set log_statement = none")
            .await;
        let sql = format!(
            "create subscription {} connection {} publication {} with \
             (create_slot = false, slot_name = {}, copy_data = true, synchronous_commit = off)",
            quote_ident(&name),
            quote_literal(conninfo).trim_start(),
            quote_ident(&name),
            quote_literal(&name)
        );
        self.admin.batch_execute(&sql).await.map_err(|error| {
            let error = DbError::from(error);
            let hint = match error.sqlstate.as_deref() {
                Some("42501") => {
                    ": making a subscription needs a superuser before PostgreSQL 16, or a member \
                     of pg_create_subscription; name such a role in moves.user of pgbraid.toml"
                }
                _ => "",
            };
            error.context(format!("subscribing {} to {}{hint}", of.target, of.source))
        })
    }

    /// Flushes what has been applied so far, so that it can be reported.
    ///
    /// # Errors
    /// If the target can't be reached.
    pub async fn flush(&self) -> Result<(), DbError> {
        Ok(self.client.batch_execute(FLUSHED).await?)
    }

    /// Prepares to take the table, up to the commit, and keeps others from doing so meanwhile. Ends
    /// with [`Self::own`] or [`Self::disown`]; if neither comes within seconds, since the mover has
    /// stopped, the server ends it, so that a router can take the table for its target.
    ///
    /// # Errors
    /// `Conflict` if the table can't be locked within `lock_timeout`; or if it is not moving in by
    /// this move.
    pub async fn prepare_own(&mut self, of: &Move, lock_timeout: Duration) -> Result<(), DbError> {
        let prepared = self.try_prepare_own(of, lock_timeout).await;
        if prepared.is_err() {
            self.disown().await;
        }
        prepared
    }

    async fn try_prepare_own(&mut self, of: &Move, lock_timeout: Duration) -> Result<(), DbError> {
        let answers = self
            .client
            .simple_query(&format!(
                "begin; set local lock_timeout = {}; \
                 set local idle_in_transaction_session_timeout = {PREPARED_MS}; \
                 update pgbraid.ownership set state = 'owned', epoch = epoch + 1, \
                 moved_to = null, before_epoch = null, changed_at = clock_timestamp() \
                 where feed = {} and tbl = {} and state = 'moving_in' and epoch = {} \
                 and move_id = '{}' returning epoch",
                lock_timeout.as_millis().max(1),
                quote_literal(of.feed()),
                of.number(),
                of.epoch.0,
                of.id
            ))
            .await?;
        let row = |answer: &SimpleQueryMessage| matches!(answer, SimpleQueryMessage::Row(_));
        if !answers.iter().any(row) {
            return Err(of.out_of_date("taking", self.instance));
        }
        let lower = fence::lower(&of.leaf());
        self.client
            .batch_execute(&format!("{lower}; notify pgbraid_ownership"))
            .await?;
        Ok(())
    }

    /// Takes the table: it is owned here from now on. The move must have been decided.
    ///
    /// # Errors
    /// If the target can't be reached.
    pub async fn own(&mut self) -> Result<(), DbError> {
        Ok(self.client.batch_execute("commit").await?)
    }

    /// Leaves the table as it is.
    pub async fn disown(&mut self) {
        let _ = self.client.batch_execute("rollback").await;
    }

    /// Drops the subscription. The slot stays: its source may be out of reach.
    ///
    /// # Errors
    /// If it can't be dropped.
    pub async fn unsubscribe(&self, of: &Move) -> Result<(), DbError> {
        let name = of.name();
        let there = self
            .admin
            .query_opt(
                "select from pg_subscription where subname = $1::text and subdbid = \
                 (select oid from pg_database where datname = current_database())",
                &[&name],
            )
            .await?;
        if there.is_none() {
            return Ok(());
        }
        let name = quote_ident(&name);
        for sql in [
            format!("alter subscription {name} disable"),
            format!("alter subscription {name} set (slot_name = none)"),
            format!("drop subscription if exists {name}"),
        ] {
            self.admin.batch_execute(&sql).await?;
        }
        Ok(())
    }

    /// Drops what has been copied, and says that the table is not moving in any more. The row's
    /// lock keeps a table that is owned by now.
    ///
    /// # Errors
    /// If the table is not moving in by this move, or can't be dropped.
    pub async fn drop_copy(&mut self, of: &Move) -> Result<(), DbError> {
        let transaction = self.client.transaction().await?;
        let row = transaction
            .query_opt(
                "select before_epoch from pgbraid.ownership where feed = $1 and tbl = $2 \
                 and state = 'moving_in' and epoch = $4 and move_id = $3::text::uuid \
                 and mover_term <= $5 for update",
                &[
                    &of.feed(),
                    &of.number(),
                    &of.id_text(),
                    &(of.epoch.0 as i64),
                    &of.term,
                ],
            )
            .await?
            .ok_or_else(|| of.out_of_date("dropping the copy of", self.instance))?;
        let parent = qualified(&of.schema.schema, &of.schema.table);
        fence::detach(&self.admin, &parent, &of.leaf()).await?;
        transaction
            .batch_execute(&format!("drop table if exists {}", of.leaf()))
            .await?;
        let sql = match row.get::<_, Option<i64>>(0) {
            Some(_) => {
                "update pgbraid.ownership set state = 'moved', epoch = before_epoch, \
                 before_epoch = null, move_id = null, move_timeline = null \
                 where feed = $1 and tbl = $2"
            }
            None => "delete from pgbraid.ownership where feed = $1 and tbl = $2",
        };
        transaction
            .execute(sql, &[&of.feed(), &of.number()])
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets the move, once the table is owned here.
    ///
    /// # Errors
    /// If the target can't be reached.
    pub async fn unmark(&self, of: &Move) -> Result<(), DbError> {
        let row = self
            .client
            .execute(
                "update pgbraid.ownership set move_id = null, move_timeline = null \
                 where feed = $1 and tbl = $2 and move_id = $3::text::uuid and state = 'owned'",
                &[&of.feed(), &of.number(), &of.id_text()],
            )
            .await?;
        if row == 1 {
            fence::remove_if_idle(&self.client, &of.leaf()).await;
        }
        Ok(())
    }
}
