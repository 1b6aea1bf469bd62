//! Rotates and drops parts of the outbox: one router at a time, in steps that can be repeated.

use std::time::Duration;

use tokio_postgres::Client;

use super::{
    RetentionPolicy,
    retention::{Step, plan},
    state,
};
use crate::{DbError, Instance};

/// Any number, the same for all versions of pgbraid.
const LOCK: i64 = 0x7067_6272_6169_6422;

/// A router that was stopped gives up the lock after this time; nothing here may wait for a lock
/// for long, since other things could come to wait behind it.
const OPTIONS: &str = "-c idle_session_timeout=60000 -c lock_timeout=2000 -c synchronous_commit=on";

/// Counting a part may take this long; its numbers must do otherwise.
const COUNT_LIMIT: Duration = Duration::from_secs(10);

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxDone {
    /// Parts opened.
    pub opened: Vec<i32>,
    /// Parts that go now: their number, why, and who still needed some of their alerts.
    pub condemned: Vec<(i32, String, Vec<String>)>,
    /// Parts that are gone.
    pub dropped: Vec<i32>,
}

/// What was dropped so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxTotals {
    /// Alerts.
    pub dropped: u64,
    /// Of these, alerts in parts that a holder still needed.
    pub overrun: u64,
}

impl Instance {
    /// Does what is due to keep the outbox within its limits. Nothing, if another router is at it.
    ///
    /// # Errors
    /// If a step fails; what was done stays, and the next call goes on from there.
    pub async fn maintain_outbox(&self, policy: &RetentionPolicy) -> Result<OutboxDone, DbError> {
        let mut done = OutboxDone::default();
        let mut session = self.reader().await?;
        let due = plan(&state::read(&session.client).await?, policy);
        session.done();
        drop(session);
        if due.is_empty() {
            return Ok(done);
        }
        // A connection of its own: the lock ends with it, whatever happens.
        let mut client = self.connect(OPTIONS).await?;
        let locked: bool = client
            .query_one("select pg_try_advisory_lock($1)", &[&LOCK])
            .await?
            .get(0);
        if !locked {
            return Ok(done);
        }
        // A step may make another one possible, but not for ever.
        for _ in 0..4 {
            let due = plan(&state::read(&client).await?, policy);
            if due.is_empty() {
                break;
            }
            for step in due {
                take(&mut client, &step, &mut done).await.map_err(|error| {
                    error.context(format!("outbox of {}: {step:?}", self.name()))
                })?;
            }
        }
        Ok(done)
    }

    /// What was dropped so far.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn outbox_totals(&self) -> Result<OutboxTotals, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one(
                "select coalesce(sum(alerts), 0)::int8, \
                 coalesce(sum(alerts) filter (where overrun <> '{}'), 0)::int8 \
                 from pgbraid.outbox_dropped",
                &[],
            )
            .await?;
        session.done();
        Ok(OutboxTotals {
            dropped: row.get::<_, i64>(0).max(0) as u64,
            overrun: row.get::<_, i64>(1).max(0) as u64,
        })
    }
}

async fn take(client: &mut Client, step: &Step, done: &mut OutboxDone) -> Result<(), DbError> {
    match step {
        Step::Attach(part) => attach(client, *part).await,
        Step::NoteWriters(part) => {
            // Whoever takes the lock from now on reads the catalog first. Prepared transactions
            // (without a pid) write nothing any more.
            client
                .execute(
                    "update pgbraid.alert_part set waits_for = \
                     (select coalesce(array_agg(distinct virtualtransaction), '{}') from pg_locks \
                      where relation = 'pgbraid.alert'::regclass and mode = 'RowExclusiveLock' \
                      and pid is not null) where part = $1 and waits_for is null",
                    &[part],
                )
                .await?;
            Ok(())
        }
        Step::Open(part) => {
            // Committed before an id is taken in `close`: it takes its own before it moves on.
            client
                .execute(
                    "select setval('pgbraid.alert_current_part', $1::int4) \
                     from pgbraid.alert_current_part where last_value = $1 - 1",
                    &[part],
                )
                .await?;
            done.opened.push(*part);
            close(client, *part - 1).await
        }
        Step::Close(part) => close(client, *part).await,
        Step::Seal(part) => seal(client, *part).await,
        Step::Condemn {
            part,
            reason,
            overrun,
        } => {
            condemn(client, *part, reason, overrun).await?;
            done.condemned
                .push((*part, reason.clone(), overrun.clone()));
            Ok(())
        }
        Step::Drop(part) => {
            drop_part(client, *part).await?;
            done.dropped.push(*part);
            Ok(())
        }
    }
}

