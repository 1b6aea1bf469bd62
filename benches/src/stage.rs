//! The one PostgreSQL instance on which everything is measured, and the rows stored in it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pgbraid_devcluster::{DevCluster, TempCluster};
use serde_json::{Map, Value};
use tokio_postgres::Client;

use crate::{case::Measure, procs::Cpu};

/// What differs from the development cluster's settings; durability is PostgreSQL's default. WAL
/// files are kept for use again: to make a new one, PostgreSQL waits until the file system has
/// flushed it, which some disks take most of a second for.
const SETTINGS: [(&str, &str); 3] = [
    ("shared_buffers", "1GB"),
    ("min_wal_size", "4GB"),
    ("max_wal_size", "8GB"),
];

/// Settings that the report states.
const STATED: [&str; 12] = [
    "shared_buffers",
    "min_wal_size",
    "max_wal_size",
    "wal_level",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_compression",
    "checkpoint_timeout",
    "autovacuum",
    "max_connections",
    "jit",
];

/// Rows of one statement while rows are stored beforehand.
const CHUNK: u64 = 100_000;

/// An instance that ends with its owner.
pub struct Stage {
    cluster: TempCluster,
    superuser: Client,
}

impl Stage {
    pub async fn start() -> Result<Self> {
        let cluster = TempCluster::start(1, true, &SETTINGS)
            .await
            .context("starting PostgreSQL")?;
        let superuser = cluster.connect(0, true, "postgres").await?;
        Ok(Self { cluster, superuser })
    }

    pub fn cluster(&self) -> &DevCluster {
        &self.cluster
    }

    /// The settings in force, as PostgreSQL prints them.
    pub async fn settings(&self) -> Result<Map<String, Value>> {
        let mut settings = Map::new();
        for name in STATED {
            let row = self
                .superuser
                .query_one("select current_setting($1)", &[&name])
                .await?;
            settings.insert(name.to_owned(), Value::String(row.get(0)));
        }
        Ok(settings)
    }

    /// Stores rows with the keys 0 to `rows - 1` in the feed, nearly in the order of their keys.
    pub async fn preload(&self, rows: u64) -> Result<Duration> {
        let start = Instant::now();
        let next = AtomicU64::new(0);
        tokio::try_join!(self.insert(&next, rows), self.insert(&next, rows))?;
        let client = self.cluster.connect(0, false, "pgbraid").await?;
        client.batch_execute("vacuum (analyze) public.feed").await?;
        self.checkpoint().await?;
        Ok(start.elapsed())
    }

    /// Takes chunk after chunk.
    async fn insert(&self, next: &AtomicU64, rows: u64) -> Result<()> {
        let client = self.cluster.connect(0, false, "pgbraid").await?;
        let insert = client
            .prepare(
                "insert into public.feed (id, c1, c2) \
                 select i, floor(random() * 1000)::int, floor(random() * 10000)::int \
                 from generate_series($1::int8, $2::int8) as i",
            )
            .await?;
        loop {
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= rows {
                return Ok(());
            }
            let last = (first + CHUNK).min(rows) - 1;
            let range = (i64::try_from(first)?, i64::try_from(last)?);
            client
                .execute(&insert, &[&range.0, &range.1])
                .await
                .context("storing rows in the feed")?;
        }
    }

    pub async fn checkpoint(&self) -> Result<()> {
        self.superuser.batch_execute("checkpoint").await?;
        Ok(())
    }

    /// One measurement, with the CPU that it took. Each starts just behind a checkpoint, so that
    /// all pay alike for the first change of a page, which PostgreSQL logs whole.
    pub async fn take(&self, measure: impl Future<Output = Result<Measure>>) -> Result<Measure> {
        self.checkpoint().await?;
        let postmaster = self.cluster.instances()[0].pid();
        let before = Cpu::now(postmaster);
        let mut measure = measure.await?;
        let used = Cpu::now(postmaster) - before;
        let rows = measure.rows.max(1.0);
        let per_row = |ns: f64| ns / rows;
        measure.load_ns_per_row = measure.load_ns_per_row.or(used.load.map(per_row));
        measure.postgres_ns_per_row = used.postgres.map(per_row);
        Ok(measure)
    }
}
