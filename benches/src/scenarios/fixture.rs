//! What scenarios run on: PostgreSQL instances with the feed, and routers over them.

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pgbraid_devcluster::{DevCluster, TempCluster};
use pgbraid_proto::v1::{self, admin_client::AdminClient};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tonic::transport::Channel;

use super::{load::Load, say};
use crate::procs::{Memory, cpu_ns};

/// The feed of every scenario, and its parent in the schema public.
pub const FEED: &str = "feed";

/// Tables of the feed.
pub const TABLES: u32 = 64;

/// Shared by the instances, so that more of them have no more memory.
const SHARED_BUFFERS_MB: u32 = 1024;

/// WAL until a checkpoint is forced, shared as well.
const MAX_WAL_MB: u32 = 8192;

/// PostgreSQL before 16 starts one new subscription of an instance in this time, 5 s by default: a
/// wait that has nothing to do with how fast tables move.
pub const QUICK_SUBSCRIPTIONS: [(&str, &str); 1] = [("wal_retrieve_retry_interval", "100ms")];

/// The program under test, beside this one.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("pgbraid");
    if !path.is_file() {
        bail!(
            "{} is not there: ./run bench builds it, or cargo build --release -p pgbraid",
            path.display()
        );
    }
    Ok(path)
}

/// Where the tables of the feed are at first.
#[derive(Clone, Copy, Debug)]
pub enum Tables {
    /// So many, evenly on all instances.
    Pinned(u32),
    /// So many, where their hash puts them, on the first instances.
    On(u32, usize),
}

/// Instances with default durability, and the feed's schema on them.
pub struct Fleet {
    cluster: TempCluster,
    config: PathBuf,
    folder: tempfile::TempDir,
}

impl Fleet {
    /// Starts the instances, with the tables spread evenly, and migrates them. `settings` go
    /// to the end of `pgbraid.toml`, where its section `[postgres]` is still open.
    pub async fn start(instances: u16, settings: &str) -> Result<Self> {
        Self::with(instances, settings, Tables::Pinned(TABLES), &[]).await
    }

    /// The same with other tables, and more settings of PostgreSQL.
    pub async fn with(
        instances: u16,
        settings: &str,
        tables: Tables,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let schema = include_str!("../../workloads/pgbraid_schema.sql");
        Self::of(schema, instances, settings, tables, more).await
    }

    /// One instance with another table for the feed.
    pub async fn with_schema(schema: &str) -> Result<Self> {
        Self::of(schema, 1, "", Tables::Pinned(TABLES), &[]).await
    }

    async fn of(
        schema: &str,
        instances: u16,
        settings: &str,
        tables: Tables,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        say(format_args!(
            "starting {instances} PostgreSQL instance(s) with default durability"
        ));
        let share = |megabytes: u32| format!("{}MB", megabytes / u32::from(instances.max(1)));
        let (buffers, wal) = (share(SHARED_BUFFERS_MB), share(MAX_WAL_MB));
        let mut postgres = vec![("shared_buffers", &*buffers), ("max_wal_size", &*wal)];
        postgres.extend_from_slice(more);
        let cluster = TempCluster::start(instances, true, &postgres)
            .await
            .context("starting PostgreSQL")?;
        let folder = tempfile::Builder::new()
            .prefix("pgbraid-bench-")
            .tempdir()?;
        std::fs::write(folder.path().join("shardmap.toml"), map(&cluster, tables))?;
        std::fs::write(folder.path().join("schema.sql"), schema)?;
        let config = folder.path().join("pgbraid.toml");
        let text = format!(
            "schema = [\"schema.sql\"]\n\n[postgres]\npassword_file = {:?}\n\
             sslmode = \"disable\"\n{settings}\n\
             [moves]\nuser = \"postgres\"\npassword_file = {:?}\n",
            cluster.password_file(),
            cluster.superuser_password_file()
        );
        std::fs::write(&config, text)?;
        let fleet = Self {
            cluster,
            config,
            folder,
        };
        fleet.command(&["migrate"]).await?;
        Ok(fleet)
    }

