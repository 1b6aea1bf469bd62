//! Reads alerts by snapshot.
//!
//! Ids are given before the commit, so "id greater than the last" loses rows of transactions that
//! commit late. What is new is told by snapshot instead: written by a transaction that the old
//! snapshot did not see. One statement reads the new rows and its own snapshot.
//!
//! The outbox is in parts (migrations/0002_outbox.sql); those that a snapshot has seen whole are
//! left out while the statement is planned, so that a read costs the same however many are kept.

mod at_time;
mod maintain;
mod parts;
mod retention;
mod state;

pub use at_time::OutboxStart;
pub use maintain::{OutboxDone, OutboxTotals};
pub(crate) use parts::PartFacts;
pub use retention::RetentionPolicy;
pub use state::OutboxState;

use std::fmt::Write as _;

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::{DbError, DbErrorKind, Instance, ServerIdentity, Session};

/// An alert as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AlertRow {
    pub seq: i64,
    pub xid: u64,
    pub feed: String,
    pub rule: String,
    pub rule_version: i64,
    pub channel: String,
    pub reason: String,
    pub key: String,
    /// JSON.
    pub row: String,
    /// µs since 1970-01-01 UTC, the instance's clock.
    pub raised_at_us: i64,
    pub resolved: bool,
}

/// What to read: alerts of transactions that a snapshot does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxQuery {
    /// The old snapshot's xmax: transactions from here on are new.
    pub xmax: u64,
    /// Transactions below `xmax` that were in progress: new as well.
    pub in_progress: Vec<u64>,
    /// Within a window that is read in pages: see only what this snapshot (in text form) sees,
    /// beyond this seq.
    pub window: Option<(String, i64)>,
    /// Most rows.
    pub limit: u32,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxPage {
    /// By seq.
    pub alerts: Vec<AlertRow>,
    /// The statement's own snapshot.
    pub seen: OutboxSnapshot,
    /// Whether there is more in the window.
    pub more: bool,
    /// Parts that were dropped with alerts of transactions which the old snapshot may not see.
    pub dropped: Vec<DroppedPart>,
}

/// What was in a part that is not kept any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPart {
    /// Its number; they go up.
    pub part: i32,
    /// Number of alerts.
    pub alerts: i64,
    /// Their lowest transaction id.
    pub first_xid: u64,
    /// Their highest transaction id.
    pub last_xid: u64,
    /// Their highest seq.
    pub last_seq: i64,
    /// All were raised before: µs since 1970-01-01 UTC, the instance's clock.
    pub raised_until_us: i64,
    /// Why.
    pub reason: String,
}

/// A snapshot, and how far it is safe to go by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSnapshot {
    /// In PostgreSQL's text form.
    pub text: String,
    /// The highest transaction id of the alerts that it sees. Ids beyond it may be taken back by a
    /// crash and given again.
    pub newest: Option<u64>,
}

/// The first two columns of a row: see [`parts::seen_sql`].
fn seen(row: &Row) -> Result<OutboxSnapshot, DbError> {
    let newest: Option<String> = row.get(1);
    Ok(OutboxSnapshot {
        text: row.get(0),
        newest: newest.as_deref().map(xid8).transpose()?,
    })
}

pub(crate) fn xid8(text: &str) -> Result<u64, DbError> {
    text.parse()
        .map_err(|error| DbError::new(DbErrorKind::Contradiction, format!("bad xid8: {error}")))
}

/// A snapshot of one history means nothing on another: a promoted standby, a restored backup.
pub(crate) fn same_server(
    found: ServerIdentity,
    expected: Option<ServerIdentity>,
) -> Result<(), DbError> {
    match expected {
        Some(expected) if expected != found => Err(DbError::new(
            DbErrorKind::Outage,
            "another PostgreSQL answers than before: it was failed over",
        )),
        _ => Ok(()),
    }
}

fn dropped_since(oldest: u64, after: Option<i64>) -> String {
    let after = after.unwrap_or(i64::MIN);
    format!("last_xid >= '{oldest}' and last_seq > {after}")
}

async fn dropped_from(
    session: &Session,
    oldest: u64,
    after: Option<i64>,
) -> Result<Vec<DroppedPart>, DbError> {
    let sql = format!(
        "select part, alerts, first_xid::text, last_xid::text, last_seq, \
         (extract(epoch from raised_until) * 1000000)::int8, reason \
         from pgbraid.outbox_dropped where {} order by part",
        dropped_since(oldest, after)
    );
    let rows = session.client.query(&sql, &[]).await?;
    let part = |row: &Row| {
        Ok(DroppedPart {
            part: row.get(0),
            alerts: row.get(1),
            first_xid: xid8(row.get(2))?,
            last_xid: xid8(row.get(3))?,
            last_seq: row.get(4),
            raised_until_us: row.get(5),
            reason: row.get(6),
        })
    };
    rows.iter().map(part).collect()
}

