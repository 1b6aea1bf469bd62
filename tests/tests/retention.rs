//! The outbox in parts: rotated under load, dropped by age, held back for who needs it, and not for
//! ever.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgbraid_proto::v1::{self, subscribe_request::Start, subscribe_response::Event};
use pgbraid_tests::{
    AlertLog, Churn, Cluster, ClusterOptions, Layout, Router, Seen, Subscriber, run,
    wait::{limited, until},
};

async fn cluster(instances: u16, alerts: &str) -> Cluster {
    Cluster::start(ClusterOptions {
        instances,
        config: format!("[alerts]\nheartbeat = \"200ms\"\n{alerts}"),
        ..ClusterOptions::default()
    })
    .await
}

async fn put_rule(cluster: &Cluster, router: &Router) {
    cluster
        .put_rules(router, "feed", &[("any", "c1 > 0", "a")])
        .await;
}

/// Raises an alert for each key.
async fn raise(cluster: &Cluster, keys: std::ops::Range<i64>) {
    let sql = cluster.sql(0).await;
    for key in keys {
        let insert = "insert into public.feed (id, c1) values ($1, 1)";
        sql.execute(insert, &[&key]).await.expect("it is written");
    }
}

/// Waits until a number that SQL gives is what it should be.
async fn until_sql(cluster: &Cluster, what: &str, sql: &str, good: impl Fn(i64) -> bool) -> i64 {
    let client = cluster.sql(0).await;
    until(what, || async {
        let found: i64 = client.query_one(sql, &[]).await.expect("SQL").get(0);
        good(found).then_some(found)
    })
    .await
}

