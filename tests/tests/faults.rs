//! An instance stops, is killed, and comes back: its rows wait or are refused, the others' go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgbraid_proto::v1;
use pgbraid_tests::{
    Acked, AlertLog, Cluster, ClusterOptions, Layout, Producer, Router, Seen, Subscriber, Writer,
    rows,
    wait::{self, until},
};

const STOPPED: usize = 1;
const MEMORY: u64 = 400 << 20;

fn options() -> ClusterOptions {
    ClusterOptions {
        instances: 3,
        feeds: vec![("feed".into(), 48)],
        config: "statement_timeout = \"3s\"\nconnect_timeout = \"1s\"\n\
                 [ingest]\nstall_after = \"1s\"\n[alerts]\nheartbeat = \"500ms\"\n"
            .into(),
        ..ClusterOptions::default()
    }
}

/// Waits until each of the other instances has acked further rows, several times over.
async fn others_go_on(what: &str, router: &Router, acked: &Acked, windows: u32) {
    for window in 0..windows {
        for instance in [0, 2] {
            let before = acked.of(instance);
            let started = std::time::Instant::now();
            until(
                &format!("{what}: rows of db{instance} to be acked"),
                || async { (acked.of(instance) >= before + 500).then_some(()) },
            )
            .await;
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(6),
                "{what}, window {window}: 500 rows of db{instance} took {took:?}"
            );
        }
        let memory = router.resident_bytes();
        assert!(memory < MEMORY, "{what}: the router holds {memory} bytes");
    }
}

