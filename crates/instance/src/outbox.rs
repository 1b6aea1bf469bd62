//! Reads alerts by snapshot.
//!
//! Ids are given before the commit, so "id greater than the last" loses rows of transactions that
//! commit late. What is new is told by snapshot instead: written by a transaction that the old
//! snapshot did not see. One statement reads the new rows and its own snapshot.

use std::fmt::Write as _;

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::{DbError, DbErrorKind, Instance, ServerIdentity};

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

/// The two columns of an [`OutboxSnapshot`]. A plain `order by xid` would sort by the output column,
/// which is text: 999 after 1000.
const SEEN: &str = "select pg_current_snapshot()::text as snap, \
    (select n.xid::text from pgbraid.alert n order by n.xid desc limit 1) as newest";

fn seen(row: &Row) -> Result<OutboxSnapshot, DbError> {
    let newest: Option<String> = row.get(1);
    Ok(OutboxSnapshot {
        text: row.get(0),
        newest: newest.as_deref().map(xid8).transpose()?,
    })
}

fn xid8(text: &str) -> Result<u64, DbError> {
    text.parse()
        .map_err(|error| DbError::new(DbErrorKind::Contradiction, format!("bad xid8: {error}")))
}

/// A snapshot of one history means nothing on another: a promoted standby, a restored backup.
fn same_server(found: ServerIdentity, expected: Option<ServerIdentity>) -> Result<(), DbError> {
    match expected {
        Some(expected) if expected != found => Err(DbError::new(
            DbErrorKind::Outage,
            "another PostgreSQL answers than before: it was failed over",
        )),
        _ => Ok(()),
    }
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
        let row = session.client.query_one(SEEN, &[]).await?;
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
        let mut sql = format!(
            "select s.snap, s.newest, a.seq, a.xid, a.feed, a.rule, a.rule_version, a.channel, \
             a.reason, a.key, a.body, a.raised, a.resolved from ({SEEN}) s \
             left join lateral (select seq, xid::text as xid, feed, rule, rule_version, channel, \
             reason, key, \"row\"::text as body, \
             (extract(epoch from raised_at) * 1000000)::int8 as raised, resolved \
             from pgbraid.alert where (xid >= $1::text::xid8",
        );
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
        session.done();
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
        let more = alerts.len() > query.limit as usize;
        alerts.truncate(query.limit as usize);
        Ok(OutboxPage { alerts, seen, more })
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
