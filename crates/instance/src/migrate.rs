//! Brings one instance up to date: the schema `pgbraid`, then the user's own SQL.
//!
//! Each step is a transaction of its own under an advisory lock, noted in pgbraid.migration, so
//! that a killed run goes on where it stopped and a second one does nothing.

use std::time::{Duration, Instant as StdInstant};

use tokio_postgres::Client;
use uuid::Uuid;

use crate::{DbError, DbErrorKind, Instance, identity::read_cluster};

/// The steps of the schema `pgbraid`, in order. Never edited once released.
pub const MIGRATIONS: &[(&str, &str)] = &[
    (
        "0001_schema",
        include_str!("../../../migrations/0001_schema.sql"),
    ),
    (
        "0002_outbox",
        include_str!("../../../migrations/0002_outbox.sql"),
    ),
    (
        "0003_groups",
        include_str!("../../../migrations/0003_groups.sql"),
    ),
    (
        "0004_changes",
        include_str!("../../../migrations/0004_changes.sql"),
    ),
    (
        "0005_rule_edges",
        include_str!("../../../migrations/0005_rule_edges.sql"),
    ),
    (
        "0006_moves",
        include_str!("../../../migrations/0006_moves.sql"),
    ),
    (
        "0007_change_columns",
        include_str!("../../../migrations/0007_change_columns.sql"),
    ),
    (
        "0008_timelines",
        include_str!("../../../migrations/0008_timelines.sql"),
    ),
    (
        "0009_claims_by_part",
        include_str!("../../../migrations/0009_claims_by_part.sql"),
    ),
    (
        "0010_trigger_text",
        include_str!("../../../migrations/0010_trigger_text.sql"),
    ),
    (
        "0011_auto_moves",
        include_str!("../../../migrations/0011_auto_moves.sql"),
    ),
    (
        "0012_claims_in_windows",
        include_str!("../../../migrations/0012_claims_in_windows.sql"),
    ),
];

/// Any number, the same for all versions of pgbraid.
const LOCK: i64 = 0x7067_6272_6169_6421;

/// A file of the user's SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFile {
    /// Its name, which stands for it in the version table.
    pub name: String,
    /// Its text.
    pub sql: String,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Steps applied now, in order.
    pub applied: Vec<String>,
    /// Steps that were applied before.
    pub skipped: usize,
}

/// What a migration would find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingSteps {
    /// The instance has never been migrated.
    pub fresh: bool,
    /// Steps that are not applied.
    pub steps: usize,
    /// As a home it knows of moves of tables.
    pub movers: bool,
}

impl Instance {
    /// What is not applied yet.
    ///
    /// # Errors
    /// If the instance can't be asked.
    pub async fn pending_steps(&self, files: &[SchemaFile]) -> Result<PendingSteps, DbError> {
        let client = self.connector.client("").await?;
        let row = client
            .query_one(
                "select to_regclass('pgbraid.migration') is null, \
                 to_regclass('pgbraid.mover') is not null",
                &[],
            )
            .await?;
        let fresh = row.get(0);
        let known: Vec<(String, String)> = match fresh {
            true => Vec::new(),
            false => client
                .query("select kind, name from pgbraid.migration", &[])
                .await?
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect(),
        };
        let own = MIGRATIONS.iter().map(|(name, _)| ("pgbraid", *name));
        let all = own.chain(files.iter().map(|file| ("user", file.name.as_str())));
        let missing =
            |(kind, name): &(&str, &str)| !known.iter().any(|(k, n)| k == kind && n == name);
        Ok(PendingSteps {
            fresh,
            steps: all.filter(missing).count(),
            movers: row.get(1),
        })
    }

    /// Makes routers look at everything again.
    ///
    /// # Errors
    /// If the instance can't be reached.
    pub async fn tell_routers(&self) -> Result<(), DbError> {
        let mut session = self.reader().await?;
        session
            .client
            .batch_execute("notify pgbraid_ownership")
            .await?;
        session.done();
        Ok(())
    }

    /// Applies what is missing, and writes the cluster's identity if there is none yet.
    ///
    /// # Errors
    /// If a step fails (nothing of it stays), if a file that was applied before has changed, if the
    /// instance belongs to another cluster, or if the lock can't be had before `lock_wait` is over.
    pub async fn migrate(
        &self,
        cluster: Uuid,
        home: &str,
        files: &[SchemaFile],
        lock_wait: Duration,
    ) -> Result<MigrationReport, DbError> {
        // Schema changes may take longer than any statement of the feed.
        let mut client = self.connector.client("-c statement_timeout=0").await?;
        self.lock(&client, lock_wait).await?;
        let result = self.migrate_locked(&mut client, cluster, home, files).await;
        let _ = client
            .execute("select pg_advisory_unlock($1)", &[&LOCK])
            .await;
        result
    }