const KEPT: &str = "select count(*) from pgbraid.alert";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_change_under_load_and_killed_routers_and_nothing_is_lost_or_doubled() {
    let cluster = cluster(2, "part_time = \"300ms\"\n").await;
    let layout = Layout::of(&cluster, "feed").await;
    let mut router = cluster.router();
    put_rule(&cluster, &router).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let churn = Churn::start(&cluster, &layout, 5).await;
    let opened = "select count(*) from pgbraid.alert_part where opened_at is not null";
    let mut seen = log.until("alerts", |seen| seen.alerts.len() > 200).await;
    drop(log);
    for round in 1..=4 {
        let start = Start::Token(seen.token.clone());
        let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
        let log = AlertLog::follow(subscriber.expect("the token is taken"), seen);
        // Another router works at the same outboxes.
        let other = cluster.router();
        until_sql(&cluster, "new parts", opened, |parts| parts > round * 3).await;
        let alerts = log.look(|seen| seen.alerts.len());
        log.until("further alerts", |seen| seen.alerts.len() > alerts + 200)
            .await;
        router.signal(Signal::SIGKILL);
        seen = log
            .until("the subscription to end", |seen| seen.ended.is_some())
            .await;
        router = other;
    }
    churn.stop().await;
    let start = Start::Token(seen.token.clone());
    let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
    let log = AlertLog::follow(subscriber.expect("the token is taken"), seen);
    let alerts = log.assert_complete(&cluster).await;
    assert!(alerts > 1000, "only {alerts} alerts");
    assert_eq!(log.look(|seen| seen.dropped.clone()), []);
    let parts = cluster.sum("select count(*) from pgbraid.alert_part").await;
    assert!(parts > 20, "only {parts} parts");
    // What lets reads leave out parts: their transactions end below a known one.
    let beyond = "select count(*) from pgbraid.alert a join pgbraid.alert_part p using (part) \
                  where a.xid >= p.closed_xid";
    assert_eq!(cluster.sum(beyond).await, 0);
    let late = "select count(*) from pgbraid.alert a join pgbraid.alert_part p using (part) \
                where a.seq > p.last_seq or a.xid > p.last_xid";
    assert_eq!(cluster.sum(late).await, 0);
    let miscounted = "select count(*) from pgbraid.alert_part p where sealed_at is not null \
                      and alerts <> (select count(*) from pgbraid.alert a where a.part = p.part)";
    assert_eq!(cluster.sum(miscounted).await, 0);
    // From the beginning too, page by page.
    let earliest = Start::Earliest(v1::Earliest {});
    let subscriber = Subscriber::open(&router, earliest, v1::Filter::default()).await;
    let log = AlertLog::follow(subscriber.expect("it is taken"), Seen::default());
    log.assert_complete(&cluster).await;
    assert_eq!(router.stop(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_dropped_but_not_what_a_holder_needs() {
    let cluster = cluster(1, "keep = \"1s\"\npart_time = \"200ms\"\n").await;
    let router = cluster.router();
    put_rule(&cluster, &router).await;
    let follower = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let sql = cluster.sql(0).await;
    let hold = "insert into pgbraid.outbox_hold (holder, needed_xid, needed_seq) \
                values ('group late', pg_current_xact_id(), 9223372036854775807)";
    raise(&cluster, 0..20).await;
    let current = "select last_value from pgbraid.alert_current_part";
    until_sql(&cluster, "a new part", current, |part| part > 1).await;
    sql.batch_execute(hold).await.expect("a hold");
    raise(&cluster, 20..30).await;
    // Those raised before the hold go, in whole parts; the part that holds the others stays.
    until_sql(
        &cluster,
        "old parts to go",
        "select count(*) from pgbraid.outbox_dropped",
        |n| n > 0,
    )
    .await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        let kept = cluster
            .sum("select count(*) from pgbraid.alert where seq > 20")
            .await;
        assert_eq!(kept, 10, "alerts were dropped that the hold needs");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sql.batch_execute("delete from pgbraid.outbox_hold")
        .await
        .expect("no hold");
    until_sql(&cluster, "all to be dropped", KEPT, |kept| kept == 0).await;
    until("the metric to say so", || async {
        let dropped = router.metric("pgbraid_outbox_dropped_alerts_total", &["db0"]);
        let kept = router.metric("pgbraid_outbox_alerts", &["db0"]);
        (dropped == 30.0 && kept == 0.0).then_some(())
    })
    .await;
    assert_eq!(
        router.metric("pgbraid_outbox_overrun_alerts_total", &["db0"]),
        0.0
    );
    // Who was up to date lost nothing, and is not told otherwise.
    let seen = follower.seen();
    assert_eq!((seen.alerts.len(), seen.dropped), (30, vec![]));
    // The tables are gone as well.
    let tables = "select count(*) - (select count(*) from pgbraid.alert_part) from pg_class \
                  where relname ~ '^alert_[0-9]+$' and relkind = 'r'";
    until_sql(&cluster, "tables to be gone", tables, |more| more == 0).await;
    assert_eq!(router.stop(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_never_reads_cannot_fill_the_disk_and_who_lost_alerts_is_told_once() {
    let limits = "keep = \"500ms\"\npart_time = \"200ms\"\nheld_keep = \"2s\"\n";
    let cluster = cluster(1, limits).await;
    let router = cluster.router();
    put_rule(&cluster, &router).await;
    let mut subscriber = Subscriber::now(&router).await;
    raise(&cluster, 0..5).await;
    assert_eq!(subscriber.alerts(5).await.len(), 5);
    subscriber.caught_up().await;
    let token = subscriber.token.clone();
    drop(subscriber);
    let sql = cluster.sql(0).await;
    sql.batch_execute(
        "insert into pgbraid.outbox_hold (holder, needed_xid, needed_seq) \
         values ('group asleep', '3', 0)",
    )
    .await
    .expect("a hold");
    raise(&cluster, 5..12).await;
    until_sql(&cluster, "the limit to be enforced", KEPT, |kept| kept == 0).await;
    let overrun = "select coalesce(sum(alerts), 0)::int8 from pgbraid.outbox_dropped \
                   where 'group asleep' = any (overrun)";
    let overrun = cluster.sum(overrun).await;
    assert_eq!(
        overrun, 12,
        "what was dropped, and whose it was, is on record"
    );
    until("the metric to say so", || async {
        let overrun = router.metric("pgbraid_outbox_overrun_alerts_total", &["db0"]);
        (overrun == 12.0).then_some(())
    })
    .await;
    // Another router, whose ring does not reach back.
    assert_eq!(router.stop(), 0);
    let router = cluster.router();
    // Nothing tells a subscription of what it did not miss.
    for start in [Start::Now(v1::Now {}), Start::Earliest(v1::Earliest {})] {
        let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
        let mut subscriber = subscriber.expect("it is taken");
        let mut beats = 0;
        while beats < 3 {
            match subscriber.next().await.expect("the stream goes on") {
                Event::Heartbeat(_) => beats += 1,
                told @ (Event::Dropped(_) | Event::Alert(_)) => panic!("unexpected: {told:?}"),
                _ => {}
            }
        }
    }
    let start = Start::Token(token);
    let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
    let mut subscriber = subscriber.expect("the token is taken");
    let dropped = limited("the event", async {
        loop {
            if let Event::Dropped(dropped) = subscriber.next().await.expect("the stream goes on") {
                return dropped;
            }
        }
    })
    .await;
    assert_eq!(dropped.instance, "db0");
    assert!((7..=12).contains(&dropped.alerts), "{dropped:?}");
    assert!(dropped.raised_until.is_some() && !dropped.reason.is_empty());
    raise(&cluster, 12..15).await;
    let mut alerts = BTreeSet::new();
    while alerts.len() < 3 {
        match subscriber.next().await.expect("the stream goes on") {
            Event::Alert(alert) => assert!(alerts.insert(alert.seq)),
            Event::Dropped(again) => panic!("told twice: {again:?}"),
            _ => {}
        }
    }
    let token = subscriber.token.clone();
    drop(subscriber);
    let start = Start::Token(token);
    let subscriber = Subscriber::open(&router, start, v1::Filter::default()).await;
    let mut subscriber = subscriber.expect("the token is taken");
    assert_eq!(subscriber.caught_up().await, []);
    assert_eq!(router.stop(), 0);
}

/// A size limit counts too, and a transaction that stays open delays what must wait for it, no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_is_limited_while_a_transaction_stays_open() {
    let limits = "keep_bytes = \"512KiB\"\nheld_keep_bytes = \"1MiB\"\npart_bytes = \"128KiB\"\n";
    let cluster = cluster(1, limits).await;
    let router = cluster.router();
    put_rule(&cluster, &router).await;
    raise(&cluster, 0..1).await;
    let bytes = "select sum(pg_total_relation_size(relid))::int8 \
                 from pg_partition_tree('pgbraid.alert') where isleaf";
    let open = cluster.sql(0).await;
    let sql = cluster.sql(0).await;
    let fill = async |from: i64| {
        let many = format!(
            "insert into public.feed (id, c1, c2) select g, 1, 1 from generate_series({from}, {from} + 1999) g"
        );
        sql.batch_execute(&many).await.expect("rows are written");
    };
    for batch in 1..4 {
        fill(batch * 10_000).await;
    }
    until_sql(&cluster, "the size to shrink", bytes, |bytes| {
        bytes < 1 << 20
    })
    .await;
    open.batch_execute("begin; insert into public.feed (id, c1) values (5, 1)")
        .await
        .expect("a transaction begins");
    for batch in 4..6 {
        fill(batch * 10_000).await;
    }
    until_sql(&cluster, "it to grow", bytes, |bytes| bytes > 1 << 20).await;
    open.batch_execute("commit").await.expect("it ends");
    until_sql(&cluster, "the size to shrink again", bytes, |bytes| {
        bytes < 1 << 20
    })
    .await;
    assert_eq!(router.stop(), 0);
}

/// Alerts of an instance that had no parts yet are kept, and numbered on.
#[tokio::test]
async fn an_outbox_without_parts_is_carried_over() {
    let options = ClusterOptions {
        instances: 1,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start_bare(&options).await;
    let sql = cluster.sql(0).await;
    let first = include_str!("../../migrations/0001_schema.sql");
    sql.batch_execute(
        "create schema pgbraid; create table pgbraid.migration (kind text not null, \
         name text not null, checksum text not null, applied_at timestamptz not null \
         default now(), primary key (kind, name))",
    )
    .await
    .expect("a schema");
    sql.batch_execute(first).await.expect("the first migration");
    sql.execute(
        "insert into pgbraid.migration values ('pgbraid', '0001_schema', md5($1))",
        &[&first],
    )
    .await
    .expect("is noted");
    sql.batch_execute(
        "insert into pgbraid.alert (feed, rule, rule_version, channel, reason, key, \"row\") \
         select 'feed', 'any', 1, 'a', 'r', g::text, '{}' from generate_series(1, 50) g",
    )
    .await
    .expect("alerts");
    let before = "select md5(string_agg(row(xid, seq, key, raised_at)::text, '|' order by seq)) \
                  from pgbraid.alert";
    let digest: String = sql.query_one(before, &[]).await.expect("rows").get(0);
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    assert!(
        migrated.status.success(),
        "{}",
        String::from_utf8_lossy(&migrated.stderr)
    );
    let after: String = sql.query_one(before, &[]).await.expect("rows").get(0);
    assert_eq!(digest, after);
    let router = cluster.router();
    put_rule(&cluster, &router).await;
    raise(&cluster, 0..1).await;
    let earliest = Start::Earliest(v1::Earliest {});
    let subscriber = Subscriber::open(&router, earliest, v1::Filter::default()).await;
    let alerts = subscriber.expect("it is taken").alerts(51).await;
    assert_eq!(alerts[50].seq, 51);
    assert_eq!(router.stop(), 0);
}