    /// Runs a command of `pgbraid` that must succeed; what it prints.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, Stdio::piped()).await
    }

    /// The same of one that takes its time: what it tells of its progress is shown.
    pub async fn long_command(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments, Stdio::inherit()).await
    }

    async fn run(&self, arguments: &[&str], stderr: Stdio) -> Result<String> {
        let command = Command::new(binary()?)
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()?;
        let output = command.wait_with_output().await?;
        if !output.status.success() {
            bail!(
                "pgbraid {} failed:\n{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// More settings of moves, for routers and commands that start from now on.
    pub fn add_moves_settings(&self, settings: &str) -> Result<()> {
        // Their section is the last one.
        let text = std::fs::read_to_string(&self.config)?;
        Ok(std::fs::write(&self.config, text + settings)?)
    }

    /// Edits the shard map.
    pub fn write_map(&self, tables: Tables) -> Result<()> {
        self.write_map_text(&map(&self.cluster, tables))
    }

    /// The same, of any text.
    pub fn write_map_text(&self, text: &str) -> Result<()> {
        let path = self.folder.path().join("shardmap.toml");
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, path)?)
    }

    /// The text of the map's instances.
    pub fn instances_text(&self) -> String {
        instances_text(&self.cluster, usize::MAX)
    }

    pub fn cluster(&self) -> &DevCluster {
        &self.cluster
    }

    /// What a reader must know about a run.
    pub fn setting(&self, plan: &super::Plan) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!(
            "PostgreSQL {}, {cores} cores shared by all, medians of {} x {} s",
            self.cluster.binaries().version(),
            plan.rounds,
            plan.time.as_secs(),
        )
    }

    /// Starts a router with more variables in its environment, and waits until it is ready.
    pub async fn serve(&self, environment: &[(&str, &str)]) -> Result<Router> {
        let mut child = Command::new(binary()?)
            .args(["serve", "--grpc-listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--config"])
            .arg(&self.config)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting pgbraid serve")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut seen = String::new();
        let grpc = loop {
            let Some(line) = lines.next_line().await? else {
                bail!("the router does not start:\n{seen}");
            };
            if let Some(found) = address(&line) {
                break found;
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        // The rest of the log must go somewhere, or the router would wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let admin = AdminClient::connect(grpc.clone()).await?;
        let pid = child.id().context("the router has ended")?.try_into()?;
        Ok(Router {
            child,
            pid,
            grpc,
            admin,
        })
    }

    /// Stores rows with the keys from 0, through the router, and takes a checkpoint: so that all
    /// measurements begin alike, and updates meet rows.
    pub async fn store(&self, router: &Router, rows: u64) -> Result<()> {
        say(format_args!("storing {rows} rows"));
        let load = Load {
            keys: "sequential",
            ..Load::random(rows)
        };
        let mut time = Duration::from_secs(2);
        loop {
            let loaded = load.run(&router.grpc, time).await?;
            let stored = self.stored().await?;
            if stored >= rows {
                break;
            }
            // It begins at key 0 each time: the next try is long enough for all.
            let all = Duration::from_secs_f64(rows as f64 / loaded.rows_per_second.max(1000.0));
            time = (time * 2).max(all.mul_f64(1.5));
        }
        self.checkpoint().await
    }

    /// Of all instances.
    pub async fn checkpoint(&self) -> Result<()> {
        for instance in 0..self.cluster.instances().len() {
            let client = self.cluster.connect(instance, true, "postgres").await?;
            client.batch_execute("checkpoint").await?;
        }
        Ok(())
    }

    /// Rows of the feed, on all instances.
    async fn stored(&self) -> Result<u64> {
        let mut all = 0;
        for instance in 0..self.cluster.instances().len() {
            let client = self.cluster.connect(instance, false, "pgbraid").await?;
            let row = client
                .query_one("select count(*) from public.feed", &[])
                .await?;
            all += u64::try_from(row.get::<_, i64>(0))?;
        }
        Ok(all)
    }
}

/// A running `pgbraid serve`. Killed when dropped.
pub struct Router {
    child: Child,
    pid: i32,
    /// For clients: `http://127.0.0.1:...`.
    pub grpc: String,
    admin: AdminClient<Channel>,
}

impl Router {
    /// CPU time so far, in all its threads.
    pub fn cpu(&self) -> Result<Duration> {
        let ns = cpu_ns(self.pid).context("the router's CPU time cannot be read (Linux only)")?;
        Ok(Duration::from_nanos(ns as u64))
    }

    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid).context("the router's memory cannot be read (Linux only)")
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        self.admin.clone()
    }

    /// Bytes that wait in its queues, over all instances.
    pub async fn queued_bytes(&self) -> Result<u64> {
        let status = self.admin().get_status(v1::GetStatusRequest {}).await?;
        let instances = status.into_inner().instances;
        Ok(instances.iter().map(|one| one.queued_bytes).sum())
    }

    /// Ends it at once, and waits until it is gone.
    pub async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Runs a load; its result, and the router's CPU by rows written, in nanoseconds.
    pub async fn measure(&self, load: &Load, time: Duration) -> Result<(f64, f64)> {
        let before = self.cpu()?;
        let loaded = load.run(&self.grpc, time).await?;
        let used = self.cpu()?.saturating_sub(before);
        let each = used.as_nanos() as f64 / loaded.rows.max(1.0);
        Ok((loaded.rows_per_second, each))
    }
}