    /// Polls: a session that waits for an advisory lock holds a snapshot, which would block
    /// `create index concurrently` in the user's own SQL.
    async fn lock(&self, client: &Client, wait: Duration) -> Result<(), DbError> {
        let started = StdInstant::now();
        loop {
            let locked: bool = client
                .query_one("select pg_try_advisory_lock($1)", &[&LOCK])
                .await?
                .get(0);
            if locked {
                return Ok(());
            }
            if started.elapsed() >= wait {
                let holder = client
                    .query_opt(
                        "select pid, coalesce(application_name, ''), coalesce(client_addr::text, 'local') \
                         from pg_locks join pg_stat_activity using (pid) \
                         where locktype = 'advisory' and granted \
                         and (classid::int8 << 32) | objid::int8 = $1",
                        &[&LOCK],
                    )
                    .await?
                    .map(|row| {
                        format!(
                            " by backend {} ({}, {})",
                            row.get::<_, i32>(0),
                            row.get::<_, String>(1),
                            row.get::<_, String>(2)
                        )
                    });
                return Err(DbError::new(
                    DbErrorKind::Conflict,
                    format!(
                        "another migration has held {} for {wait:?}{}",
                        self.name(),
                        holder.unwrap_or_default()
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn migrate_locked(
        &self,
        client: &mut Client,
        cluster: Uuid,
        home: &str,
        files: &[SchemaFile],
    ) -> Result<MigrationReport, DbError> {
        if let Some(found) = read_cluster(client).await? {
            if found.cluster_id != cluster {
                return Err(DbError::new(
                    DbErrorKind::Contradiction,
                    format!(
                        "{} at {} belongs to cluster {}, not to {cluster}: correct its host",
                        self.name(),
                        self.address(),
                        found.cluster_id
                    ),
                ));
            }
            if found.instance != self.name().to_string() {
                return Err(DbError::new(
                    DbErrorKind::Contradiction,
                    format!(
                        "the instance at {} is {}, but the shard map calls it {}: correct its \
                         host or name",
                        self.address(),
                        found.instance,
                        self.name()
                    ),
                ));
            }
        }
        client
            .batch_execute(
                "create schema if not exists pgbraid; \
                 revoke all on schema pgbraid from public; \
                 create table if not exists pgbraid.migration ( \
                   kind text not null, name text not null, checksum text not null, \
                   applied_at timestamptz not null default now(), primary key (kind, name))",
            )
            .await
            .map_err(|error| DbError::from(error).context("creating the schema pgbraid"))?;
        let mut report = MigrationReport::default();
        for (name, sql) in MIGRATIONS {
            self.step(client, "pgbraid", name, sql, &mut report).await?;
        }
        client
            .execute(
                "insert into pgbraid.cluster (cluster_id, instance, home) \
                 values ($1::text::uuid, $2, $3) on conflict do nothing",
                &[&cluster.to_string(), &self.name().to_string(), &home],
            )
            .await?;
        for file in files {
            self.step(client, "user", &file.name, &file.sql, &mut report)
                .await?;
        }
        Ok(report)
    }

    async fn step(
        &self,
        client: &mut Client,
        kind: &str,
        name: &str,
        sql: &str,
        report: &mut MigrationReport,
    ) -> Result<(), DbError> {
        let transaction = client.transaction().await?;
        let checksum: String = transaction
            .query_one("select md5($1)", &[&sql])
            .await?
            .get(0);
        let known = transaction
            .query_opt(
                "select checksum from pgbraid.migration where kind = $1 and name = $2",
                &[&kind, &name],
            )
            .await?;
        if let Some(known) = known {
            if known.get::<_, String>(0) != checksum {
                return Err(DbError::new(
                    DbErrorKind::Contradiction,
                    format!(
                        "{name} was applied to {} with other text: leave applied files as they \
                         are and put changes into a new file",
                        self.name()
                    ),
                ));
            }
            report.skipped += 1;
            return Ok(());
        }
        transaction.batch_execute(sql).await.map_err(|error| {
            let position = error
                .as_db_error()
                .and_then(|db| db.position())
                .and_then(|position| match position {
                    tokio_postgres::error::ErrorPosition::Original(at) => Some(*at as usize),
                    tokio_postgres::error::ErrorPosition::Internal { .. } => None,
                })
                .map(|at| {
                    let before: String = sql.chars().take(at.saturating_sub(1)).collect();
                    format!(" line {}", before.matches('\n').count() + 1)
                });
            DbError::from(error).context(format!(
                "{name}{} on {}",
                position.unwrap_or_default(),
                self.name()
            ))
        })?;
        transaction
            .execute(
                "insert into pgbraid.migration (kind, name, checksum) values ($1, $2, $3)",
                &[&kind, &name, &checksum],
            )
            .await
            .map_err(|error| {
                DbError::from(error).context(format!(
                    "{name} on {}: noting it (the file must not contain commit or rollback)",
                    self.name()
                ))
            })?;
        transaction.commit().await?;
        report.applied.push(name.to_owned());
        Ok(())
    }
}
