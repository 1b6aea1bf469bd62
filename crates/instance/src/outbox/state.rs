//! What is kept in the outbox, and what of it is needed.

use tokio_postgres::{GenericClient, Row};

use super::{parts::xid, xid8};
use crate::{DbError, Instance};

/// A part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartState {
    pub part: i32,
    /// Whether it is known who wrote alerts while it was attached, and whether one of these still
    /// does.
    pub writers_noted: bool,
    pub writers_left: bool,
    /// Seconds since it was closed.
    pub closed_for: Option<f64>,
    /// Seconds since it was opened.
    pub opened_for: Option<f64>,
    /// Whether all that wrote into it have ended.
    pub can_be_sealed: bool,
    pub sealed: bool,
    /// With indexes.
    pub bytes: u64,
    /// Has rows, of any transaction.
    pub used: bool,
    pub alerts: i64,
    pub first_seq: Option<i64>,
    pub last_seq: Option<i64>,
    pub last_xid: Option<u64>,
    pub dropping: bool,
}

/// What a holder needs: alerts of transactions from `xid` on, and those numbered from `seq` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub holder: String,
    pub xid: u64,
    pub seq: i64,
}

/// What is kept, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutboxState {
    /// By number.
    pub(crate) parts: Vec<PartState>,
    /// The one that is written to.
    pub(crate) current: i32,
    pub(crate) holds: Vec<Hold>,
    /// The last number that the sequence of alerts gave.
    pub(crate) last_seq: i64,
    /// Seconds since the oldest alert that is kept was raised.
    pub oldest_seconds: f64,
}

impl OutboxState {
    /// Parts, the empty spare included.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes on disk, with indexes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Alerts, about: those in parts that may still be written to are told by their numbers, of
    /// which transactions that were rolled back have used some.
    pub fn alerts(&self) -> u64 {
        let sealed: i64 = self.parts.iter().map(|part| part.alerts).sum();
        // The sequence's part of their numbers: see migrations/0008_timelines.sql.
        let counted = |last: i64| last & ((1 << 40) - 1);
        let numbered = self.parts.iter().filter_map(|part| part.last_seq).max();
        let open = match (
            numbered,
            self.parts.iter().any(|part| part.used && !part.sealed),
        ) {
            (_, false) => 0,
            (Some(last), true) => self.last_seq - counted(last),
            (None, true) => self.last_seq,
        };
        (sealed + open).max(0) as u64
    }
}

const PARTS: &str = "select p.part, p.waits_for is not null, \
     exists (select from pg_locks l where l.relation = 'pgbraid.alert'::regclass \
      and l.mode = 'RowExclusiveLock' and l.virtualtransaction = any (p.waits_for)), \
     extract(epoch from clock_timestamp() - p.closed_at)::float8, \
     extract(epoch from clock_timestamp() - p.opened_at)::float8, \
     p.closed_xid <= pg_snapshot_xmin(pg_current_snapshot()), p.sealed_at is not null, \
     coalesce(pg_total_relation_size(to_regclass('pgbraid.alert_' || p.part)), 0), \
     coalesce(pg_relation_size(to_regclass('pgbraid.alert_' || p.part)), 0) > 0, \
     coalesce(p.alerts, 0), p.first_seq, p.last_seq, p.last_xid::text, p.dropping is not null \
     from pgbraid.alert_part p order by p.part";

fn part(row: &Row) -> Result<PartState, DbError> {
    Ok(PartState {
        part: row.get(0),
        writers_noted: row.get(1),
        writers_left: row.get(2),
        closed_for: row.get(3),
        opened_for: row.get(4),
        can_be_sealed: row.get::<_, Option<bool>>(5).unwrap_or(false),
        sealed: row.get(6),
        bytes: row.get::<_, i64>(7).max(0) as u64,
        used: row.get(8),
        alerts: row.get(9),
        first_seq: row.get(10),
        last_seq: row.get(11),
        last_xid: xid(row.get(12))?,
        dropping: row.get(13),
    })
}

pub(crate) async fn read(client: &impl GenericClient) -> Result<OutboxState, DbError> {
    let rows = client.query(PARTS, &[]).await?;
    let parts: Vec<PartState> = rows.iter().map(part).collect::<Result<_, DbError>>()?;
    let row = client
        .query_one(
            "select c.last_value::int4, case when s.is_called then s.last_value else 0 end \
             from pgbraid.alert_current_part c, pgbraid.alert_seq s",
            &[],
        )
        .await?;
    let (current, last_seq) = (row.get(0), row.get(1));
    let rows = client
        .query(
            "select holder, needed_xid::text, needed_seq from pgbraid.outbox_hold order by 1",
            &[],
        )
        .await?;
    let hold = |row: &Row| {
        Ok(Hold {
            holder: row.get(0),
            xid: xid8(row.get(1))?,
            seq: row.get(2),
        })
    };
    let holds = rows.iter().map(hold).collect::<Result<_, DbError>>()?;
    let oldest = parts.iter().find(|part| part.used && !part.dropping);
    let oldest_seconds = match oldest {
        None => None,
        Some(part) => client
            .query_opt(
                &format!(
                    "select extract(epoch from clock_timestamp() - raised_at)::float8 \
                     from pgbraid.alert where part = {} order by seq limit 1",
                    part.part
                ),
                &[],
            )
            .await?
            .map(|row| row.get(0)),
    };
    Ok(OutboxState {
        parts,
        current,
        holds,
        last_seq,
        oldest_seconds: oldest_seconds.unwrap_or(0.0),
    })
}

impl Instance {
    /// What is kept in the outbox.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn outbox_state(&self) -> Result<OutboxState, DbError> {
        let mut session = self.reader().await?;
        let state = read(&session.client).await?;
        session.done();
        Ok(state)
    }
}
