//! An instance of a move, or a router, is killed with -9 while the mover stands at a step, under
//! load: the move is finished, by the same mover or by the next `apply`; `abort` before the decision
//! returns to the start.

use nix::sys::signal::Signal;
use std::{os::unix::process::ExitStatusExt, time::Duration};

use pgbraid_tests::{Cluster, ClusterOptions, Load, Mover, QUICK, errors};

/// Every point of a move at which a mover can be told to stand still.
const STEPS: [&str; 14] = [
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
/// The first at which the move is decided.
const DECIDED: usize = 9;

const KEYS: i64 = 512;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Source,
    Target,
    Router,
}

/// A table for each step. Movers that stand still keep their lease.
async fn start() -> (Cluster, Load, Vec<usize>) {
    let mut options = ClusterOptions::moving(2, STEPS.len() as u32);
    options.moves = QUICK.replace("lease = \"2s\"", "lease = \"60s\"");
    let cluster = Cluster::start(options).await;
    let load = Load::start(&cluster, KEYS, Duration::from_secs(20)).await;
    let owners = cluster.owners("feed").await;
    (cluster, load, owners)
}

/// Starts a mover of one table, and waits until it stands at a step.
async fn frozen(cluster: &Cluster, step: &str) -> Mover {
    let mut mover = cluster.start_map(&["apply", "--freeze-after", step]);
    mover.frozen().await;
    mover
}

async fn die(mover: Mover, cluster: &Cluster) {
    mover.signal(Signal::SIGKILL);
    let output = tokio::task::block_in_place(|| mover.end());
    assert_eq!(output.status.signal(), Some(9));
    cluster.end_lease().await;
}

/// Moves a table at each step, and kills. Every second mover dies too.
async fn survive(victim: Victim) {
    let (cluster, load, mut owners) = start().await;
    for (table, step) in STEPS.iter().enumerate() {
        let what = format!("{victim:?} killed after {step}");
        let from = owners[table];
        owners[table] = 1 - from;
        cluster.pin("feed", &owners);
        let mover = frozen(&cluster, step).await;
        let instance = match victim {
            Victim::Source => Some(from),
            Victim::Target => Some(1 - from),
            Victim::Router => None,
        };
        if let Some(instance) = instance {
            cluster.postgres.kill9(instance).await.expect("it is there");
        } else {
            load.kill_router(&cluster).await;
        }
        // The source and the target: each step with a mover that lives, and with one that does not.
        let lives = (table % 2 == 0) == (victim == Victim::Source);
        if lives {
            // It meets the outage.
            mover.signal(Signal::SIGCONT);
        }
        if let Some(instance) = instance {
            let started = cluster.postgres.start(instance).await;
            started.expect("it starts again");
        }
        if lives {
            let output = tokio::task::block_in_place(|| mover.end());
            assert!(output.status.success(), "{what}:\n{}", errors(&output));
        } else {
            die(mover, &cluster).await;
            cluster.map_done(&["apply"]).await;
        }
        assert_eq!(cluster.owners("feed").await, owners, "{what}");
        load.goes_on(&what).await;
        let left = cluster.footprint().await;
        assert_eq!(left.iter().find(left_behind), None, "{what}");
    }
    for name in ["db0", "db1"] {
        let clean = ["clean", "--older-than", "0", "--confirm", name];
        cluster.map_done(&clean).await;
    }
    let left = cluster.footprint().await;
    let partitions = left.iter().filter(|line| line.contains("partition "));
    assert_eq!(partitions.count(), STEPS.len(), "{left:#?}");
    if victim == Victim::Router {
        assert!(load.breaks() > 0, "it was another router each time");
        let refused = load.check(&cluster).await;
        assert!(refused.is_empty(), "rows were refused: {refused:?}");
    } else {
        assert_eq!(load.breaks(), 0, "streams live through an outage");
        load.check(&cluster).await;
    }
}

/// Whatever belongs to a move and not to its result.
fn left_behind(line: &&String) -> bool {
    let row = line.contains(" feed/");
    // A row ends with the move's id, which is no more.
    let marked = row && (line.contains(" moving_") || !line.ends_with(' '));
    marked
        || ["publication ", "slot ", "subscription "]
            .iter()
            .any(|word| line.contains(word))
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_survive_their_source() {
    survive(Victim::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_survive_their_target() {
    survive(Victim::Target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_survive_routers() {
    survive(Victim::Router).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_after_an_outage_returns_to_the_start() {
    let (cluster, load, owners) = start().await;
    let start = cluster.footprint().await;
    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    cluster.pin("feed", &wanted);
    for (at, step) in STEPS[..DECIDED].iter().enumerate() {
        let mover = frozen(&cluster, step).await;
        let victim = if at % 2 == 0 { owners[0] } else { wanted[0] };
        cluster.postgres.kill9(victim).await.expect("it is there");
        let started = cluster.postgres.start(victim).await;
        started.expect("it starts again");
        die(mover, &cluster).await;
        cluster.map_done(&["abort"]).await;
        let what = format!("db{victim} killed after {step}");
        assert_eq!(cluster.footprint().await, start, "{what}");
        load.goes_on(&what).await;
    }
    assert_eq!(cluster.owners("feed").await, owners);
    assert_eq!(load.breaks(), 0, "streams live through an outage");
    load.check(&cluster).await;
}
