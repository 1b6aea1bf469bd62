//! What the home keeps of moves: who carries them out, which there are, and who claims a table.

use std::time::Duration;

use pgbraid_shardmap::{Epoch, FeedName, InstanceName, TableId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::agreed::{self, Agreed, agreed};
use crate::{DbError, DbErrorKind, Instance};

/// Whether a mover got the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenTerm {
    /// It did, under this term.
    Ours(i64),
    /// Somebody else has it.
    Held {
        /// Who.
        holder: String,
        /// For how long yet, if it is not renewed.
        left: Duration,
    },
}

/// Who carries out moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoverState {
    /// Who, if anybody does.
    pub holder: Option<String>,
    /// No table is copied or cut over until somebody resumes.
    pub paused: bool,
    /// What routers carry out by themselves, if anything.
    pub agreed: Option<Agreed>,
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveOutcome {
    /// The target owns the table.
    Done,
    /// The source has kept it.
    Aborted,
}

/// A move as the home keeps it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct MoveRecord {
    pub id: Uuid,
    pub feed: FeedName,
    pub table: TableId,
    pub source: InstanceName,
    pub target: InstanceName,
    /// Of the source.
    pub epoch: Epoch,
    pub abort_requested: bool,
    /// `None` while it is under way.
    pub outcome: Option<MoveOutcome>,
    /// The last step that was noted.
    pub phase: String,
    pub bytes: u64,
    pub copy_ms: u64,
    /// How long writers waited at the cut-over.
    pub pause_us: Option<u64>,
    pub age: Duration,
    /// From when a mover first worked on it to its end.
    pub took: Option<Duration>,
    /// Why it does not get on, while it does not.
    pub trouble: Option<String>,
}

fn mover_state(row: &Row) -> MoverState {
    MoverState {
        holder: row.get(0),
        paused: row.get(1),
        agreed: agreed(row, 2),
    }
}

const COLUMNS: &str = "id::text, feed, tbl, source, target, epoch, abort_requested, outcome, \
     phase, bytes, copy_ms, pause_us, \
     (extract(epoch from clock_timestamp() - claimed_at) * 1000)::int8, \
     (extract(epoch from ended_at - started_at) * 1000)::int8, trouble";

