//! A backend that stands still is not dead: when it wakes up, the statement that it holds must not
//! put old values over newer ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgbraid_tests::{
    Acked, Cluster, ClusterOptions, Layout, Producer, Writer,
    wait::{self, until},
};

/// The value of each key on db1.
async fn stored(cluster: &Cluster, keys: &[i64]) -> Vec<i32> {
    let sql = cluster.sql(1).await;
    let value = "select c1 from public.feed where id = $1";
    let mut values = Vec::new();
    for key in keys {
        let row = sql
            .query_one(value, &[key])
            .await
            .expect("the key is there");
        values.push(row.get(0));
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_backend_that_wakes_up_overwrites_nothing() {
    let cluster = Cluster::start(ClusterOptions {
        config: "statement_timeout = \"1s\"\nconnect_timeout = \"1s\"\n\
                 [ingest]\nstall_after = \"1s\"\n"
            .into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let layout = Layout::of(&cluster, "feed").await;
    let acked = Acked::new(layout.clone(), 2);
    let stop = Arc::new(AtomicBool::new(false));
    let there = layout.keys(200, |layout, key| layout.owner(key) == 1);
    let here = layout.keys(200, |layout, key| layout.owner(key) == 0);
    let mut running = Vec::new();
    for keys in [there.clone(), here] {
        let mut producer = Producer::new("c1", keys);
        let writer = Writer::open(&router).await;
        let (stop, acked) = (stop.clone(), acked.clone());
        running.push(tokio::spawn(async move {
            let done = producer
                .run(writer, Duration::from_secs(2), &stop, &acked)
                .await;
            (producer, done)
        }));
    }
    until("both instances to be written to", || async {
        (acked.of(0) > 1000 && acked.of(1) > 1000).then_some(())
    })
    .await;
    let sql = cluster.sql(1).await;
    let writers = "select pid from pg_stat_activity where application_name = 'pgbraid' \
                   and query like 'insert into %'";
    let rows = sql.query(writers, &[]).await.expect("db1 answers");
    let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert!(!pids.is_empty(), "db1 is being written to");
    let signal = |signal| {
        for pid in &pids {
            kill(Pid::from_raw(*pid), signal).expect("the backend is there");
        }
    };
    signal(Signal::SIGSTOP);
    until("the router to give the statements up", || async {
        (router.metric("pgbraid_retries_total", &["\"db1\""]) > 0.0).then_some(())
    })
    .await;
    let before = (acked.of(0), acked.of(1));
    until("rows of db0 to be acked meanwhile", || async {
        (acked.of(0) > before.0 + 1000).then_some(())
    })
    .await;
    signal(Signal::SIGCONT);
    until("rows of db1 to be acked again", || async {
        (acked.of(1) > before.1 + 1000).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut values = Vec::new();
    for one in running {
        let (mut producer, done) = wait::limited("a producer to end", one)
            .await
            .expect("no panic");
        done.expect("the stream lives");
        producer
            .finish(&router, &acked)
            .await
            .expect("the stream goes on");
        values.push(producer.acked);
    }
    let gone = "select count(*) from pg_stat_activity where pid = any ($1)";
    until("the old backends to be gone", || async {
        let row = sql.query_one(gone, &[&pids]).await.expect("db1 answers");
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    assert_eq!(
        stored(&cluster, &there).await,
        values[0],
        "last acked values"
    );
    assert_eq!(router.stop(), 0);
}
