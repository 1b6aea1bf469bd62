//! Probes: rows that raise an alert each, written by bare connections past the router, so that the
//! moment of their commit is known.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::DevCluster;
use pgbraid_proto::v1;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};
use tonic::transport::Channel;

use super::fixture::FEED;

/// The channel of probes, and their rule.
pub const CHANNEL: &str = "probe";

/// So that one commit that takes long does not hold up the next.
const CONNECTIONS: u64 = 4;

/// Keys of probes are beyond those of every load.
const FIRST_KEY: i64 = 1 << 40;

/// New rows from the first key on. Column c3 is written by probes only.
const INSERT: &str = "insert into public.feed (id, c3) \
     select id, 1 from generate_series($1::int8, $2::int8) id";

/// How often probes are written.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub commits_per_second: u32,
    pub rows_per_commit: u32,
}

impl Rate {
    fn due(self, commit: u64) -> Duration {
        Duration::from_secs_f64(commit as f64 / f64::from(self.commits_per_second.max(1)))
    }

    /// Commits that are due within a time.
    fn commits(self, time: Duration) -> u64 {
        (time.as_secs_f64() * f64::from(self.commits_per_second)) as u64
    }

    /// First and last key of a commit.
    fn keys(self, first: i64, commit: u64) -> (i64, i64) {
        let rows = i64::from(self.rows_per_commit.max(1));
        let start = first + commit.cast_signed() * rows;
        (start, start + rows - 1)
    }
}

/// Puts the rule that probes match.
pub async fn put_rule(admin: &mut v1::admin_client::AdminClient<Channel>) -> Result<()> {
    let rule = v1::Rule {
        name: CHANNEL.into(),
        feed: FEED.into(),
        expression: "c3 > 0".into(),
        channel: CHANNEL.into(),
        reason: "a probe".into(),
        ..Default::default()
    };
    let put = v1::RulePut {
        rule: Some(rule),
        expected_version: None,
    };
    let request = v1::PutRulesRequest {
        rules: vec![put],
        ..Default::default()
    };
    let response = admin.put_rules(request).await?.into_inner();
    if !response.pending.is_empty() {
        bail!("{} did not take the rule", response.pending.join(", "));
    }
    Ok(())
}

/// Writes probes to the first instance, which must own all tables.
pub struct Prober {
    connections: Vec<(Client, Statement)>,
    first_key: i64,
}

/// Probes that were written.
pub struct Written {
    /// When the commit of each had returned, in the order of their keys from [`Prober::first_key`].
    pub committed: Vec<Instant>,
}

impl Prober {
    pub async fn connect(cluster: &DevCluster) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = cluster.connect(0, false, "pgbraid").await?;
            let statement = client.prepare(INSERT).await?;
            connections.push((client, statement));
        }
        let mut prober = Self {
            connections,
            first_key: FIRST_KEY,
        };
        prober.first_key = prober.next_key().await?;
        Ok(prober)
    }

    /// The key of the next probe.
    pub fn first_key(&self) -> i64 {
        self.first_key
    }

    /// Beyond all probes that are stored.
    async fn next_key(&self) -> Result<i64> {
        let (client, _) = self.connections.first().context("there is a connection")?;
        let query = "select coalesce(max(id) + 1, $1) from public.feed where id >= $1";
        Ok(client.query_one(query, &[&FIRST_KEY]).await?.get(0))
    }

    /// Writes at a steady rate; what is late goes at once.
    pub async fn write(self, rate: Rate, time: Duration) -> Result<Written> {
        let (start, commits) = (Instant::now(), rate.commits(time));
        let first_key = self.first_key;
        let next = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for (client, statement) in self.connections {
            let next = Arc::clone(&next);
            writers.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let commit = next.fetch_add(1, Ordering::Relaxed);
                    if commit >= commits {
                        return Ok(done);
                    }
                    tokio::time::sleep_until((start + rate.due(commit)).into()).await;
                    let (first, last) = rate.keys(first_key, commit);
                    client.execute(&statement, &[&first, &last]).await?;
                    done.push((commit, Instant::now()));
                }
            });
        }
        let mut all: Vec<(u64, Instant)> = Vec::new();
        while let Some(done) = writers.join_next().await {
            let done: Result<_, tokio_postgres::Error> = done?;
            all.extend(done.context("a probe was not written")?);
        }
        all.sort_unstable_by_key(|(commit, _)| *commit);
        let rows = rate.rows_per_commit.max(1) as usize;
        let committed = all
            .into_iter()
            .flat_map(|(_, at)| std::iter::repeat_n(at, rows))
            .collect();
        Ok(Written { committed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_evenly_spaced_and_their_keys_without_gaps() {
        let rate = Rate {
            commits_per_second: 50,
            rows_per_commit: 10,
        };
        assert_eq!(rate.due(0), Duration::ZERO);
        assert_eq!(rate.due(100), Duration::from_secs(2));
        assert_eq!(rate.commits(Duration::from_secs(3)), 150);
        assert_eq!(rate.keys(1000, 0), (1000, 1009));
        assert_eq!(rate.keys(1000, 1), (1010, 1019));
    }
}
