//! Consumer groups as an instance keeps them.
//!
//! As with rules, the home's groups are the truth and ordered by its transactions; the other
//! instances get the whole set by its version. Each instance then keeps its own position of a group
//! (its head) and what is in flight of its own alerts: see `group_work`.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::{GenericClient, Transaction};

use crate::{DbError, DbErrorKind, Instance, identity::next_version};

/// What goes with a notification on the channel of ownership when only groups have changed.
pub const GROUPS_CHANGED: &str = "groups";

/// The settings of a group. Empty lists let everything pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GroupSpec {
    pub name: String,
    pub feeds: Vec<String>,
    pub channels: Vec<String>,
    pub rules: Vec<String>,
    pub instances: Vec<String>,
    /// A delivery that was not settled for this long comes again.
    pub visibility: Duration,
    /// After this many deliveries an alert is a dead letter.
    pub max_deliveries: u32,
    /// One alert of a key at a time.
    pub order_by_key: bool,
    /// Nothing is delivered.
    pub paused: bool,
}

/// A group as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The settings.
    pub spec: GroupSpec,
    /// Where it starts on an instance that has not heard of it: this crate keeps the text only.
    pub start: String,
    /// Counts its edits, from 1.
    pub version: i64,
    /// µs since 1970-01-01 UTC.
    pub created_at_us: i64,
    /// µs since 1970-01-01 UTC.
    pub updated_at_us: i64,
}

/// All groups of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSet {
    /// Counts edits of the set.
    pub version: i64,
    /// By name.
    pub groups: Vec<GroupRow>,
}

/// An edit of one group.
#[derive(Clone, Debug)]
pub enum GroupChange {
    /// Stores it, if its version is the one the editor has seen: 0 for a new one, `None` for
    /// whatever is there.
    Put {
        /// The settings.
        spec: GroupSpec,
        /// The version the editor has seen.
        expected: Option<i64>,
        /// Where it starts, if it is new.
        start: String,
    },
    /// Removes it with all it keeps.
    Remove {
        /// Its name.
        name: String,
        /// The version the editor has seen.
        expected: Option<i64>,
    },
}

/// A position in an instance's outbox, for a group's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadAt {
    /// After what is committed now.
    Now,
    /// A snapshot in text form; and inside a window its later end, and the last seq.
    Cursor {
        /// What was delivered.
        base: String,
        /// Delivered beyond it.
        window: Option<(String, i64)>,
    },
}

/// Where groups that an instance has not heard of start there, by name.
pub type Heads = BTreeMap<String, HeadAt>;

async fn read_set(client: &impl GenericClient, lock: bool) -> Result<GroupSet, DbError> {
    let version = client
        .query_one(
            if lock {
                "select version from pgbraid.group_set for update"
            } else {
                "select version from pgbraid.group_set"
            },
            &[],
        )
        .await?
        .get(0);
    let rows = client
        .query(
            "select name, feeds, channels, rules, instances, visibility_ms, max_deliveries, \
             order_by_key, paused, start, version, \
             (extract(epoch from created_at) * 1000000)::int8, \
             (extract(epoch from updated_at) * 1000000)::int8 \
             from pgbraid.consumer_group order by name",
            &[],
        )
        .await?;
    let groups = rows
        .into_iter()
        .map(|row| GroupRow {
            spec: GroupSpec {
                name: row.get(0),
                feeds: row.get(1),
                channels: row.get(2),
                rules: row.get(3),
                instances: row.get(4),
                visibility: Duration::from_millis(row.get::<_, i64>(5).unsigned_abs()),
                max_deliveries: row.get::<_, i32>(6).unsigned_abs(),
                order_by_key: row.get(7),
                paused: row.get(8),
            },
            start: row.get(9),
            version: row.get(10),
            created_at_us: row.get(11),
            updated_at_us: row.get(12),
        })
        .collect();
    Ok(GroupSet { version, groups })
}

async fn store(transaction: &Transaction<'_>, row: &GroupRow) -> Result<(), DbError> {
    let spec = &row.spec;
    let visibility = i64::try_from(spec.visibility.as_millis()).unwrap_or(i64::MAX);
    let deliveries = i32::try_from(spec.max_deliveries).unwrap_or(i32::MAX);
    let created = row.created_at_us as f64 / 1e6;
    transaction
        .execute(
            "insert into pgbraid.consumer_group (name, feeds, channels, rules, instances, \
             visibility_ms, max_deliveries, order_by_key, paused, start, version, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, to_timestamp($12)) \
             on conflict (name) do update set feeds = excluded.feeds, \
             channels = excluded.channels, rules = excluded.rules, \
             instances = excluded.instances, visibility_ms = excluded.visibility_ms, \
             max_deliveries = excluded.max_deliveries, order_by_key = excluded.order_by_key, \
             paused = excluded.paused, version = excluded.version, updated_at = now()",
            &[
                &spec.name,
                &spec.feeds,
                &spec.channels,
                &spec.rules,
                &spec.instances,
                &visibility,
                &deliveries,
                &spec.order_by_key,
                &spec.paused,
                &row.start,
                &row.version,
                &created,
            ],
        )
        .await?;
    Ok(())
}

