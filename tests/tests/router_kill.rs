//! The router dies, or is told to stop, under load.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgbraid_proto::v1::{Filter, subscribe_request::Start};
use pgbraid_tests::{
    Acked, AlertLog, Cluster, ClusterOptions, Layout, Producer, Refusal, Router, Seen, Subscriber,
    Writer,
    rows::{self, int},
    wait::until,
};
use tokio::task::JoinHandle;
use tonic::Status;

type Running = JoinHandle<(Producer, Result<(), Status>)>;

/// Four producers, each with its own column of the same keys.
fn producers(layout: &Layout) -> Vec<Producer> {
    let keys = layout.keys(600, |_, _| true);
    (1..=4)
        .map(|number| Producer::new(format!("c{number}"), keys.clone()))
        .collect()
}

async fn run(
    router: &Router,
    producers: Vec<Producer>,
    stop: &Arc<AtomicBool>,
    acked: &Acked,
) -> Vec<Running> {
    let mut running = Vec::new();
    for mut producer in producers {
        let writer = Writer::open(router).await;
        let (stop, acked) = (stop.clone(), acked.clone());
        running.push(tokio::spawn(async move {
            let done = producer
                .run(writer, Duration::from_secs(20), &stop, &acked)
                .await;
            (producer, done)
        }));
    }
    running
}

async fn rows_acked(acked: &Acked, more: u64) {
    let before = acked.of(0) + acked.of(1);
    until("further rows to be acked", || async {
        (acked.of(0) + acked.of(1) >= before + more).then_some(())
    })
    .await;
}

/// The stored value of each key, 0 where there is none.
async fn stored(cluster: &Cluster, producer: &Producer) -> Vec<i32> {
    let sql = format!(
        "select coalesce({}, 0) from public.feed where id = $1",
        producer.column
    );
    let instances = [cluster.sql(0).await, cluster.sql(1).await];
    let layout = Layout::of(cluster, "feed").await;
    let mut values = Vec::new();
    for key in &producer.keys {
        let row = instances[layout.owner(*key)].query_opt(&sql, &[key]).await;
        values.push(row.expect("feed is there").map_or(0, |row| row.get(0)));
    }
    values
}

