//! What members of a group do on one instance: claim alerts, settle them; and what became of
//! those that nobody acked.
//!
//! The work is done by functions in the database (migrations/0003_groups.sql), so that a claim is
//! one round trip and one commit.

use std::time::Duration;

use futures::future::try_join_all;

use crate::{AlertRow, DbError, DbErrorKind, Instance};

/// The SQLSTATE with which an instance says that it does not know a group.
pub const NO_GROUP: &str = "PBG01";

/// An alert claimed for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedAlert {
    /// The alert.
    pub alert: AlertRow,
    /// How many times it has been delivered, with this one.
    pub delivery: u32,
}

/// What a claim came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupClaim {
    /// Its number here.
    pub claim: i64,
    /// Settle before: µs since 1970-01-01 UTC.
    pub deadline_us: i64,
    /// Ascending by seq.
    pub alerts: Vec<ClaimedAlert>,
    /// Whether another claim would find more at once.
    pub more: bool,
    /// How long until something that is in flight or delayed may come again.
    pub next_in: Option<Duration>,
}

/// How deliveries end, or go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SettleHow {
    /// Done.
    Ack,
    /// Again, after the delay.
    Nack(Duration, String),
    /// Again at once: the member left.
    Release(String),
    /// A dead letter.
    Terminate(String),
    /// The deadline is this far from now.
    Extend(Duration),
}

/// Some deliveries of one claim, settled alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleCall {
    /// The claim.
    pub claim: i64,
    /// The alerts.
    pub seqs: Vec<i64>,
    /// How.
    pub how: SettleHow,
}

/// How a group stands on one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStanding {
    /// The group.
    pub name: String,
    /// Alerts kept beyond the position, of the filter or not.
    pub lag_alerts: u64,
    /// Age of the first of them.
    pub lag: Duration,
    /// Delivered, not settled.
    pub in_flight: u64,
    /// To be delivered again.
    pub delayed: u64,
    /// Waiting for the alert before of their key.
    pub waiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest that was delivered and not acked.
    pub oldest_unacked: Duration,
    /// Dropped by retention before they were delivered.
    pub dropped: u64,
}

/// An alert that nobody acked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// As it was raised.
    pub alert: AlertRow,
    /// Why it is one.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
    /// µs since 1970-01-01 UTC.
    pub died_at_us: i64,
    /// Its last attempts, oldest first.
    pub history: Vec<AttemptRow>,
}

/// One delivery that was not acked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AttemptRow {
    pub delivery: u32,
    pub member: String,
    pub delivered_at_us: i64,
    pub ended_at_us: i64,
    pub how: String,
    pub reason: String,
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn seconds(row: &tokio_postgres::Row, at: usize) -> Duration {
    let seconds: Option<f64> = row.get(at);
    Duration::try_from_secs_f64(seconds.unwrap_or(0.0).max(0.0)).unwrap_or_default()
}

