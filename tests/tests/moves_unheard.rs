//! A router that is cut off from news of ownership, under load: it writes through a move, and not
//! one row lands in the wrong place.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgbraid_tests::{
    Cluster, ClusterOptions, Layout, Load, Writer,
    rows::{self, int},
    wait::until,
};

const TABLES: u32 = 8;

/// Backends that stand still until this is dropped.
struct Stopped(Vec<i32>);

impl Stopped {
    fn stop(pids: Vec<i32>) -> Self {
        for pid in &pids {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).expect("the backend is there");
        }
        Self(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

/// The backends in which a router listens, one on each instance, by what they were asked last.
async fn listeners(cluster: &Cluster) -> Vec<i32> {
    let mut pids = Vec::new();
    for instance in 0..cluster.instances().into() {
        let client = cluster.superuser(instance).await;
        let pid = until("the router to listen", || async {
            let rows = client
                .query(
                    "select pid from pg_stat_activity where application_name = 'pgbraid' \
                     and state = 'idle' and query ~ '(home from pgbraid.cluster|listening)'",
                    &[],
                )
                .await
                .expect("the superuser sees backends");
            (rows.len() == 1).then(|| rows[0].get(0))
        })
        .await;
        pids.push(pid);
    }
    pids
}

/// Routers of it do not find out that nothing is to be heard.
async fn start() -> Cluster {
    let mut options = ClusterOptions::moving(2, TABLES);
    options.config = "[alerts]\nheartbeat = \"10m\"\n".into();
    Cluster::start(options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_hears_nothing_writes_through_a_move() {
    let cluster = start().await;
    let load = Load::start(&cluster, 512, Duration::from_secs(50)).await;
    let router = load.router().await;
    let stopped = Stopped::stop(listeners(&cluster).await);
    let news = router.metric("pgbraid_ownership_news_total", &[]);
    // Half of all tables, each way.
    let owners = cluster.owners("feed").await;
    let mut wanted = owners.clone();
    for table in wanted.iter_mut().step_by(2) {
        *table = 1 - *table;
    }
    cluster.pin("feed", &wanted);
    cluster.map_done(&["apply"]).await;
    assert_eq!(cluster.owners("feed").await, wanted);
    load.goes_on("at the new owners").await;
    assert_eq!(router.metric("pgbraid_ownership_news_total", &[]), news);
    assert!(router.metric("pgbraid_retries_total", &[]) > 0.0, "fenced");
    drop(stopped);
    for name in ["db0", "db1"] {
        let clean = ["clean", "--older-than", "0", "--confirm", name];
        cluster.map_done(&clean).await;
    }
    let refused = load.check(&cluster).await;
    assert!(refused.is_empty(), "rows were refused: {refused:?}");
}

/// It hears that a table has left before it has heard that another instance takes it: rows wait.
#[tokio::test(flavor = "multi_thread")]
async fn news_that_come_late_refuse_nothing() {
    let cluster = start().await;
    let router = tokio::task::block_in_place(|| cluster.router());
    let layout = Layout::of(&cluster, "feed").await;
    let keys = layout.keys(100, |layout, key| layout.table(key) == 0);
    let mut writer = Writer::open(&router).await;
    let pids = listeners(&cluster).await;
    let mut wanted = layout.owners().to_vec();
    let stopped = Stopped::stop(vec![pids[wanted[0]]]);
    wanted[0] = 1 - wanted[0];
    cluster.pin("feed", &wanted);
    let mut mover = cluster.start_map(&["apply", "--freeze-after", "decided"]);
    mover.frozen().await;
    drop(stopped);
    // One after the other, so that some meet the moment at which it has heard the first half.
    for key in &keys {
        let row = [(int(*key), vec![int(1)])];
        let sent = writer.send(rows::rows("feed", &["c1"], row)).await;
        sent.expect("the stream is open");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    mover.signal(Signal::SIGCONT);
    // On a busy machine its lease is over: then another goes on.
    tokio::task::block_in_place(|| mover.end());
    cluster.map_done(&["apply"]).await;
    writer.settle().await;
    assert_eq!(cluster.owners("feed").await, wanted);
}