async fn state(router: &Router) -> v1::InstanceState {
    let status = rows::admin(router)
        .await
        .get_status(v1::GetStatusRequest {})
        .await;
    status
        .expect("the status is there")
        .into_inner()
        .instances
        .swap_remove(STOPPED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_other_instances_go_on_and_nothing_acked_is_lost() {
    let cluster = Cluster::start(options()).await;
    let router = cluster.router();
    let rules = [
        ("edge", "c2 % 100 = 7", "a"),
        ("other", "c3 % 50 = 11 and c1 > 5", "b"),
    ];
    cluster.put_rules(&router, "feed", &rules).await;
    put_level_rule(&router).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let layout = Layout::of(&cluster, "feed").await;
    let acked = Acked::new(layout.clone(), 3);
    let stop = Arc::new(AtomicBool::new(false));
    let all = layout.keys(2000, |_, _| true);
    // Two never touch the instance that will stop; six write all keys, each its own column.
    let others = layout.keys(2000, |layout, key| layout.owner(key) != STOPPED);
    let mut producers = Vec::new();
    for number in 1..=8 {
        let keys = if number <= 6 { &all } else { &others };
        let mut producer = Producer::new(format!("c{number}"), keys.clone());
        let writer = Writer::open(&router).await;
        let (stop, acked) = (stop.clone(), acked.clone());
        producers.push(tokio::spawn(async move {
            let done = producer
                .run(writer, Duration::from_secs(4), &stop, &acked)
                .await;
            (producer, done)
        }));
    }
    others_go_on("before", &router, &acked, 1).await;

    cluster
        .postgres
        .freeze(STOPPED)
        .await
        .expect("db1 can be stopped");
    others_go_on("just stopped", &router, &acked, 2).await;
    until(
        "the status to tell that db1 can't be written to",
        || async {
            let state = state(&router).await;
            (!state.writable && !state.error.is_empty()).then_some(())
        },
    )
    .await;
    others_go_on("stopped", &router, &acked, 3).await;
    log.until("the subscriber to be told that db1 is down", |seen| {
        seen.health.contains(&("db1".into(), false))
    })
    .await;
    others_go_on("stopped for long", &router, &acked, 2).await;
    // The status may know it from whoever asked about tables, before a writer's time is over.
    until(
        "the metric to tell that db1 can't be written to",
        || async {
            (router.metric("pgbraid_instance_writable", &["\"db1\""]) == 0.0).then_some(())
        },
    )
    .await;
    // Refused at once because db1 is known to be down, or at the end of their time.
    until("rows for db1 to be refused", || async {
        let refused = router.metric("pgbraid_rows_total", &["\"db1\"", "unavailable"])
            + router.metric("pgbraid_rows_expired_total", &[]);
        (refused > 0.0).then_some(())
    })
    .await;

    cluster
        .postgres
        .kill9(STOPPED)
        .await
        .expect("db1 can be killed");
    others_go_on("killed", &router, &acked, 3).await;

    cluster
        .postgres
        .start(STOPPED)
        .await
        .expect("db1 starts again");
    let before = acked.of(STOPPED);
    until("rows of db1 to be acked again", || async {
        (acked.of(STOPPED) > before + 1000).then_some(())
    })
    .await;
    log.until("the subscriber to be told that db1 is back", |seen| {
        seen.health.last() == Some(&("db1".into(), true))
    })
    .await;
    others_go_on("back", &router, &acked, 1).await;
    stop.store(true, Ordering::Relaxed);
    let mut finished = Vec::new();
    for producer in producers {
        let (mut producer, done) = producer.await.expect("a producer does not panic");
        done.expect("streams live through the outage of an instance");
        producer
            .finish(&router, &acked)
            .await
            .expect("the stream goes on");
        finished.push(producer);
    }
    assert!(
        finished[..6]
            .iter()
            .all(|one| one.refused.values().sum::<u64>() > 0),
        "the stopped instance's rows were refused at some time"
    );
    for one in &finished[6..] {
        assert!(
            one.refused.is_empty(),
            "{} has no rows there: {:?}",
            one.column,
            one.refused
        );
    }
    for producer in &finished {
        assert_stored(&cluster, &layout, producer).await;
    }
    let alerts = log.assert_complete(&cluster).await;
    assert!(
        alerts > 100,
        "only {alerts} alerts: the rules have hardly been tried"
    );
    let state = state(&router).await;
    assert!(
        state.writable && state.readable,
        "db1 is all right again: {state:?}"
    );
    assert_eq!(router.stop(), 0);
}

/// Fires on every write of a row whose c4 is right, whoever writes.
async fn put_level_rule(router: &Router) {
    let rule = v1::Rule {
        name: "level".into(),
        feed: "feed".into(),
        expression: "c4 % 40 = 3".into(),
        channel: "c".into(),
        mode: v1::RuleMode::Level.into(),
        ..Default::default()
    };
    let put = v1::RulePut {
        rule: Some(rule),
        expected_version: Some(0),
    };
    let request = v1::PutRulesRequest {
        rules: vec![put],
        ..Default::default()
    };
    rows::admin(router)
        .await
        .put_rules(request)
        .await
        .expect("the rule is taken");
}

/// Every key holds its last acked value, on its owner and nowhere else.
async fn assert_stored(cluster: &Cluster, layout: &Layout, producer: &Producer) {
    let mut stored = std::collections::HashMap::new();
    for instance in 0..3 {
        let sql = format!("select id, {} from public.feed", producer.column);
        for row in cluster
            .sql(instance)
            .await
            .query(&sql, &[])
            .await
            .expect("feed is there")
        {
            let key: i64 = row.get(0);
            assert_eq!(
                layout.owner(key),
                instance,
                "key {key} is on its owner only"
            );
            assert_eq!(stored.insert(key, row.get::<_, Option<i32>>(1)), None);
        }
    }
    for (place, key) in producer.keys.iter().enumerate() {
        let wanted = Some(producer.acked[place]).filter(|value| *value > 0);
        let found = stored.get(key).copied().flatten();
        assert_eq!(found, wanted, "{} of key {key}", producer.column);
    }
}

/// Streams that write nothing but large rows to a stopped instance fill its share of the memory,
/// and wait; rows of the other instances pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_instance_fills_only_its_share_of_the_memory() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 2,
        schema: "create table feed (id int8 primary key, note text) partition by hash (id);".into(),
        // Nothing is refused early: the bounds alone must hold.
        config: "statement_timeout = \"60s\"\nconnect_timeout = \"1s\"\n[ingest]\n\
                 stall_after = \"10m\"\nrequest_timeout = \"5m\"\n\
                 queue_bytes = \"96MiB\"\nqueue_bytes_per_instance = \"24MiB\"\n"
            .into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let layout = Layout::of(&cluster, "feed").await;
    let keys = |instance| layout.keys(16, |layout, key| layout.owner(key) == instance);
    let (here, there) = (keys(0), keys(STOPPED));
    let note = "x".repeat(64 << 10);
    let large = |keys: &[i64]| {
        let values = keys
            .iter()
            .map(|key| (rows::int(*key), vec![rows::text(&note)]));
        rows::rows("feed", &["note"], values)
    };
    let mut one = Writer::open(&router).await;
    one.write(large(&here)).await;
    cluster
        .postgres
        .freeze(STOPPED)
        .await
        .expect("db1 can be stopped");
    // 8 streams of 80 requests of 1 MiB each: 640 MiB if nothing held them.
    let mut floods = Vec::new();
    for _ in 0..8 {
        let mut writer = Writer::open(&router).await;
        let request = large(&there);
        floods.push(tokio::spawn(async move {
            for _ in 0..80 {
                writer.send(request.clone()).await?;
            }
            Ok::<_, tonic::Status>(writer)
        }));
    }
    until("db1's share to be full", || async {
        (router.metric("pgbraid_queue_bytes", &["\"db1\""]) >= f64::from(23 << 20)).then_some(())
    })
    .await;
    let mut most = 0;
    for _ in 0..50 {
        one.write(large(&here)).await;
        most = most.max(router.resident_bytes());
    }
    assert!(most < MEMORY, "the router holds {most} bytes");
    let refused = rows::ingest(&router).await.write(large(&there)).await;
    let refused = pgbraid_tests::Refusal::from(&refused.expect_err("there is no room"));
    assert_eq!(refused.code, tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.retry,
        "overload says when to try again: {refused:?}"
    );
    cluster.postgres.thaw(STOPPED).await.expect("db1 goes on");
    for flood in floods {
        let sent = wait::limited("all requests to be sent", flood).await;
        let mut writer = sent.expect("no panic").expect("the stream lives");
        writer.settle().await;
    }
    let most = router.resident_bytes();
    assert!(most < MEMORY, "the router holds {most} bytes");
    assert_eq!(router.stop(), 0);
}