impl Instance {
    /// Which PostgreSQL answers now.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn server_identity(&self) -> Result<ServerIdentity, DbError> {
        let mut session = self.reader().await?;
        session.done();
        Ok(session.identity)
    }

    /// The current snapshot.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn snapshot(
        &self,
        expected: Option<ServerIdentity>,
    ) -> Result<OutboxSnapshot, DbError> {
        let mut session = self.reader().await?;
        same_server(session.identity, expected)?;
        let facts = session.parts().await?;
        let row = session
            .client
            .query_one(&parts::seen_sql(&facts), &[])
            .await?;
        session.done();
        seen(&row)
    }

    /// Reads a page of alerts.
    ///
    /// # Errors
    /// If the instance can't be asked or does not answer in time.
    pub async fn read_alerts(
        &self,
        query: &OutboxQuery,
        expected: Option<ServerIdentity>,
    ) -> Result<OutboxPage, DbError> {
        let mut session = self.reader().await?;
        same_server(session.identity, expected)?;
        let facts = session.parts().await?;
        let page = self.read_page(&mut session, query, &facts, true).await?;
        let page = match page.more && page.alerts.is_empty() {
            // There was nothing in the next few parts.
            true => self.read_page(&mut session, query, &facts, false).await?,
            false => page,
        };
        session.done();
        Ok(page)
    }

    /// Reads from the next few parts, or from all.
    async fn read_page(
        &self,
        session: &mut Session,
        query: &OutboxQuery,
        facts: &PartFacts,
        few: bool,
    ) -> Result<OutboxPage, DbError> {
        let oldest = query.in_progress.first().map_or(query.xmax, |xid| *xid);
        let after = query.window.as_ref().map(|(_, after)| *after);
        let dropped = match after {
            // A snapshot with nothing in it is where the outbox begins, whatever was in it before.
            None if oldest <= 1 => "false".to_owned(),
            _ => format!(
                "exists (select from pgbraid.outbox_dropped where {})",
                dropped_since(oldest, after)
            ),
        };
        let first = facts.first_needed(oldest, after);
        let mut sql = format!(
            "select s.snap, s.newest, a.seq, a.xid, a.feed, a.rule, a.rule_version, a.channel, \
             a.reason, a.key, a.body, a.raised, a.resolved, s.dropped from (select *, {dropped} as dropped \
             from ({}) n) s left join lateral (select seq, xid::text as xid, feed, rule, \
             rule_version, channel, reason, key, \"row\"::text as body, \
             (extract(epoch from raised_at) * 1000000)::int8 as raised, resolved \
             from pgbraid.alert where part >= {} and (xid >= $1::text::xid8",
            parts::seen_sql(facts),
            first,
        );
        let few = facts.next_few(first, after.unwrap_or(0)).filter(|_| few);
        let xmax = query.xmax.to_string();
        let in_progress: Vec<String> = query.in_progress.iter().map(u64::to_string).collect();
        let limit = i64::from(query.limit) + 1;
        let mut params: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&xmax, Type::TEXT), (&limit, Type::INT8)];
        if !in_progress.is_empty() {
            params.push((&in_progress, Type::TEXT_ARRAY));
            let _ = write!(sql, " or xid = any (${}::text[]::xid8[])", params.len());
        }
        sql.push(')');
        if let Some((last, below)) = few {
            let open = facts.first_open();
            let _ = write!(
                sql,
                " and part <= {last} and seq < least({below}, (select o.seq from pgbraid.alert o \
                 where o.part >= {open} order by o.seq limit 1))"
            );
        }
        if let Some((upper, after)) = &query.window {
            params.push((upper, Type::TEXT));
            let _ = write!(
                sql,
                " and pg_visible_in_snapshot(xid, ${}::text::pg_snapshot)",
                params.len()
            );
            params.push((after, Type::INT8));
            let _ = write!(sql, " and seq > ${}", params.len());
        }
        sql.push_str(" order by seq limit $2) a on true order by a.seq");
        let asked = session.client.query_typed(&sql, &params);
        let limit = self.connector.statement_timeout + std::time::Duration::from_secs(5);
        let rows = tokio::time::timeout(limit, asked).await.map_err(|_| {
            DbError::new(
                DbErrorKind::Outage,
                format!("{} has not answered within {limit:?}", self.name()),
            )
        })??;
        let dropped = match rows.first() {
            Some(row) if row.get(13) => dropped_from(session, oldest, after).await?,
            _ => Vec::new(),
        };
        let seen = match rows.first() {
            Some(row) => seen(row)?,
            None => {
                return Err(DbError::new(
                    DbErrorKind::Contradiction,
                    "the outbox query returned no snapshot",
                ));
            }
        };
        let mut alerts = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some(seq) = row.get::<_, Option<i64>>(2) else {
                continue;
            };
            alerts.push(AlertRow {
                seq,
                xid: xid8(row.get(3))?,
                feed: row.get(4),
                rule: row.get(5),
                rule_version: row.get(6),
                channel: row.get(7),
                reason: row.get(8),
                key: row.get(9),
                row: row.get(10),
                raised_at_us: row.get(11),
                resolved: row.get(12),
            });
        }
        let more = few.is_some() || alerts.len() > query.limit as usize;
        alerts.truncate(query.limit as usize);
        Ok(OutboxPage {
            alerts,
            seen,
            more,
            dropped,
        })
    }

    /// Number of alerts kept.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn count_alerts(&self) -> Result<i64, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one("select count(*) from pgbraid.alert", &[])
            .await?;
        session.done();
        Ok(row.get(0))
    }

    /// `pg_notification_queue_usage()`: 0 to 1.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn notification_queue_usage(&self) -> Result<f64, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one("select pg_notification_queue_usage()", &[])
            .await?;
        session.done();
        Ok(row.get(0))
    }
}
