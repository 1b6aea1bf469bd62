//! 4 instances become 6, then 3, under full load: a checker over all acks finds each key's last
//! value in its one place. `PGBRAID_MOVES_KEYS` asks for more keys than a test run has time for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgbraid_tests::{
    Acked, Cluster, ClusterOptions, Layout, Producer, Router, Writer, wait::until,
};
use tokio::task::JoinSet;

const TABLES: u32 = 16;
const PRODUCERS: usize = 8;
/// Of which this many are cut over at each step, at the least.
const MOVED: usize = 4;

fn keys() -> i64 {
    let wanted = std::env::var("PGBRAID_MOVES_KEYS").ok();
    wanted.and_then(|keys| keys.parse().ok()).unwrap_or(8_000)
}

/// A map in which only some instances take tables.
fn map(cluster: &Cluster, taking: usize) -> String {
    let all = cluster.map(cluster.instances(), &[("feed".into(), TABLES)]);
    (taking..cluster.instances().into()).fold(all, |map, name| {
        let head = format!("[instances.db{name}]\n");
        map.replace(&head, &format!("{head}weight = 0\n"))
    })
}

fn migrate(cluster: &Cluster) {
    let config = cluster.config();
    let migrated = pgbraid_tests::run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    let errors = String::from_utf8_lossy(&migrated.stderr);
    assert!(migrated.status.success(), "{errors}");
}

fn total(acked: &Acked) -> u64 {
    (0..6).map(|instance| acked.of(instance)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_instances_become_six_then_three_and_nobody_notices() {
    let mut options = ClusterOptions::moving(6, TABLES);
    // Six servers on one disk.
    options.settings.push(("max_wal_size", "128MB"));
    let cluster = Cluster::start_bare(&options).await;
    cluster.write_map(&map(&cluster, 4));
    migrate(&cluster);
    let routers: Vec<Arc<Router>> = (0..2).map(|_| Arc::new(cluster.router())).collect();
    // Each write is told once: a level rule for a value that each write sets.
    let layout = Layout::of(&cluster, "feed").await;
    let stop = Arc::new(AtomicBool::new(false));
    let acked = Acked::new(layout, 6);
    let mut producers = JoinSet::new();
    for number in 0..PRODUCERS {
        let (router, stop, acked) = (routers[number % 2].clone(), stop.clone(), acked.clone());
        let own = (0..keys()).filter(|key| *key as usize % PRODUCERS == number);
        let mut producer = Producer::new("c1", own.collect());
        producers.spawn(async move {
            let writer = Writer::open(&router).await;
            let time = Duration::from_secs(50);
            let run = producer.run(writer, time, &stop, &acked).await;
            run.expect("the stream goes on");
            producer
        });
    }
    until("every table to have rows", || async {
        (total(&acked) > keys() as u64).then_some(())
    })
    .await;
    let mut pauses = Vec::new();
    for taking in [6, 3] {
        let before = cluster.owners("feed").await;
        cluster.write_map(&map(&cluster, taking));
        let rows = total(&acked);
        cluster.map_done(&["apply"]).await;
        assert!(total(&acked) > rows, "rows are acked meanwhile");
        let after = cluster.owners("feed").await;
        assert!(after.iter().all(|owner| *owner < taking), "{after:?}");
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(moved >= MOVED, "{moved} tables moved");
        for instance in 0..6 {
            let name = format!("db{instance}");
            cluster
                .map_done(&["clean", "--older-than", "0", "--confirm", &name])
                .await;
        }
    }
    let status = cluster
        .map_done(&["status", "--json", "--ended", "1000"])
        .await;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    for one in status["moves"].as_array().expect("moves") {
        assert_eq!(one["outcome"], "done");
        pauses.push(one["pause_us"].as_u64().expect("a pause"));
    }
    pauses.sort_unstable();
    let at = |share: usize| pauses[(pauses.len() - 1) * share / 100] as f64 / 1000.0;
    println!(
        "{} moves, pause ms: p50 {:.1}, p99 {:.1}",
        pauses.len(),
        at(50),
        at(99)
    );
    stop.store(true, Ordering::Relaxed);
    let mut last: BTreeMap<i64, i32> = BTreeMap::new();
    while let Some(producer) = producers.join_next().await {
        let producer = producer.expect("the producer ends");
        assert!(producer.refused.is_empty(), "{:?}", producer.refused);
        last.extend(producer.keys.iter().copied().zip(producer.acked));
    }
    println!("{} rows acked", total(&acked));
    let layout = Layout::of(&cluster, "feed").await;
    let rows = cluster.rows_everywhere("c1").await;
    assert_eq!(rows.len(), last.len(), "every key is there, and no other");
    for (key, value) in last {
        let expected = vec![(layout.owner(key), value.to_string())];
        assert_eq!(rows[&key], expected, "key {key}");
    }
}