/// Sets a group's head, which is made if it is not there. What it holds in the outbox follows.
async fn set_head(transaction: &Transaction<'_>, name: &str, at: &HeadAt) -> Result<(), DbError> {
    // A snapshot may be taken as a position only as far as a crash cannot undo it.
    let now = "pgbraid.capped(pg_current_snapshot(), \
               (select x.xid from pgbraid.alert x order by x.xid desc limit 1), '1:1:')";
    let position = match at {
        HeadAt::Now => format!("{now}, null::pg_snapshot, 0::int8"),
        HeadAt::Cursor { .. } => "$2::text::pg_snapshot, $3::text::pg_snapshot, $4::int8".into(),
    };
    let sql = format!(
        "with at (base, upper, after_seq) as materialized (select {position}), \
         head as (insert into pgbraid.group_head as h (name, base, upper, after_seq, last_seq, \
         dropped_part) \
         select $1, at.base, at.upper, at.after_seq, greatest(at.after_seq, \
         (select a.seq from pgbraid.alert a where pg_visible_in_snapshot(a.xid, at.base) \
         order by a.seq desc limit 1)), \
         (select coalesce(max(d.part), 0) from pgbraid.outbox_dropped d) from at \
         on conflict (name) do update set base = excluded.base, upper = excluded.upper, \
         after_seq = excluded.after_seq, last_seq = excluded.last_seq, \
         dropped_part = excluded.dropped_part) \
         insert into pgbraid.outbox_hold as o (holder, needed_xid, needed_seq, updated_at) \
         select 'group ' || $1, pg_snapshot_xmin(at.base), 0, clock_timestamp() from at \
         on conflict (holder) do update set needed_xid = excluded.needed_xid, \
         needed_seq = excluded.needed_seq, updated_at = excluded.updated_at"
    );
    match at {
        HeadAt::Cursor { base, window } => {
            let (upper, after) = match window {
                Some((upper, after)) => (Some(upper.as_str()), *after),
                None => (None, 0),
            };
            transaction
                .execute(&sql, &[&name, &base, &upper, &after])
                .await?
        }
        HeadAt::Now => transaction.execute(&sql, &[&name]).await?,
    };
    Ok(())
}

async fn forget(transaction: &Transaction<'_>, name: &str) -> Result<(), DbError> {
    // As claims do: first the head. In another order the two would wait for each other.
    transaction
        .execute(
            "select 1 from pgbraid.group_head where name = $1 for update",
            &[&name],
        )
        .await?;
    transaction
        .execute(
            "delete from pgbraid.consumer_group where name = $1",
            &[&name],
        )
        .await?;
    transaction
        .execute(
            "delete from pgbraid.outbox_hold where holder = 'group ' || $1",
            &[&name],
        )
        .await?;
    Ok(())
}

fn contradiction(message: String) -> DbError {
    DbError::new(DbErrorKind::Contradiction, message)
}

fn check_version(name: &str, there: i64, expected: Option<i64>) -> Result<(), DbError> {
    match expected {
        Some(expected) if expected != there => Err(contradiction(match (there, expected) {
            (0, _) => format!("group {name:?} is not there any more: look again and decide"),
            (_, 0) => format!("there is a group {name:?} already, of version {there}"),
            _ => format!(
                "group {name:?} has version {there}, not {expected}: somebody else changed it; \
                 look again and decide"
            ),
        })),
        _ => Ok(()),
    }
}

