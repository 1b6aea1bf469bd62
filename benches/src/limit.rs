//! The limit: what PostgreSQL takes on the feed's own tables from a bare loop without a router.
//!
//! Each connection has tables of its own, so no two wait for each other, and writes batches of
//! random stored keys of one table, sorted, as binary arrays. Which statement, how many rows and
//! how many connections are best depends on the machine: [`sweep`] finds it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use pgbraid_devcluster::DevCluster;
use rand::{RngExt, rngs::SmallRng};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};

use crate::case::Measure;

mod arrays;
mod choice;
mod keys;
pub mod sweep;

pub use choice::{Choice, Form};

use arrays::{Int4s, Int8s};
use keys::{Keys, Rows};

/// The bare loop.
pub struct Limit {
    keys: Arc<Keys>,
}

/// What one connection did.
struct Done {
    rows: u64,
    latencies: Histogram<u64>,
}

impl Done {
    fn nothing() -> Result<Self> {
        Ok(Self {
            rows: 0,
            // Up to ten minutes, in microseconds.
            latencies: Histogram::new_with_bounds(1, 600_000_000, 3)?,
        })
    }

    fn measure(&self, elapsed: Duration) -> Measure {
        let rows = self.rows as f64;
        let ms = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Measure {
            rows,
            rows_per_second: rows / elapsed.as_secs_f64(),
            p50_ms: ms(0.5),
            p99_ms: Some(ms(0.99)),
            ..Measure::default()
        }
    }
}

impl Limit {
    /// On a feed of so many tables with the keys 0 to `keys - 1`.
    pub fn new(tables: u32, keys: u64) -> Self {
        Self {
            keys: Arc::new(Keys::new(tables, keys)),
        }
    }

    /// Connects and warms up, so that planning and empty caches are no part of a measurement.
    pub async fn prepare(&self, cluster: &DevCluster, choice: Choice) -> Result<Writers> {
        let mut writers = Vec::new();
        for number in 0..choice.connections.min(self.keys.tables()) {
            let tables = (number..self.keys.tables()).step_by(choice.connections);
            writers.push(Writer::new(cluster, &self.keys, choice, tables).await?);
        }
        Ok(Writers { writers })
    }

    /// One connection, one row, one commit after the other, with the router's statement.
    pub async fn prepare_direct(&self, cluster: &DevCluster) -> Result<Writers> {
        let choice = Choice {
            form: Form::Upsert,
            rows: 1,
            connections: 1,
        };
        self.prepare(cluster, choice).await
    }
}

/// Connections that are ready to write.
pub struct Writers {
    writers: Vec<Writer>,
}

impl Writers {
    pub async fn run(&mut self, time: Duration) -> Result<Measure> {
        let start = Instant::now();
        let mut running: JoinSet<Result<(Writer, Done)>> = std::mem::take(&mut self.writers)
            .into_iter()
            .map(|writer| writer.run(start + time))
            .collect();
        let mut all = Done::nothing()?;
        while let Some(ended) = running.join_next().await {
            let (writer, done) = ended??;
            self.writers.push(writer);
            all.rows += done.rows;
            all.latencies.add(&done.latencies)?;
        }
        Ok(all.measure(start.elapsed()))
    }
}

/// One connection with its tables.
struct Writer {
    client: Client,
    keys: Arc<Keys>,
    /// Its tables and their prepared statements.
    tables: Vec<(usize, Statement)>,
    rows: usize,
    batch: Rows,
}

impl Writer {
    async fn new(
        cluster: &DevCluster,
        keys: &Arc<Keys>,
        choice: Choice,
        tables: impl Iterator<Item = usize>,
    ) -> Result<Self> {
        let client = cluster.connect(0, false, "pgbraid").await?;
        // Planned once: the keys are looked up in the index in the order of the batch.
        client
            .batch_execute("set plan_cache_mode = force_generic_plan")
            .await?;
        let mut prepared = Vec::new();
        for table in tables.filter(|table| !keys.of(*table).is_empty()) {
            let sql = choice.form.sql(table);
            let statement = client.prepare(&sql).await;
            let statement = statement.with_context(|| format!("preparing {sql}"))?;
            prepared.push((table, statement));
        }
        if prepared.is_empty() {
            bail!("too few keys are stored for the limit's loop: raise --rows");
        }
        let mut writer = Self {
            client,
            keys: Arc::clone(keys),
            tables: prepared,
            rows: choice.rows,
            batch: Rows::default(),
        };
        let mut random: SmallRng = rand::make_rng();
        for number in 0..writer.tables.len() {
            writer.write(&mut random, number, 1).await?;
        }
        Ok(writer)
    }

    async fn run(mut self, end: Instant) -> Result<(Self, Done)> {
        let mut random: SmallRng = rand::make_rng();
        let mut done = Done::nothing()?;
        while Instant::now() < end {
            let number = random.random_range(0..self.tables.len());
            let (rows, took) = self.write(&mut random, number, self.rows).await?;
            done.rows += rows;
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            done.latencies.saturating_record(us.max(1));
        }
        Ok((self, done))
    }

    /// Writes random rows of one of its tables; how many, and how long the commit took.
    async fn write(
        &mut self,
        random: &mut SmallRng,
        number: usize,
        rows: usize,
    ) -> Result<(u64, Duration)> {
        let (table, statement) = &self.tables[number];
        let batch = &mut self.batch;
        batch.draw(random, self.keys.of(*table), rows);
        let rows = batch.keys.len();
        let since = Instant::now();
        let written = self
            .client
            .execute(
                statement,
                &[&Int8s(&batch.keys), &Int4s(&batch.c1), &Int4s(&batch.c2)],
            )
            .await
            .with_context(|| format!("writing {rows} rows to feed_{table}"))?;
        if written != rows as u64 {
            bail!("feed_{table} took {written} of {rows} rows: not all keys are stored");
        }
        Ok((written, since.elapsed()))
    }
}