async fn put_rules(cluster: &Cluster, router: &Router) {
    let rules = [
        ("edge", "c2 % 20 = 7", "a"),
        ("both", "c1 % 10 = 1 and c3 % 10 = 2", "b"),
    ];
    cluster.put_rules(router, "feed", &rules).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_router_loses_no_acked_row_and_no_alert() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let layout = Layout::of(&cluster, "feed").await;
    let acked = Acked::new(layout.clone(), 2);
    let mut all = producers(&layout);
    let mut seen = Seen::default();
    for round in 0..3 {
        let router = cluster.router();
        let subscriber = if round == 0 {
            put_rules(&cluster, &router).await;
            Subscriber::now(&router).await
        } else {
            let start = Start::Token(seen.token.clone());
            let subscriber = Subscriber::open(&router, start, Filter::default()).await;
            subscriber.expect("the token is taken by another router")
        };
        let log = AlertLog::follow(subscriber, seen.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let running = run(&router, all, &stop, &acked).await;
        rows_acked(&acked, 20_000).await;
        let alerts = log.seen().alerts.len();
        log.until("further alerts", |seen| seen.alerts.len() > alerts + 5)
            .await;
        router.signal(Signal::SIGKILL);
        all = Vec::new();
        for one in running {
            let (producer, done) = one.await.expect("a producer does not panic");
            done.expect_err("the stream broke");
            all.push(producer);
        }
        seen = log
            .until("the subscription to end", |seen| seen.ended.is_some())
            .await;
        drop(router);
        for producer in &all {
            for (place, value) in stored(&cluster, producer).await.into_iter().enumerate() {
                let (acked, sent) = (producer.acked[place], producer.sent[place]);
                assert!(
                    (acked..=sent).contains(&value),
                    "round {round}: {} of key {} is {value}: acked {acked}, sent {sent}",
                    producer.column,
                    producer.keys[place]
                );
            }
        }
    }
    let router = cluster.router();
    let start = Start::Token(seen.token.clone());
    let subscriber = Subscriber::open(&router, start, Filter::default()).await;
    let log = AlertLog::follow(subscriber.expect("the token is taken"), seen);
    for producer in &mut all {
        producer
            .finish(&router, &acked)
            .await
            .expect("the stream goes on");
        assert_eq!(
            stored(&cluster, producer).await,
            producer.acked,
            "{}",
            producer.column
        );
    }
    let alerts = log.assert_complete(&cluster).await;
    assert!(
        alerts > 50,
        "only {alerts} alerts: the rules have hardly been tried"
    );
    assert_eq!(log.seen().rewound, Vec::<String>::new());
    assert_eq!(router.stop(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_told_to_stop_answers_what_it_took() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let layout = Layout::of(&cluster, "feed").await;
    let acked = Acked::new(layout.clone(), 2);
    let router = cluster.router();
    put_rules(&cluster, &router).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let stop = Arc::new(AtomicBool::new(false));
    let running = run(&router, producers(&layout), &stop, &acked).await;
    // Calls of one row each, one after the other, until one is refused.
    let mut calls = rows::ingest(&router).await;
    let calling = tokio::spawn(async move {
        for value in 1.. {
            let request = rows::rows("feed", &["c9"], [(int(1), vec![int(value)])]);
            if let Err(status) = calls.write(request).await {
                return (value - 1, status);
            }
        }
        unreachable!("calls go on until one is refused")
    });
    rows_acked(&acked, 10_000).await;
    let started = Instant::now();
    let code = tokio::task::spawn_blocking(move || router.stop())
        .await
        .expect("it stops");
    assert_eq!(code, 0, "everything was written in time");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        started.elapsed()
    );
    for one in running {
        let (producer, done) = one.await.expect("a producer does not panic");
        let refusal = Refusal::from(&done.expect_err("the router has gone"));
        assert_eq!(refusal.code, tonic::Code::Unavailable, "{refusal:?}");
        assert_eq!(refusal.reason, "DRAINING", "{refusal:?}");
        assert!(refusal.retry, "{refusal:?}");
        assert!(producer.refused.is_empty(), "{:?}", producer.refused);
        // What was not answered was not taken: it is not there.
        assert_eq!(
            stored(&cluster, &producer).await,
            producer.acked,
            "{}",
            producer.column
        );
    }
    let (last, status) = calling.await.expect("no panic");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let c9 = "select coalesce(sum(c9), 0) from public.feed";
    let stored = cluster.sum(c9).await;
    assert!(
        stored == last || stored == last + 1,
        "acked {last}, stored {stored}"
    );
    let ended = log
        .until("the subscription to end", |seen| seen.ended.is_some())
        .await;
    let reason = ended.ended.expect("it ended");
    assert!(reason.contains("subscribe again"), "{reason}");

    let router = cluster.router();
    let start = Start::Token(ended.token.clone());
    let subscriber = Subscriber::open(&router, start, Filter::default()).await;
    let log = AlertLog::follow(
        subscriber.expect("the token is taken"),
        ended_cleared(ended.token, log.seen()),
    );
    log.assert_complete(&cluster).await;
}

fn ended_cleared(token: String, seen: Seen) -> Seen {
    Seen {
        token,
        ended: None,
        ..seen
    }
}

/// An instance that does not answer can't hold up the end for longer than the settings say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_cannot_drain_stops_all_the_same() {
    let cluster = Cluster::start(ClusterOptions {
        config: "connect_timeout = \"1s\"\n[ingest]\ndrain_timeout = \"2s\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let layout = Layout::of(&cluster, "feed").await;
    let router = cluster.router();
    let mut writer = Writer::open(&router).await;
    let keys = layout.keys(50, |_, _| true);
    let request = |value| {
        let values = vec![value; keys.len()];
        rows::columnar(
            "feed",
            rows::int64s("", &keys),
            vec![rows::int32s("c1", &values)],
        )
    };
    writer.write(request(1)).await;
    // The gauge lags a little behind: it must not be the first request that it shows below.
    until("the queue to be empty", || async {
        (router.metric("pgbraid_queue_rows", &[]) == 0.0).then_some(())
    })
    .await;
    cluster
        .postgres
        .freeze(1)
        .await
        .expect("db1 can be stopped");
    writer.send(request(2)).await.expect("the stream is open");
    until("the rows to be taken", || async {
        (router.metric("pgbraid_queue_rows", &["\"db1\""]) > 0.0).then_some(())
    })
    .await;
    let started = Instant::now();
    let log = router.log();
    let code = tokio::task::spawn_blocking(move || router.stop())
        .await
        .expect("it stops");
    assert_eq!(code, 1, "rows were left over:\n{log}");
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "it took {:?}",
        started.elapsed()
    );
    let answer = writer.answer().await;
    assert!(
        match &answer {
            Err(_) => true,
            Ok((_, answer)) => !answer.refused.is_empty() || answer.status.is_some(),
        },
        "rows that were not written must not be acked: {answer:?}"
    );
    cluster.postgres.thaw(1).await.expect("db1 goes on");
}