impl Instance {
    /// The groups as this instance has them.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn groups(&self) -> Result<GroupSet, DbError> {
        let mut session = self.reader().await?;
        let transaction = session
            .client
            .build_transaction()
            .read_only(true)
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .start()
            .await?;
        let set = read_set(&transaction, false).await?;
        transaction.commit().await?;
        session.done();
        Ok(set)
    }

    /// The version of the groups that this instance has.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn groups_version(&self) -> Result<i64, DbError> {
        let mut session = self.reader().await?;
        let row = session
            .client
            .query_one("select version from pgbraid.group_set", &[])
            .await?;
        session.done();
        Ok(row.get(0))
    }

    /// In the home: edits a group. Returns the set afterwards, and whether a group was made.
    ///
    /// # Errors
    /// `Contradiction` if a version is not the stored one.
    pub async fn edit_groups(
        &self,
        change: &GroupChange,
        head: &HeadAt,
    ) -> Result<(GroupSet, bool), DbError> {
        let mut session = self.group_session().await?;
        let transaction = session.client.transaction().await?;
        let before = read_set(&transaction, true).await?;
        let stored = |name: &str| before.groups.iter().find(|row| row.spec.name == name);
        let mut made = false;
        match change {
            GroupChange::Put {
                spec,
                expected,
                start,
            } => {
                let there = stored(&spec.name);
                check_version(&spec.name, there.map_or(0, |row| row.version), *expected)?;
                if there.is_some_and(|row| row.spec == *spec) {
                    transaction.rollback().await?;
                    session.done();
                    return Ok((before, false));
                }
                let now: i64 = transaction
                    .query_one("select (extract(epoch from now()) * 1000000)::int8", &[])
                    .await?
                    .get(0);
                let row = GroupRow {
                    spec: spec.clone(),
                    start: there.map_or_else(|| start.clone(), |row| row.start.clone()),
                    version: there.map_or(0, |row| row.version) + 1,
                    created_at_us: there.map_or(now, |row| row.created_at_us),
                    updated_at_us: now,
                };
                store(&transaction, &row).await?;
                if there.is_none() {
                    made = true;
                    set_head(&transaction, &spec.name, head).await?;
                }
            }
            GroupChange::Remove { name, expected } => {
                let there = stored(name).map_or(0, |row| row.version);
                check_version(name, there, *expected)?;
                if there == 0 {
                    return Err(contradiction(format!("there is no group {name:?}")));
                }
                forget(&transaction, name).await?;
            }
        }
        transaction
            .batch_execute(&format!(
                "update pgbraid.group_set set version = {}; notify pgbraid_ownership, 'groups'",
                next_version("version")
            ))
            .await?;
        let after = read_set(&transaction, false).await?;
        transaction.commit().await?;
        session.done();
        Ok((after, made))
    }

    /// Makes this instance's groups equal to the home's set, unless it has that version already.
    /// A group that is new here starts where `heads` says; one whose start is not there yet waits
    /// for the next time, with the version unchanged. Returns whether anything was done.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn install_groups(&self, set: &GroupSet, heads: &Heads) -> Result<bool, DbError> {
        let mut session = self.group_session().await?;
        let transaction = session.client.transaction().await?;
        let before = read_set(&transaction, true).await?;
        if before.version >= set.version {
            transaction.rollback().await?;
            session.done();
            return Ok(false);
        }
        let wanted = |name: &str| set.groups.iter().find(|row| row.spec.name == name);
        for row in &before.groups {
            // Removed and made again under the same name, it is another one.
            let same =
                wanted(&row.spec.name).is_some_and(|new| new.created_at_us == row.created_at_us);
            if !same {
                forget(&transaction, &row.spec.name).await?;
            }
        }
        for row in &set.groups {
            let known = before.groups.iter().any(|known| {
                known.spec.name == row.spec.name && known.created_at_us == row.created_at_us
            });
            store(&transaction, row).await?;
            if !known {
                let head = heads.get(&row.spec.name).unwrap_or(&HeadAt::Now);
                set_head(&transaction, &row.spec.name, head).await?;
            }
        }
        transaction
            .execute("update pgbraid.group_set set version = $1", &[&set.version])
            .await?;
        transaction.commit().await?;
        session.done();
        Ok(true)
    }

    /// Sets a group's position here. What was delivered and not settled is forgotten.
    ///
    /// # Errors
    /// If the instance can't be asked, or does not know the group.
    pub async fn replay_group(&self, name: &str, head: &HeadAt) -> Result<(), DbError> {
        let mut session = self.group_session().await?;
        let transaction = session.client.transaction().await?;
        let locked = transaction
            .execute(
                "select 1 from pgbraid.group_head where name = $1 for update",
                &[&name],
            )
            .await?;
        if locked == 0 {
            transaction.rollback().await?;
            session.done();
            return Err(contradiction(format!(
                "{} has no group {name:?} yet",
                self.name()
            )));
        }
        for table in ["group_claim", "group_retry"] {
            let sql = format!("delete from pgbraid.{table} where name = $1");
            transaction.execute(&sql, &[&name]).await?;
        }
        set_head(&transaction, name, head).await?;
        transaction.batch_execute("notify pgbraid_alert").await?;
        transaction.commit().await?;
        session.done();
        Ok(())
    }
}