impl Instance {
    /// Claims up to `limit` alerts, of up to `max_bytes` unless it is one, for a member.
    ///
    /// # Errors
    /// If the instance can't be asked; with SQLSTATE [`NO_GROUP`] if it does not know the group.
    pub async fn claim_alerts(
        &self,
        group: &str,
        member: &str,
        limit: u32,
        max_bytes: u64,
    ) -> Result<GroupClaim, DbError> {
        let mut session = self.group_session().await?;
        let statement = session
            .prepared(
                "select more, extract(epoch from next_at - clock_timestamp())::float8, claim, \
                 (extract(epoch from deadline) * 1000000)::int8, delivery, seq, xid, feed, rule, \
                 rule_version, channel, reason, key, body, raised_us, resolved \
                 from pgbraid.group_claim($1, $2, $3, $4)",
            )
            .await?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        let rows = session
            .client
            .query(&statement, &[&group, &member, &limit, &bytes])
            .await;
        let rows = session.ended(rows)?;
        let mut claimed = GroupClaim::default();
        for row in &rows {
            claimed.more = row.get(0);
            claimed.next_in = row.get::<_, Option<f64>>(1).map(|seconds| {
                Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::ZERO)
            });
            let Some(claim) = row.get(2) else { continue };
            claimed.claim = claim;
            claimed.deadline_us = row.get(3);
            let xid: String = row.get(6);
            claimed.alerts.push(ClaimedAlert {
                delivery: row.get::<_, i32>(4).unsigned_abs(),
                alert: AlertRow {
                    seq: row.get(5),
                    xid: xid.parse().map_err(|error| {
                        DbError::new(DbErrorKind::Contradiction, format!("bad xid8: {error}"))
                    })?,
                    feed: row.get(7),
                    rule: row.get(8),
                    rule_version: row.get(9),
                    channel: row.get(10),
                    reason: row.get(11),
                    key: row.get(12),
                    row: row.get(13),
                    raised_at_us: row.get(14),
                    resolved: row.get(15),
                },
            });
        }
        Ok(claimed)
    }

    /// Settles deliveries, all in one transaction. Returns, for each call, the seqs that were open:
    /// the others were settled before, or went to another member.
    ///
    /// # Errors
    /// If the instance can't be asked: nothing was settled then, or everything.
    pub async fn settle_alerts(
        &self,
        group: &str,
        calls: &[SettleCall],
    ) -> Result<Vec<Vec<i64>>, DbError> {
        let mut session = self.group_session().await?;
        let statement = session
            .prepared("select * from pgbraid.group_settle($1, $2, $3, $4, $5, $6)")
            .await?;
        // By claim, so that two who settle at once do not wait for each other in a circle.
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_by_key(|at| calls[*at].claim);
        let transaction = session.client.transaction().await?;
        let asked = order.iter().map(|at| {
            let (transaction, statement, call) = (&transaction, &statement, &calls[*at]);
            async move {
                let (how, delay, reason) = match &call.how {
                    SettleHow::Ack => ("ack", 0, ""),
                    SettleHow::Nack(delay, reason) => ("nacked", ms(*delay), reason.as_str()),
                    SettleHow::Release(reason) => ("released", 0, reason.as_str()),
                    SettleHow::Terminate(reason) => ("terminated", 0, reason.as_str()),
                    SettleHow::Extend(by) => ("extend", ms(*by), ""),
                };
                transaction
                    .query(
                        statement,
                        &[&group, &call.claim, &call.seqs, &how, &delay, &reason],
                    )
                    .await
            }
        });
        // Sent at once, in this order.
        let answers = try_join_all(asked).await?;
        transaction.commit().await?;
        session.done();
        let mut settled = vec![Vec::new(); calls.len()];
        for (at, rows) in order.into_iter().zip(answers) {
            settled[at] = rows.iter().map(|row| row.get(0)).collect();
        }
        Ok(settled)
    }

    /// How groups stand here; `None` is all of them.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn group_standings(&self, name: Option<&str>) -> Result<Vec<GroupStanding>, DbError> {
        let mut session = self.reader().await?;
        let rows = session
            .client
            .query(
                "select h.name, \
                 pgbraid.counted(coalesce((select max(a.seq) from pgbraid.alert a), 0)), \
                 pgbraid.counted(h.last_seq), \
                 h.dropped, f.open, r.delayed, r.waiting, d.dead, \
                 (select extract(epoch from clock_timestamp() - a.raised_at)::float8 \
                  from pgbraid.alert a where a.seq > h.last_seq order by a.seq limit 1), \
                 (select extract(epoch from clock_timestamp() - a.raised_at)::float8 \
                  from pgbraid.alert a where a.seq = least(f.first, r.first)) \
                 from pgbraid.group_head h, \
                 lateral (select count(*) filter (where u.open) as open, \
                  min(u.seq) filter (where u.open) as first \
                  from pgbraid.group_claim c, unnest(c.seqs, c.open) u(seq, open) \
                  where c.name = h.name) f, \
                 lateral (select count(*) filter (where due_at is not null) as delayed, \
                  count(*) filter (where due_at is null) as waiting, \
                  min(seq) filter (where due_at is not null) as first \
                  from pgbraid.group_retry r where r.name = h.name) r, \
                 lateral (select count(*) as dead from pgbraid.dead_letter l \
                  where l.name = h.name) d \
                 where $1::text is null or h.name = $1 order by h.name",
                &[&name],
            )
            .await;
        let rows = session.ended(rows)?;
        let count = |row: &tokio_postgres::Row, at: usize| row.get::<_, i64>(at).unsigned_abs();
        Ok(rows
            .iter()
            .map(|row| GroupStanding {
                name: row.get(0),
                lag_alerts: u64::try_from(row.get::<_, i64>(1) - row.get::<_, i64>(2)).unwrap_or(0),
                dropped: count(row, 3),
                in_flight: count(row, 4),
                delayed: count(row, 5),
                waiting: count(row, 6),
                dead: count(row, 7),
                lag: seconds(row, 8),
                oldest_unacked: seconds(row, 9),
            })
            .collect())
    }

    /// Dead letters of a group after a seq, at most `limit`, ascending.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn dead_letters(
        &self,
        group: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetterRow>, DbError> {
        let mut session = self.reader().await?;
        let found = session
            .client
            .query(
                "select seq, coalesce(alert ->> 'feed', ''), coalesce(alert ->> 'rule', ''), \
                 coalesce((alert ->> 'rule_version')::int8, 0), coalesce(alert ->> 'channel', ''), \
                 coalesce(alert ->> 'reason', ''), key, coalesce((alert -> 'row')::text, '{}'), \
                 coalesce((extract(epoch from (alert ->> 'raised_at')::timestamptz) * 1000000)::int8, 0), \
                 reason, deliveries, (extract(epoch from died_at) * 1000000)::int8, \
                 coalesce((alert ->> 'resolved')::bool, false) \
                 from pgbraid.dead_letter where name = $1 and seq > $2 order by seq limit $3",
                &[&group, &after, &i64::from(limit)],
            )
            .await?;
        let seqs: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
        let attempts = session
            .client
            .query(
                "select d.seq, (e ->> 'delivery')::int4, e ->> 'member', \
                 (e ->> 'delivered_us')::int8, (e ->> 'ended_us')::int8, e ->> 'how', e ->> 'reason' \
                 from pgbraid.dead_letter d, jsonb_array_elements(d.history) with ordinality x(e, i) \
                 where d.name = $1 and d.seq = any ($2) order by d.seq, x.i",
                &[&group, &seqs],
            )
            .await;
        let attempts = session.ended(attempts)?;
        let mut letters: Vec<DeadLetterRow> = found
            .iter()
            .map(|row| DeadLetterRow {
                alert: AlertRow {
                    seq: row.get(0),
                    xid: 0,
                    feed: row.get(1),
                    rule: row.get(2),
                    rule_version: row.get(3),
                    channel: row.get(4),
                    reason: row.get(5),
                    key: row.get(6),
                    row: row.get(7),
                    raised_at_us: row.get(8),
                    resolved: row.get(12),
                },
                reason: row.get(9),
                deliveries: row.get::<_, i32>(10).unsigned_abs(),
                died_at_us: row.get(11),
                history: Vec::new(),
            })
            .collect();
        for row in &attempts {
            let seq: i64 = row.get(0);
            let at = letters.binary_search_by_key(&seq, |letter| letter.alert.seq);
            if let Ok(at) = at {
                letters[at].history.push(AttemptRow {
                    delivery: row.get::<_, i32>(1).unsigned_abs(),
                    member: row.get(2),
                    delivered_at_us: row.get(3),
                    ended_at_us: row.get(4),
                    how: row.get(5),
                    reason: row.get(6),
                });
            }
        }
        Ok(letters)
    }

    /// Delivers dead letters of a group again, from the first delivery; `None` is all. Returns how
    /// many there were. Those whose alert retention has dropped stay.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn requeue_dead_letters(
        &self,
        group: &str,
        seqs: Option<&[i64]>,
    ) -> Result<u64, DbError> {
        let sql = "with gone as (delete from pgbraid.dead_letter d \
             where d.name = $1 and ($2::int8[] is null or d.seq = any ($2)) \
             and exists (select 1 from pgbraid.alert a where a.seq = d.seq) \
             returning d.seq, d.key, d.history), \
             woken as (select pg_notify('pgbraid_alert', '')) \
             insert into pgbraid.group_retry (name, seq, key, due_at, deliveries, history) \
             select $1, gone.seq, gone.key, case when g.order_by_key then null \
             else clock_timestamp() end, 0, gone.history \
             from gone, woken, pgbraid.consumer_group g where g.name = $1 \
             on conflict (name, seq) do nothing";
        self.edit_dead_letters(sql, group, seqs).await
    }

    /// Drops dead letters of a group; `None` is all. Returns how many there were.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn drop_dead_letters(
        &self,
        group: &str,
        seqs: Option<&[i64]>,
    ) -> Result<u64, DbError> {
        let sql = "delete from pgbraid.dead_letter \
             where name = $1 and ($2::int8[] is null or seq = any ($2))";
        self.edit_dead_letters(sql, group, seqs).await
    }

    async fn edit_dead_letters(
        &self,
        sql: &str,
        group: &str,
        seqs: Option<&[i64]>,
    ) -> Result<u64, DbError> {
        let mut session = self.group_session().await?;
        let done = session.client.execute(sql, &[&group, &seqs]).await;
        session.ended(done)
    }
}
