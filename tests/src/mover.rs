//! `pgbraid map` against a test's fleet, and what is true of tables that move.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio_postgres::Client;

use crate::{
    Cluster, ClusterOptions, Layout,
    process::binary,
    wait::{LIMIT, until},
};

/// Settings with which moves end soon: a dead mover's lease, and PostgreSQL's own waits.
pub const QUICK: &str = "lease = \"2s\"\nretry_min = \"20ms\"\nretry_max = \"500ms\"\n";

/// Of PostgreSQL: workers of logical replication start at once.
pub const QUICK_WORKERS: (&str, &str) = ("wal_retrieve_retry_interval", "50ms");

/// What a mover may take: more where a test was asked for more than its usual keys.
fn longest() -> Duration {
    match std::env::var_os("PGBRAID_MOVES_KEYS") {
        Some(_) => LIMIT * 10,
        None => LIMIT,
    }
}

/// A running `pgbraid map ..`. Killed when dropped.
pub struct Mover {
    child: Child,
    /// What it prints, and what it says.
    output: [Option<JoinHandle<Vec<u8>>>; 2],
}

fn read_all(mut from: impl Read + Send + 'static) -> Option<JoinHandle<Vec<u8>>> {
    Some(std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    }))
}

impl Mover {
    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is not there.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).expect("the mover is there");
    }

    /// Waits until it stands still, as `--freeze-after` asks for.
    ///
    /// # Panics
    /// If it ends instead, with what it said.
    pub async fn frozen(&mut self) {
        let path = format!("/proc/{}/stat", self.id());
        let started = Instant::now();
        loop {
            let stat = std::fs::read_to_string(&path).unwrap_or_default();
            let state = stat.rsplit(") ").next().unwrap_or_default();
            if state.starts_with('T') {
                return;
            }
            let ended = self.child.try_wait().expect("waiting works");
            if ended.is_some() || started.elapsed() > LIMIT {
                let _ = self.child.kill();
                let output = self.collect(ended.unwrap_or_default());
                panic!("it did not stop:\n{}", errors(&output));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time, with what it said.
    pub fn end(mut self) -> Output {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting works") {
                return self.collect(status);
            }
            if started.elapsed() > longest() {
                let _ = self.child.kill();
                let output = self.collect(ExitStatus::default());
                panic!("the mover does not end:\n{}", errors(&output));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn collect(&mut self, status: ExitStatus) -> Output {
        let [stdout, stderr] = [0, 1].map(|at: usize| {
            let read = self.output[at].take().map(JoinHandle::join);
            read.and_then(Result::ok).unwrap_or_default()
        });
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl ClusterOptions {
    /// A fleet whose tables are moved.
    pub fn moving(instances: u16, tables: u32) -> Self {
        Self {
            instances,
            feeds: vec![("feed".into(), tables)],
            moves: QUICK.into(),
            settings: vec![QUICK_WORKERS],
            ..Self::default()
        }
    }
}

impl Cluster {
    /// Runs `pgbraid map ..` to its end.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn run_map(&self, arguments: &[&str]) -> Output {
        self.start_map(arguments).end()
    }

    /// Starts `pgbraid map ..`.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start_map(&self, arguments: &[&str]) -> Mover {
        let mut child = Command::new(binary())
            .arg("map")
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pgbraid starts");
        let output = [
            read_all(child.stdout.take().expect("it is piped")),
            read_all(child.stderr.take().expect("it is piped")),
        ];
        Mover { child, output }
    }

    /// Ends the lease of a mover that is dead, as its time would.
    ///
    /// # Panics
    /// If the home can't be asked.
    pub async fn end_lease(&self) {
        let end = "update pgbraid.mover set lease_until = clock_timestamp()";
        let done = self.sql(0).await.execute(end, &[]).await;
        done.expect("the home can be asked");
    }

    /// Runs `pgbraid map ..`, which must succeed. A mover that was killed keeps its lease for a
    /// moment. Returns what it prints.
    ///
    /// # Panics
    /// If it fails.
    pub async fn map_done(&self, arguments: &[&str]) -> String {
        until(&format!("map {arguments:?} to get the lease"), || async {
            let output = tokio::task::block_in_place(|| self.run_map(arguments));
            let errors = errors(&output);
            if errors.contains("carries out moves already") {
                return None;
            }
            assert!(output.status.success(), "map {arguments:?}:\n{errors}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .await
    }

    /// Writes a map of all instances in which each table is pinned.
    pub fn pin(&self, feed: &str, owners: &[usize]) {
        self.write_map(&self.pinned(feed, owners));
    }

    /// The text of such a map.
    pub fn pinned(&self, feed: &str, owners: &[usize]) -> String {
        let mut pins: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (table, owner) in owners.iter().enumerate() {
            pins.entry(*owner).or_default().push(table.to_string());
        }
        let pins: String = pins
            .iter()
            .map(|(owner, tables)| format!("db{owner} = [{}]\n", tables.join(", ")))
            .collect();
        let feeds = [(feed.to_owned(), owners.len() as u32)];
        let map = self.map(self.instances(), &feeds);
        format!("{map}[feeds.{feed}.pins]\n{pins}")
    }

    /// A superuser's connection.
    ///
    /// # Panics
    /// If the instance can't be reached.
    pub async fn superuser(&self, instance: usize) -> Client {
        let client = self.postgres.connect(instance, true, "pgbraid").await;
        client.expect("the instance answers")
    }

    /// What all instances say of a feed's tables and of moves, in order: ownership without times and
    /// counters, partitions, their triggers, publications, slots, subscriptions.
    ///
    /// # Panics
    /// If an instance can't be asked.
    pub async fn footprint(&self) -> Vec<String> {
        let mut all = Vec::new();
        for instance in 0..self.instances().into() {
            let client = self.superuser(instance).await;
            let rows = client
                .query(
                    "select format('%s/%s %s %s %s %s', feed, tbl, state, epoch, moved_to, move_id) \
                     from pgbraid.ownership union all \
                     select 'partition ' || inhrelid::regclass from pg_inherits \
                     where inhparent = 'feed'::regclass union all \
                     select format('trigger %s on %s', tgname, tgrelid::regclass) \
                     from pg_trigger where tgname ~ 'fence' union all \
                     select 'publication ' || pubname from pg_publication union all \
                     select 'slot ' || slot_name from pg_replication_slots union all \
                     select 'subscription ' || subname from pg_subscription order by 1",
                    &[],
                )
                .await
                .expect("the catalog can be read");
            all.extend(
                rows.iter()
                    .map(|row| format!("db{instance} {}", row.get::<_, &str>(0))),
            );
        }
        all
    }

    /// Every row of a feed with its instance, by key: as often as it is there.
    ///
    /// # Panics
    /// If an instance can't be asked.
    pub async fn rows_everywhere(&self, columns: &str) -> BTreeMap<i64, Vec<(usize, String)>> {
        let mut all: BTreeMap<i64, Vec<(usize, String)>> = BTreeMap::new();
        let sql = format!("select id, concat_ws(',', {columns}) from feed");
        for instance in 0..self.instances().into() {
            let rows = self.sql(instance).await.query(&sql, &[]).await;
            for row in rows.expect("the feed can be read") {
                all.entry(row.get(0))
                    .or_default()
                    .push((instance, row.get(1)));
            }
        }
        all
    }

    /// Owners of a feed's tables, once the routers' own view does not matter.
    ///
    /// # Panics
    /// If a table has not exactly one owner.
    pub async fn owners(&self, feed: &str) -> Vec<usize> {
        Layout::of(self, feed).await.owners().to_vec()
    }
}
