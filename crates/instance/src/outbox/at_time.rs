//! Where alerts raised from some time on begin.

use super::{OutboxSnapshot, parts, same_server, seen, xid8};
use crate::{DbError, Instance, ServerIdentity};

/// The beginning of what was raised from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxStart {
    /// The snapshot now.
    pub seen: OutboxSnapshot,
    /// The lowest transaction id of the alerts, among those that `seen` sees, raised at or after the
    /// time; of those dropped too. Transactions in progress in `seen` come on top.
    pub first_xid: Option<u64>,
}

/// µs since 1970-01-01 as a timestamp, exactly.
const TIME: &str = "'epoch'::timestamptz + $1::int8 * interval '1 microsecond'";

impl Instance {
    /// Where alerts raised at or after a time begin: µs since 1970-01-01 UTC, the instance's clock.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn outbox_at_time(
        &self,
        raised_at_us: i64,
        expected: Option<ServerIdentity>,
    ) -> Result<OutboxStart, DbError> {
        let mut session = self.reader().await?;
        same_server(session.identity, expected)?;
        let facts = session.parts().await?;
        // What the snapshot of an earlier tick sees was raised before the time: it is not looked at.
        let tick = session
            .client
            .query_opt(
                &format!(
                    "select pg_snapshot_xmin(snapshot)::text, pg_snapshot_xmax(snapshot)::text, \
                     array(select pg_snapshot_xip(snapshot)::text) \
                     from pgbraid.outbox_tick where at < {TIME} order by at desc limit 1"
                ),
                &[&raised_at_us],
            )
            .await?;
        let (xmin, xmax, running) = match &tick {
            Some(row) => (xid8(row.get(0))?, xid8(row.get(1))?, row.get(2)),
            None => (1, 1, Vec::<String>::new()),
        };
        let first = facts.first_needed(xmin, None);
        let sql = format!(
            "select s.snap, s.newest, least(\
             (select a.xid from pgbraid.alert a where a.part >= {first} \
              and a.xid >= $2::text::xid8 and a.raised_at >= {TIME} order by a.xid limit 1), \
             (select a.xid from pgbraid.alert a where a.part >= {first} \
              and a.xid = any ($3::text[]::xid8[]) and a.raised_at >= {TIME} order by a.xid limit 1), \
             (select d.first_xid from pgbraid.outbox_dropped d where d.raised_until >= {TIME} \
              order by d.first_xid limit 1))::text \
             from ({}) s",
            parts::seen_sql(&facts)
        );
        let row = session
            .client
            .query_one(&sql, &[&raised_at_us, &xmax.to_string(), &running])
            .await?;
        session.done();
        Ok(OutboxStart {
            seen: seen(&row)?,
            first_xid: parts::xid(row.get(2))?,
        })
    }

    /// Notes the time and the snapshot, if alerts were raised since the last note and that is old
    /// enough.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn tick_outbox(&self, every: std::time::Duration) -> Result<(), DbError> {
        let mut session = self.reader().await?;
        session
            .client
            .execute(
                // The clock is read after the snapshot was taken.
                "insert into pgbraid.outbox_tick (at, snapshot, last_seq) \
                 select clock_timestamp(), pg_current_snapshot(), s.last_value \
                 from pgbraid.alert_seq s where not exists (select from pgbraid.outbox_tick t \
                 where t.last_seq >= s.last_value or t.at > now() - $1::float8 * interval '1 s') \
                 on conflict do nothing",
                &[&every.as_secs_f64()],
            )
            .await?;
        session.done();
        Ok(())
    }
}