/// Waits for a condition that is asked for ten times a second; false when it did not come about.
pub async fn wait_for(
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<bool> {
    let end = Instant::now() + deadline;
    loop {
        if condition().await? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The instances of a shard map; those from `taking` on take no tables.
fn instances_text(cluster: &DevCluster, taking: usize) -> String {
    let mut text = String::new();
    for (index, instance) in cluster.instances().iter().enumerate() {
        let weight = if index < taking { "" } else { "weight = 0\n" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[instances.{}]\nhost = \"127.0.0.1\"\nport = {}\n{weight}",
            instance.name(),
            instance.port()
        );
    }
    text
}

/// The shard map. Pinned, each instance has as many tables as the next, so that the balance of
/// placement is no part of what is measured.
fn map(cluster: &DevCluster, tables: Tables) -> String {
    let (count, taking) = match tables {
        Tables::Pinned(count) => (count, usize::MAX),
        Tables::On(count, taking) => (count, taking),
    };
    let mut text = instances_text(cluster, taking);
    let _ = write!(text, "[feeds.{FEED}]\ntables = {count}\n");
    if let Tables::Pinned(count) = tables {
        let _ = writeln!(text, "[feeds.{FEED}.pins]");
        let instances = cluster.instances();
        for (index, instance) in instances.iter().enumerate() {
            let (first, last) = share(index, instances.len(), count as usize);
            let _ = writeln!(text, "{} = [\"{first}-{last}\"]", instance.name());
        }
    }
    text
}

/// The first and last table of instance `index` of so many.
fn share(index: usize, instances: usize, tables: usize) -> (usize, usize) {
    let start = |index: usize| index * tables / instances.max(1);
    (start(index), start(index + 1) - 1)
}

/// Of gRPC, from the line that a router prints when it is ready.
fn address(line: &str) -> Option<String> {
    let (grpc, _http) = line.strip_prefix("ready: grpc ")?.split_once(", http ")?;
    Some(format!("http://{grpc}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_tables_once() {
        for instances in [1, 2, 3, 4, 8, 64] {
            let mut next = 0;
            for index in 0..instances {
                let (first, last) = share(index, instances, TABLES as usize);
                assert_eq!(first, next);
                assert!(last >= first);
                next = last + 1;
            }
            assert_eq!(next, TABLES as usize);
        }
    }

    #[test]
    fn a_router_says_where_it_listens() {
        let found = address("ready: grpc 127.0.0.1:1, http 127.0.0.1:2");
        assert_eq!(found.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(address("something else"), None);
    }
}