/// `create table .. partition of` would lock out writers; attaching an empty table does not.
async fn attach(client: &mut Client, part: i32) -> Result<(), DbError> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&format!(
            "create table pgbraid.alert_{part} (like pgbraid.alert including all); \
             alter table pgbraid.alert attach partition pgbraid.alert_{part} for values in ({part}); \
             insert into pgbraid.alert_part (part) values ({part})"
        ))
        .await?;
    transaction.commit().await?;
    Ok(())
}

async fn close(client: &mut Client, part: i32) -> Result<(), DbError> {
    let transaction = client.transaction().await?;
    transaction
        .execute(
            "update pgbraid.alert_part set closed_at = clock_timestamp(), \
             closed_xid = pg_current_xact_id() where part = $1 and closed_xid is null",
            &[&part],
        )
        .await?;
    transaction
        .execute(
            "update pgbraid.alert_part set opened_at = clock_timestamp() \
             where part = $1 + 1 and opened_at is null",
            &[&part],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

async fn seal(client: &mut Client, part: i32) -> Result<(), DbError> {
    // By the statement's own snapshot every writer has ended, so that it sees all there will be.
    let sql = |alerts: &str| {
        format!(
            "update pgbraid.alert_part p set sealed_at = clock_timestamp(), alerts = a.alerts, \
             first_seq = a.first_seq, last_seq = a.last_seq, \
             first_xid = (select xid from pgbraid.alert_{part} order by xid limit 1), \
             last_xid = (select xid from pgbraid.alert_{part} order by xid desc limit 1) \
             from (select {alerts} as alerts, min(seq) as first_seq, max(seq) as last_seq \
              from pgbraid.alert_{part}) a \
             where p.part = {part} and p.sealed_at is null \
             and p.closed_xid <= pg_snapshot_xmin(pg_current_snapshot())"
        )
    };
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&format!(
            "set local statement_timeout = {}",
            COUNT_LIMIT.as_millis()
        ))
        .await?;
    match transaction.execute(&sql("count(*)"), &[]).await {
        Ok(_) => {
            transaction.commit().await?;
            return Ok(());
        }
        Err(error) if error.code().is_some_and(|code| code.code() == "57014") => {}
        Err(error) => return Err(error.into()),
    }
    transaction.rollback().await?;
    client
        .execute(&sql("coalesce(max(seq) - min(seq) + 1, 0)"), &[])
        .await?;
    Ok(())
}

/// Before anything is dropped, for good: whoever comes for it later must be told.
async fn condemn(
    client: &mut Client,
    part: i32,
    reason: &str,
    overrun: &[String],
) -> Result<(), DbError> {
    let transaction = client.transaction().await?;
    transaction
        .execute(
            "insert into pgbraid.outbox_dropped (part, alerts, first_seq, last_seq, first_xid, \
             last_xid, raised_until, reason, overrun) \
             select part, alerts, first_seq, last_seq, first_xid, last_xid, closed_at, $2, $3 \
             from pgbraid.alert_part where part = $1 and sealed_at is not null and alerts > 0 \
             on conflict do nothing",
            &[&part, &reason, &overrun],
        )
        .await?;
    transaction
        .execute(
            "update pgbraid.alert_part set dropping = $2 \
             where part = $1 and sealed_at is not null",
            &[&part, &reason],
        )
        .await?;
    transaction
        .execute(
            "delete from pgbraid.outbox_tick where at < (select t.at from pgbraid.outbox_tick t, \
             pgbraid.alert_part p where p.part = $1 and t.at < p.closed_at \
             order by t.at desc limit 1)",
            &[&part],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Frees the space first, which waits for nobody but readers of this very part; then takes the
/// part out of the outbox, which waits for all that use it, and drops it.
async fn drop_part(client: &mut Client, part: i32) -> Result<(), DbError> {
    let there = client
        .query_one(
            "select to_regclass('pgbraid.alert_' || $1::int4) is not null, \
             (select inhdetachpending from pg_inherits \
              where inhparent = 'pgbraid.alert'::regclass \
              and inhrelid = to_regclass('pgbraid.alert_' || $1::int4))",
            &[&part],
        )
        .await?;
    let exists: bool = there.get(0);
    let pending: Option<bool> = there.get(1);
    if exists {
        if pending.is_some() {
            client
                .batch_execute(&format!("truncate pgbraid.alert_{part}"))
                .await?;
        }
        let detach = format!("alter table pgbraid.alert detach partition pgbraid.alert_{part}");
        match pending {
            Some(false) => {
                client
                    .batch_execute(&format!("{detach} concurrently"))
                    .await?;
            }
            Some(true) => client.batch_execute(&format!("{detach} finalize")).await?,
            None => {}
        }
    }
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&format!("drop table if exists pgbraid.alert_{part}"))
        .await?;
    transaction
        .execute(
            "delete from pgbraid.alert_part where part = $1 and dropping is not null",
            &[&part],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

impl OutboxDone {
    /// Whether nothing was due.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
