//! Where alerts raised from some time on begin, looked at closely: what notes of snapshots leave out
//! and what they must not.

use std::{sync::Arc, time::Duration};

use pgbraid_instance::{Connector, ConnectorSettings, Instance, SslMode};
use pgbraid_tests::{Cluster, ClusterOptions};
use tokio_postgres::{Client, GenericClient};

fn instance(cluster: &Cluster) -> Arc<Instance> {
    let wait = Duration::from_secs(30);
    let settings = ConnectorSettings {
        user: "pgbraid".into(),
        dbname: "pgbraid".into(),
        search_path: "public".into(),
        ssl_mode: SslMode::Prefer,
        ssl_root_cert: None,
        connect_timeout: wait,
        statement_timeout: wait,
        lock_timeout: wait,
        tcp_user_timeout: wait,
    };
    let server = &cluster.postgres.instances()[0];
    let name = server.name().parse().expect("the name of an instance");
    let hosts = [("127.0.0.1".to_owned(), server.port())];
    let password = cluster.postgres.password();
    let connector = Connector::new(name, &hosts, &settings, None, Some(password));
    Instance::new(connector.expect("a connector"), 1, 2, 10, wait)
}

async fn cluster() -> (Cluster, Arc<Instance>, Client) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        ..ClusterOptions::default()
    })
    .await;
    let (instance, sql) = (instance(&cluster), cluster.sql(0).await);
    (cluster, instance, sql)
}

/// An alert: its transaction, and when it was raised.
#[derive(Clone, Copy)]
struct Raised {
    xid: u64,
    at_us: i64,
}

async fn raise(sql: &impl GenericClient) -> Raised {
    let insert = "insert into pgbraid.alert \
                  (feed, rule, rule_version, channel, reason, key, \"row\") \
                  values ('feed', 'r', 1, 'c', 'why', 'k', '{}') \
                  returning xid::text, (extract(epoch from raised_at) * 1000000)::int8";
    let row = sql.query_one(insert, &[]).await.expect("an alert");
    let xid: String = row.get(0);
    Raised {
        xid: xid.parse().expect("a number"),
        at_us: row.get(1),
    }
}

async fn first(instance: &Instance, at_us: i64) -> Option<u64> {
    let start = instance.outbox_at_time(at_us, None).await;
    start.expect("it answers").first_xid
}

async fn ticks(sql: &Client) -> i64 {
    let count = "select count(*) from pgbraid.outbox_tick";
    sql.query_one(count, &[]).await.expect("SQL").get(0)
}

/// Notes the snapshot of now at a time of one's choice, as if it had been taken then.
async fn note(sql: &Client, at_us: i64) {
    let insert = "insert into pgbraid.outbox_tick (at, snapshot, last_seq) \
                  select 'epoch'::timestamptz + $1::int8 * interval '1 microsecond', \
                  pg_current_snapshot(), 0";
    sql.execute(insert, &[&at_us]).await.expect("a note");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_at_the_first_alert_raised_then_or_later() {
    let (_cluster, instance, sql) = cluster().await;
    assert_eq!(first(&instance, 0).await, None);
    let (a, b, c) = (raise(&sql).await, raise(&sql).await, raise(&sql).await);
    for (at_us, expected) in [
        (0, Some(a.xid)),
        (a.at_us, Some(a.xid)),
        (a.at_us + 1, Some(b.xid)),
        (b.at_us, Some(b.xid)),
        (c.at_us, Some(c.xid)),
        (c.at_us + 1, None),
    ] {
        assert_eq!(first(&instance, at_us).await, expected, "{at_us}");
    }
    // A note says that what it sees was raised before it: one of the very moment is no help, and
    // neither is a later one.
    note(&sql, b.at_us).await;
    note(&sql, c.at_us + 1).await;
    assert_eq!(first(&instance, b.at_us).await, Some(b.xid));
    assert_eq!(first(&instance, c.at_us).await, None, "the note before");
    assert_eq!(first(&instance, 0).await, Some(a.xid));
    let d = raise(&sql).await;
    assert_eq!(first(&instance, c.at_us + 2).await, Some(d.xid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_ran_while_the_note_was_made_is_not_passed_over() {
    let (cluster, instance, sql) = cluster().await;
    raise(&sql).await;
    let mut long = cluster.sql(0).await;
    let long = long.transaction().await.expect("a transaction");
    long.execute("select pg_current_xact_id()", &[])
        .await
        .expect("an id");
    // The note's snapshot has seen later transactions, and this one running.
    raise(&sql).await;
    raise(&sql).await;
    instance.tick_outbox(Duration::ZERO).await.expect("a note");
    let during = raise(&long).await;
    let after = raise(&sql).await;
    assert!(during.xid < after.xid);
    assert_eq!(first(&instance, during.at_us).await, Some(after.xid));
    let start = instance.outbox_at_time(during.at_us, None).await;
    let seen = start.expect("it answers").seen.text;
    assert!(
        seen.ends_with(&format!(":{}", during.xid)),
        "it runs: {seen}"
    );
    long.commit().await.expect("a commit");
    assert_eq!(first(&instance, during.at_us).await, Some(during.xid));
    assert_eq!(first(&instance, after.at_us).await, Some(after.xid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_since_then_counts() {
    let (_cluster, instance, sql) = cluster().await;
    let kept = raise(&sql).await;
    let until_us = kept.at_us - 1000;
    sql.execute(
        "insert into pgbraid.outbox_dropped \
         (part, alerts, first_seq, last_seq, first_xid, last_xid, raised_until, reason) \
         values (0, 5, 1, 5, '7', '9', \
         'epoch'::timestamptz + $1::int8 * interval '1 microsecond', 'a test')",
        &[&until_us],
    )
    .await
    .expect("SQL");
    assert_eq!(first(&instance, until_us - 1).await, Some(7));
    assert_eq!(first(&instance, until_us + 1).await, Some(kept.xid));
    assert_eq!(first(&instance, kept.at_us + 1).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_is_made_when_there_is_news_and_the_last_one_is_old() {
    let (_cluster, instance, sql) = cluster().await;
    let tick = async |every: u64| {
        let done = instance.tick_outbox(Duration::from_secs(every)).await;
        done.expect("it answers");
        ticks(&sql).await
    };
    raise(&sql).await;
    assert_eq!(tick(0).await, 1);
    assert_eq!(tick(0).await, 1, "nothing was raised since");
    raise(&sql).await;
    assert_eq!(tick(3600).await, 1, "the last one is young");
    assert_eq!(tick(0).await, 2);
    // Each is of a moment after its snapshot: what it sees was raised before.
    let row = sql
        .query_one(
            "select count(*) from pgbraid.outbox_tick t, pgbraid.alert a \
             where pg_visible_in_snapshot(a.xid, t.snapshot) and a.raised_at >= t.at",
            &[],
        )
        .await;
    assert_eq!(row.expect("SQL").get::<_, i64>(0), 0);
}