impl Instance {
    /// In the home: takes the lease of movers, if nobody has it or its time is over.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn take_mover(&self, holder: &str, lease: Duration) -> Result<TakenTerm, DbError> {
        let mut session = self.reader().await?;
        let taken = session
            .client
            .query_opt(
                "update pgbraid.mover set holder = $1, term = term + 1, \
                 lease_until = clock_timestamp() + $2::int8 * interval '1 ms' \
                 where holder is null or lease_until < clock_timestamp() returning term",
                &[&holder, &(lease.as_millis() as i64)],
            )
            .await?;
        let taken = match taken {
            Some(row) => TakenTerm::Ours(row.get(0)),
            None => {
                let row = session
                    .client
                    .query_one(
                        "select coalesce(holder, 'nobody any more'), coalesce((extract(epoch from \
                         lease_until - clock_timestamp()) * 1000)::int8, 0) from pgbraid.mover",
                        &[],
                    )
                    .await?;
                TakenTerm::Held {
                    holder: row.get(0),
                    left: Duration::from_millis(row.get::<_, i64>(1).max(0) as u64),
                }
            }
        };
        session.done();
        Ok(taken)
    }

    /// In the home: keeps the lease. `None` if another mover has it by now.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn renew_mover(
        &self,
        term: i64,
        lease: Duration,
    ) -> Result<Option<MoverState>, DbError> {
        let mut session = self.reader().await?;
        let sql = format!(
            "update pgbraid.mover set \
             lease_until = clock_timestamp() + $2::int8 * interval '1 ms' \
             where term = $1 and holder is not null returning holder, paused, {}",
            agreed::COLUMNS
        );
        let row = session
            .client
            .query_opt(&sql, &[&term, &(lease.as_millis() as i64)])
            .await?;
        session.done();
        Ok(row.as_ref().map(mover_state))
    }

    /// In the home: gives the lease back.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn release_mover(&self, term: i64) -> Result<(), DbError> {
        let mut session = self.reader().await?;
        session
            .client
            .execute(
                "update pgbraid.mover set holder = null, lease_until = null where term = $1",
                &[&term],
            )
            .await?;
        session.done();
        Ok(())
    }

    /// In the home: who carries out moves now.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn mover(&self) -> Result<MoverState, DbError> {
        let mut session = self.reader().await?;
        let sql = format!(
            "select case when lease_until >= clock_timestamp() then holder end, paused, {} \
             from pgbraid.mover",
            agreed::COLUMNS
        );
        let row = session.client.query_one(&sql, &[]).await?;
        session.done();
        Ok(mover_state(&row))
    }

    /// In the home: pauses movers, or lets them go on.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn pause_moves(&self, paused: bool) -> Result<(), DbError> {
        let mut session = self.reader().await?;
        session
            .client
            .execute("update pgbraid.mover set paused = $1", &[&paused])
            .await?;
        session.done();
        Ok(())
    }

    /// In the home: the moves under way, and the last that have ended.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn moves(&self, ended: i64) -> Result<Vec<MoveRecord>, DbError> {
        let mut session = self.reader().await?;
        let sql = format!(
            "(select {COLUMNS} from pgbraid.move where outcome is null order by claimed_at, feed, \
             tbl) union all (select {COLUMNS} from pgbraid.move where outcome is not null \
             order by ended_at desc limit $1)"
        );
        let rows = session.client.query(&sql, &[&ended]).await?;
        session.done();
        rows.iter().map(|row| self.record(row)).collect()
    }

    fn record(&self, row: &Row) -> Result<MoveRecord, DbError> {
        let bad = |what: &dyn std::fmt::Display| {
            DbError::new(
                DbErrorKind::Contradiction,
                format!("pgbraid.move on {}: {what}", self.name()),
            )
        };
        let text = |at: usize| row.get::<_, String>(at);
        let count = |at: usize| row.get::<_, i64>(at).max(0) as u64;
        Ok(MoveRecord {
            id: text(0).parse().map_err(|error| bad(&error))?,
            feed: FeedName::parse(&text(1)).map_err(|error| bad(&error))?,
            table: TableId::new(row.get::<_, i32>(2) as u32),
            source: text(3).parse().map_err(|error| bad(&error))?,
            target: text(4).parse().map_err(|error| bad(&error))?,
            epoch: Epoch(count(5)),
            abort_requested: row.get(6),
            outcome: match row.get::<_, Option<String>>(7).as_deref() {
                None => None,
                Some("done") => Some(MoveOutcome::Done),
                Some(_) => Some(MoveOutcome::Aborted),
            },
            phase: text(8),
            bytes: count(9),
            copy_ms: count(10),
            pause_us: row.get::<_, Option<i64>>(11).map(|us| us.max(0) as u64),
            age: Duration::from_millis(count(12)),
            took: (row.get::<_, Option<i64>>(13)).map(|ms| Duration::from_millis(ms.max(0) as u64)),
            trouble: row.get(14),
        })
    }

    /// In the home: the moves under way, each in some words. Also of a schema before the last one.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn open_moves(&self) -> Result<Vec<String>, DbError> {
        let mut session = self.reader().await?;
        let sql = "select format('%s/tbl%s from %s to %s', feed, tbl, source, target) \
                   from pgbraid.move where outcome is null order by claimed_at, feed, tbl";
        let rows = session.client.query(sql, &[]).await?;
        session.done();
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// In the home: claims the move of a table. Returns the move of that table that is under way,
    /// whoever claimed it.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn claim_move(&self, wanted: &MoveRecord) -> Result<MoveRecord, DbError> {
        let mut session = self.reader().await?;
        let number = wanted.table.index() as i32;
        session
            .client
            .execute(
                "insert into pgbraid.move (id, feed, tbl, source, target, epoch) \
                 values ($1::text::uuid, $2, $3, $4, $5, $6) on conflict do nothing",
                &[
                    &wanted.id.to_string(),
                    &wanted.feed.as_str(),
                    &number,
                    &wanted.source.to_string(),
                    &wanted.target.to_string(),
                    &(wanted.epoch.0 as i64),
                ],
            )
            .await?;
        let sql = format!(
            "select {COLUMNS} from pgbraid.move where feed = $1 and tbl = $2 and outcome is null"
        );
        let row = session
            .client
            .query_one(&sql, &[&wanted.feed.as_str(), &number])
            .await?;
        session.done();
        self.record(&row)
    }

    /// In the home: asks for a move to be undone. Returns whether it is under way.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn request_abort(&self, id: Uuid) -> Result<bool, DbError> {
        let mut session = self.reader().await?;
        let found = session
            .client
            .execute(
                "update pgbraid.move set abort_requested = true \
                 where id = $1::text::uuid and outcome is null",
                &[&id.to_string()],
            )
            .await?;
        session.done();
        Ok(found > 0)
    }

    /// In the home: notes how far a move is. Returns whether it is to be undone.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn note_move(
        &self,
        id: Uuid,
        phase: &str,
        (bytes, copy_ms): (u64, u64),
        pause_us: Option<u64>,
        trouble: Option<&str>,
    ) -> Result<bool, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_opt(
                "update pgbraid.move set phase = $2, bytes = greatest(bytes, $3), \
                 copy_ms = greatest(copy_ms, $4), pause_us = coalesce($5, pause_us), \
                 trouble = $6, started_at = coalesce(started_at, clock_timestamp()) \
                 where id = $1::text::uuid returning abort_requested",
                &[
                    &id.to_string(),
                    &phase,
                    &(bytes as i64),
                    &(copy_ms as i64),
                    &pause_us.map(|us| us as i64),
                    &trouble,
                ],
            )
            .await?;
        session.done();
        Ok(row.is_some_and(|row| row.get(0)))
    }

    /// In the home: ends a move. The claim to the table goes with it: whoever looks for the owner
    /// of a table that nobody reports must not look at the old one.
    ///
    /// # Errors
    /// If the home can't be asked.
    pub async fn close_move(
        &self,
        record: &MoveRecord,
        outcome: MoveOutcome,
    ) -> Result<(), DbError> {
        let mut session = self.reader().await?;
        let (name, owner) = match outcome {
            MoveOutcome::Done => ("done", record.target),
            MoveOutcome::Aborted => ("aborted", record.source),
        };
        session
            .client
            .execute(
                "with ended as (update pgbraid.move set outcome = $2, phase = $2, trouble = null, \
                 ended_at = clock_timestamp() where id = $1::text::uuid and outcome is null) \
                 insert into pgbraid.claim (feed, tbl, instance) values ($3, $4, $5) \
                 on conflict (feed, tbl) do update set instance = excluded.instance, \
                 claimed_at = now() where claim.instance <> excluded.instance",
                &[
                    &record.id.to_string(),
                    &name,
                    &record.feed.as_str(),
                    &(record.table.index() as i32),
                    &owner.to_string(),
                ],
            )
            .await?;
        session.done();
        Ok(())
    }
}
