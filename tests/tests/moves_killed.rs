//! The mover is killed with -9 after each step, under load: the next `apply` ends in the same state,
//! and `abort` before the decision returns to the start.

use std::{
    os::unix::process::ExitStatusExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgbraid_tests::{
    Acked, Cluster, ClusterOptions, Layout, Producer, Router, Writer, wait::until,
};
use tokio::task::JoinHandle;

const TABLES: u32 = 4;

/// Every point of a move at which a mover can be told to die.
const FORWARD: [&str; 14] = [
    "claimed",
    "mark",
    "make",
    "publish",
    "subscribe",
    "copied",
    "caught-up",
    "fenced",
    "replayed",
    "decided",
    "own",
    "unsubscribe",
    "unpublish",
    "unmark",
];
/// Before these are over, nothing is decided.
const UNDECIDED: [&str; 9] = [
    "claimed",
    "mark",
    "make",
    "publish",
    "subscribe",
    "copied",
    "caught-up",
    "fenced",
    "replayed",
];
/// Of an abort.
const BACK: [&str; 4] = ["unsubscribe", "drop copy", "unpublish", "unmark"];

/// A producer in the background.
struct Load {
    stop: Arc<AtomicBool>,
    acked: Acked,
    task: JoinHandle<Producer>,
}

impl Load {
    fn start(router: Arc<Router>, layout: Layout) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Acked::new(layout, 2);
        let (stopping, counting) = (stop.clone(), acked.clone());
        let task = tokio::spawn(async move {
            let mut producer = Producer::new("c1", (0..512).collect());
            let writer = Writer::open(&router).await;
            let time = Duration::from_secs(50);
            let run = producer.run(writer, time, &stopping, &counting).await;
            run.expect("the stream goes on");
            producer
        });
        Self { stop, acked, task }
    }

    fn count(&self) -> u64 {
        self.acked.of(0) + self.acked.of(1)
    }

    /// Rows go on being acked.
    async fn goes_on(&self, when: &str) {
        let before = self.count();
        until(&format!("rows to be acked {when}"), || async {
            (self.count() > before + 512).then_some(())
        })
        .await;
    }

    /// Every key's last acked value is in its one place, and nothing was refused.
    async fn check(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        let producer = self.task.await.expect("the producer ends");
        assert!(producer.refused.is_empty(), "{:?}", producer.refused);
        let layout = Layout::of(cluster, "feed").await;
        let rows = cluster.rows_everywhere("c1").await;
        for (key, acked) in producer.keys.iter().zip(&producer.acked) {
            let expected = vec![(layout.owner(*key), acked.to_string())];
            assert_eq!(rows[key], expected, "key {key}");
        }
    }
}

async fn start() -> (Cluster, Arc<Router>, Vec<usize>) {
    let cluster = Cluster::start(ClusterOptions::moving(2, TABLES)).await;
    let router = Arc::new(cluster.router());
    let owners = cluster.owners("feed").await;
    (cluster, router, owners)
}

fn killed(cluster: &Cluster, command: &str, step: &str) {
    let output = tokio::task::block_in_place(|| cluster.run_map(&[command, "--stop-after", step]));
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{command} after {step:?}:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_killed_at_any_step_is_followed_by_one_that_goes_on() {
    let (cluster, router, mut owners) = start().await;
    let load = Load::start(router, Layout::of(&cluster, "feed").await);
    load.goes_on("at the start").await;
    for (at, step) in FORWARD.iter().enumerate() {
        let table = at % TABLES as usize;
        let before = owners[table];
        owners[table] = 1 - before;
        cluster.pin("feed", &owners);
        killed(&cluster, "apply", step);
        cluster.map_done(&["apply"]).await;
        assert_eq!(cluster.owners("feed").await, owners, "after {step}");
        load.goes_on(&format!("after {step}")).await;
        let from = format!("db{before}");
        cluster
            .map_done(&["clean", "--older-than", "0", "--confirm", &from])
            .await;
        let left = cluster.footprint().await;
        let other = |line: &&String| {
            ["publication", "slot", "subscription"]
                .iter()
                .any(|word| line.contains(word))
        };
        assert_eq!(left.iter().find(other), None, "left behind after {step}");
    }
    load.check(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_before_the_decision_returns_to_the_start() {
    let (cluster, router, owners) = start().await;
    let load = Load::start(router, Layout::of(&cluster, "feed").await);
    load.goes_on("at the start").await;
    let start = cluster.footprint().await;
    let mut wanted = owners.clone();
    wanted[1] = 1 - owners[1];
    cluster.pin("feed", &wanted);
    for step in UNDECIDED {
        killed(&cluster, "apply", step);
        cluster.map_done(&["abort"]).await;
        assert_eq!(cluster.footprint().await, start, "after {step}");
        load.goes_on(&format!("after {step}")).await;
    }
    // The one that undoes is killed itself.
    for step in BACK {
        killed(&cluster, "apply", "caught-up");
        until("the lease to end", || async {
            let output = tokio::task::block_in_place(|| cluster.run_map(&["status"]));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.contains("nobody carries out moves").then_some(())
        })
        .await;
        killed(&cluster, "abort", step);
        cluster.map_done(&["abort"]).await;
        assert_eq!(cluster.footprint().await, start, "abort after {step}");
    }
    // Too late: it is finished instead, and says so.
    killed(&cluster, "apply", "decided");
    let output = until("the lease to end", || async {
        let output = tokio::task::block_in_place(|| cluster.run_map(&["abort"]));
        Some(output)
    })
    .await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("decided before they could be undone"),
        "{errors}"
    );
    assert_eq!(cluster.owners("feed").await, wanted);
    let from = format!("db{}", owners[1]);
    cluster
        .map_done(&["clean", "--older-than", "0", "--confirm", &from])
        .await;
    load.check(&cluster).await;
}

/// Nobody runs `apply` or `abort`: a router ends the cut-over of a mover that has died.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_ends_the_cut_over_of_a_dead_mover() {
    let (cluster, router, owners) = start().await;
    let load = Load::start(router.clone(), Layout::of(&cluster, "feed").await);
    load.goes_on("at the start").await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    killed(&cluster, "apply", "replayed");
    until("the router to take the fence back", || async {
        (router.metric("pgbraid_move_rescues_total", &[]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(cluster.owners("feed").await, owners);
    load.goes_on("once the fence is taken back").await;
    killed(&cluster, "apply", "decided");
    until("the router to carry the decision out", || async {
        (router.metric("pgbraid_move_rescues_total", &[]) == 2.0).then_some(())
    })
    .await;
    assert_eq!(cluster.owners("feed").await, wanted);
    load.goes_on("at the new owner").await;
    cluster.map_done(&["apply"]).await;
    let from = format!("db{}", owners[0]);
    cluster
        .map_done(&["clean", "--older-than", "0", "--confirm", &from])
        .await;
    load.check(&cluster).await;
}
