//! Writers of every kind, straight to the instances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgbraid_tests::{Layout, wait::until};
use rand::RngExt;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

use crate::World;

const WRITERS: usize = 10;
/// Few keys, so that each has many alerts.
const KEYS_A_ROW: usize = 10;
/// Statements of many rows take them from a part of the keys, in which a row in so many is taken:
/// drawn from all, every two transactions would meet, and writers only wait for each other.
const PART: usize = 2;
/// What counts as many.
const MANY: usize = 100;
/// Longest transaction.
const LONG_MS: u64 = 1500;

/// The writers in the background.
pub struct Writers(JoinSet<()>);

struct Writer {
    world: Arc<World>,
    keys: Arc<Vec<Vec<i64>>>,
    committed: Arc<AtomicUsize>,
    wanted: usize,
    /// The most rows of one statement.
    rows: usize,
    prepared: Arc<AtomicU64>,
}

impl Writers {
    /// Starts them; they end once they have committed so many rows.
    pub fn start(world: &Arc<World>, layout: &Layout, wanted: usize) -> Self {
        // A million at twenty a statement would take a day.
        let rows = (wanted / 600).clamp(20, 1000);
        let instances = usize::from(world.cluster.instances());
        let keys = (0..instances)
            .map(|at| layout.keys(rows * KEYS_A_ROW, |layout, key| layout.owner(key) == at));
        let keys = Arc::new(keys.collect());
        let committed = Arc::new(AtomicUsize::new(0));
        let prepared = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..WRITERS {
            let writer = Writer {
                world: world.clone(),
                keys: Arc::clone(&keys),
                committed: committed.clone(),
                wanted,
                rows,
                prepared: prepared.clone(),
            };
            tasks.spawn(writer.run());
        }
        Self(tasks)
    }

    /// Waits for them, and decides on what was left prepared.
    pub async fn join(mut self, world: &World) {
        while let Some(ended) = self.0.join_next().await {
            ended.expect("a writer ends");
        }
        for at in 0..usize::from(world.cluster.instances()) {
            let client = until("an instance that was killed to be back", || async {
                world
                    .cluster
                    .postgres
                    .connect(at, false, "pgbraid")
                    .await
                    .ok()
            })
            .await;
            decide(&client).await;
        }
    }
}

/// Commits some of the prepared transactions, and rolls the others back.
async fn decide(client: &Client) {
    let Ok(prepared) = client.query("select gid from pg_prepared_xacts", &[]).await else {
        return;
    };
    for row in prepared {
        let gid: String = row.get(0);
        let end = ["commit", "rollback"][rand::rng().random_range(0..2)];
        // Another writer may have decided already.
        let _ = client
            .batch_execute(&format!("{end} prepared '{gid}'"))
            .await;
    }
}

impl Writer {
    async fn run(self) {
        while self.committed.load(Ordering::SeqCst) < self.wanted {
            let at = rand::rng().random_range(0..self.keys.len());
            let connected = self
                .world
                .cluster
                .postgres
                .connect(at, false, "pgbraid")
                .await;
            let Ok(client) = connected else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            for _ in 0..20 {
                match self.transaction(&client, at).await {
                    Ok(rows) => {
                        self.committed.fetch_add(rows, Ordering::SeqCst);
                    }
                    Err(error) if error.is_closed() => break,
                    // A deadlock, or the instance starts.
                    Err(_) => {
                        let _ = client.batch_execute("rollback").await;
                    }
                }
                if self.committed.load(Ordering::SeqCst) >= self.wanted {
                    return;
                }
            }
        }
    }

    /// Writes a few rows; returns how many.
    async fn write(&self, client: &Client, at: usize) -> Result<usize, Error> {
        let count = rand::rng().random_range(1..=self.rows);
        let all = &self.keys[at];
        let size = match count > MANY {
            true => count * PART,
            false => all.len(),
        };
        let first = rand::rng().random_range(0..=all.len() - size);
        let mut keys: Vec<i64> = (0..count)
            .map(|_| all[first + rand::rng().random_range(0..size)])
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let sql = "insert into public.feed (id, c1) select unnest($1::int8[]), 0 \
                   on conflict (id) do update set c1 = feed.c1 + 1";
        let rows = client.execute(sql, &[&keys]).await?;
        Ok(rows as usize)
    }

    /// One transaction of a random kind; returns the rows committed.
    async fn transaction(&self, client: &Client, at: usize) -> Result<usize, Error> {
        let kind = rand::rng().random_range(0..20);
        client.batch_execute("begin").await?;
        let mut rows = self.write(client, at).await?;
        match kind {
            0 => {
                let wait = rand::rng().random_range(50..LONG_MS);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                rows += self.write(client, at).await?;
            }
            1..=3 => {
                client.batch_execute("rollback").await?;
                return Ok(0);
            }
            4..=6 => {
                client.batch_execute("savepoint s").await?;
                self.write(client, at).await?;
                client.batch_execute("rollback to s").await?;
                rows += self.write(client, at).await?;
            }
            // PostgreSQL refuses to prepare what has notified, so that this one ends in an error: a
            // prepared transaction never holds an alert.
            7 => {
                let number = self.prepared.fetch_add(1, Ordering::SeqCst);
                client
                    .batch_execute(&format!("prepare transaction 'chaos{number}'"))
                    .await?;
                if rand::rng().random_bool(0.5) {
                    let wait = rand::rng().random_range(10..500);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                decide(client).await;
                return Ok(rows);
            }
            _ => {}
        }
        client.batch_execute("commit").await?;
        Ok(rows)
    }
}
