//! Transaction ids that a crash takes back: they are given anew, to transactions that raise alerts.

use nix::sys::signal::Signal;
use pgbraid_proto::v1::subscribe_response::Event;
use pgbraid_tests::{AlertLog, Cluster, ClusterOptions, Seen, Subscriber};

/// An aborted transaction leaves its id in memory only. If the instance crashes before the id has
/// reached the disk, the id is used again; a reader that takes it for seen loses an alert.
#[tokio::test]
async fn alerts_of_transaction_ids_used_twice_are_not_lost() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        // The log is written when a transaction commits, and not before.
        settings: vec![("wal_writer_delay", "10s")],
        config: "[alerts]\nheartbeat = \"200ms\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    cluster
        .put_rules(&router, "feed", &[("any", "c1 > 0", "a")])
        .await;
    let mut subscriber = Subscriber::now(&router).await;
    let write = async |keys: std::ops::Range<i64>| {
        let sql = cluster.sql(0).await;
        for key in keys {
            let insert = "insert into public.feed (id, c1) values ($1, 1)";
            sql.execute(insert, &[&key])
                .await
                .expect("the row is written");
        }
    };
    write(0..5).await;
    assert_eq!(subscriber.alerts(5).await.len(), 5);
    let sql = cluster.sql(0).await;
    let mut last = 0;
    for _ in 0..40 {
        sql.batch_execute("begin")
            .await
            .expect("a transaction begins");
        let id = "select pg_current_xact_id()::text::int8";
        last = sql
            .query_one(id, &[])
            .await
            .expect("it has an id")
            .get::<_, i64>(0);
        sql.batch_execute("rollback").await.expect("and ends");
    }
    // The reader has looked since.
    let mut beats = 0;
    while beats < 5 {
        let event = subscriber.next().await.expect("the stream goes on");
        beats += usize::from(matches!(event, Event::Heartbeat(_)));
    }
    let log = AlertLog::follow(subscriber, Seen::default());
    // The router is late in coming back: the new transactions are past the old ids by then.
    router.signal(Signal::SIGSTOP);
    cluster.postgres.kill9(0).await.expect("db0 can be killed");
    cluster.postgres.start(0).await.expect("db0 starts again");
    let sql = cluster.sql(0).await;
    let id = "select pg_current_xact_id()::text::int8";
    let first: i64 = sql.query_one(id, &[]).await.expect("there is an id").get(0);
    assert!(
        first <= last,
        "the crash took no ids back: {first} after {last}"
    );
    write(5..60).await;
    router.signal(Signal::SIGCONT);
    let seen = log
        .until("the last alerts", |seen| seen.alerts.len() >= 55 - 40)
        .await;
    assert!(seen.ended.is_none(), "the stream goes on: {:?}", seen.ended);
    let before_crash = (1..=5).map(|seq| ("db0".to_owned(), seq));
    let raised = pgbraid_tests::raised(&cluster).await;
    let new: Vec<_> = raised
        .into_iter()
        .filter(|one| !before_crash.clone().any(|old| old == *one))
        .collect();
    assert_eq!(new.len(), 55);
    log.until("every alert raised after the crash", |seen| {
        new.iter().all(|alert| seen.alerts.contains_key(alert))
    })
    .await;
    assert_eq!(router.stop(), 0);
}
