//! The mover is killed with -9 after each step, under load: the next `apply` ends in the same state,
//! and `abort` before the decision returns to the start.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use nix::sys::signal::Signal;
use pgbraid_tests::{Cluster, ClusterOptions, Load, errors, wait::until};

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

async fn start() -> (Cluster, Load, Vec<usize>) {
    let cluster = Cluster::start(ClusterOptions::moving(2, FORWARD.len() as u32)).await;
    let load = Load::start(&cluster, 512, Duration::from_secs(50)).await;
    let owners = cluster.owners("feed").await;
    (cluster, load, owners)
}

fn killed(cluster: &Cluster, command: &str, step: &str) {
    let output = tokio::task::block_in_place(|| cluster.run_map(&[command, "--stop-after", step]));
    let log = errors(&output);
    let signal = output.status.signal();
    assert_eq!(signal, Some(9), "{command} after {step:?}:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_killed_at_any_step_is_followed_by_one_that_goes_on() {
    let (cluster, load, mut owners) = start().await;
    for (table, step) in FORWARD.iter().enumerate() {
        owners[table] = 1 - owners[table];
        cluster.pin("feed", &owners);
        killed(&cluster, "apply", step);
        // The first one's lease ends by itself.
        if table > 0 {
            cluster.end_lease().await;
        }
        cluster.map_done(&["apply"]).await;
        assert_eq!(cluster.owners("feed").await, owners, "after {step}");
        load.goes_on(&format!("after {step}")).await;
        let left = cluster.footprint().await;
        let other = |line: &&String| {
            ["publication", "slot", "subscription"]
                .iter()
                .any(|word| line.contains(word))
        };
        assert_eq!(left.iter().find(other), None, "left behind after {step}");
    }
    for name in ["db0", "db1"] {
        let clean = ["clean", "--older-than", "0", "--confirm", name];
        cluster.map_done(&clean).await;
    }
    let refused = load.check(&cluster).await;
    assert!(refused.is_empty(), "rows were refused: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_before_the_decision_returns_to_the_start() {
    let (cluster, load, owners) = start().await;
    let start = cluster.footprint().await;
    let mut wanted = owners.clone();
    wanted[1] = 1 - owners[1];
    cluster.pin("feed", &wanted);
    for step in UNDECIDED {
        killed(&cluster, "apply", step);
        cluster.end_lease().await;
        cluster.map_done(&["abort"]).await;
        assert_eq!(cluster.footprint().await, start, "after {step}");
        load.goes_on(&format!("after {step}")).await;
    }
    // The one that undoes is killed itself.
    for step in BACK {
        killed(&cluster, "apply", "caught-up");
        cluster.end_lease().await;
        killed(&cluster, "abort", step);
        cluster.end_lease().await;
        cluster.map_done(&["abort"]).await;
        assert_eq!(cluster.footprint().await, start, "abort after {step}");
    }
    // Too late: it is finished instead, and says so. It waits for the end of the lease.
    killed(&cluster, "apply", "decided");
    let output = tokio::task::block_in_place(|| cluster.run_map(&["abort"]));
    let errors = errors(&output);
    assert!(
        errors.contains("decided before they could be undone"),
        "{errors}"
    );
    assert_eq!(cluster.owners("feed").await, wanted);
    let from = format!("db{}", owners[1]);
    let clean = ["clean", "--older-than", "0", "--confirm", &from];
    cluster.map_done(&clean).await;
    let refused = load.check(&cluster).await;
    assert!(refused.is_empty(), "rows were refused: {refused:?}");
}

/// Nobody runs `apply` or `abort`: a router ends the cut-over of a mover that has died.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_ends_the_cut_over_of_a_dead_mover() {
    let (cluster, load, owners) = start().await;
    let router = load.router().await;
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
    cluster.end_lease().await;
    killed(&cluster, "apply", "decided");
    until("the router to carry the decision out", || async {
        (router.metric("pgbraid_move_rescues_total", &[]) == 2.0).then_some(())
    })
    .await;
    assert_eq!(cluster.owners("feed").await, wanted);
    load.goes_on("at the new owner").await;
    cluster.end_lease().await;
    cluster.map_done(&["apply"]).await;
    let from = format!("db{}", owners[0]);
    let clean = ["clean", "--older-than", "0", "--confirm", &from];
    cluster.map_done(&clean).await;
    let refused = load.check(&cluster).await;
    assert!(refused.is_empty(), "rows were refused: {refused:?}");
}

/// A mover that is stopped with the target's table in its hands.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_ends_the_cut_over_of_a_mover_that_sleeps() {
    let (cluster, load, owners) = start().await;
    let router = load.router().await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    let mut mover = cluster.start_map(&["apply", "--freeze-after", "decided"]);
    mover.frozen().await;
    until("the router to carry the decision out", || async {
        (router.metric("pgbraid_move_rescues_total", &[]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(cluster.owners("feed").await, wanted);
    load.goes_on("at the new owner").await;
    mover.signal(Signal::SIGCONT);
    tokio::task::block_in_place(|| mover.end());
    cluster.map_done(&["apply"]).await;
    assert_eq!(cluster.owners("feed").await, wanted);
    let from = format!("db{}", owners[0]);
    let clean = ["clean", "--older-than", "0", "--confirm", &from];
    cluster.map_done(&clean).await;
    let refused = load.check(&cluster).await;
    assert!(refused.is_empty(), "rows were refused: {refused:?}");
}

/// One that is asked to stop, not killed, leaves nothing that the next one would have to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_is_asked_to_stop_gives_its_lease_back() {
    let mut options = ClusterOptions::moving(2, 4);
    options.moves = "lease = \"10m\"\n".into();
    let cluster = Cluster::start(options).await;
    let mut wanted = cluster.owners("feed").await;
    wanted[0] = 1 - wanted[0];
    cluster.pin("feed", &wanted);
    let holder = async || {
        let sql = cluster.sql(0).await;
        let row = sql.query_one("select holder from pgbraid.mover", &[]).await;
        row.expect("the home answers").get::<_, Option<String>>(0)
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        cluster.map_done(&["pause"]).await;
        let mover = cluster.start_map(&["apply"]);
        until("the mover to have the lease", holder).await;
        mover.signal(signal);
        let output = tokio::task::block_in_place(|| mover.end());
        let log = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("1 moves are not finished"), "{log}");
        assert_eq!(holder().await, None, "{log}");
        cluster.map_done(&["resume"]).await;
    }
    let output = tokio::task::block_in_place(|| cluster.run_map(&["apply"]));
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(cluster.owners("feed").await, wanted);
}
