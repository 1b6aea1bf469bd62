//! Cool-downs are exact whoever writes and whatever is restarted: their state is in the instance,
//! in the transaction of the row.

use std::{sync::Arc, time::Duration};

use pgbraid_instance::{Connector, ConnectorSettings, Instance, SslMode};
use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, int},
    rules::{Outbox, cooling, edge, hour, put, resolving},
    wait,
};
use tokio_postgres::Client;

async fn start() -> (Cluster, Router, Client) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        feeds: vec![("feed".into(), 2)],
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let sql = cluster.sql(0).await;
    (cluster, router, sql)
}

async fn execute(sql: &Client, text: &str) {
    sql.batch_execute(text)
        .await
        .unwrap_or_else(|error| panic!("{text}: {error:?}"));
}

/// Writes c1 of key 1 through a router.
async fn write(router: &Router, c1: i64) {
    let mut writer = Writer::open(router).await;
    writer
        .write(rows::rows("feed", &["c1"], [(int(1), vec![int(c1)])]))
        .await;
}

#[tokio::test]
async fn one_cooldown_for_all_routers_and_restarts() {
    let (cluster, router, sql) = start().await;
    let other = cluster.router();
    put(&router, [cooling(resolving("rare", "c1 > 10"))])
        .await
        .expect("the rule is taken");
    let mut outbox = Outbox::new();
    write(&router, 11).await;
    write(&router, 1).await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 11", "-rare 1 1"]);
    // Within the cool-down: neither the start nor the end of it.
    write(&other, 12).await;
    write(&router, 1).await;
    drop((router, other));
    let router = cluster.router();
    write(&router, 13).await;
    drop(router);
    cluster.postgres.kill9(0).await.expect("db0 can be killed");
    cluster.postgres.start(0).await.expect("db0 starts again");
    let sql = cluster.sql(0).await;
    let router = cluster.router();
    write(&router, 14).await;
    assert!(outbox.lines(&sql).await.is_empty());
    // A row that matches still is told by its next write after the cool-down, once.
    hour(&sql).await;
    assert!(outbox.lines(&sql).await.is_empty());
    write(&router, 15).await;
    write(&router, 16).await;
    write(&router, 2).await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 15", "-rare 1 2"]);
    // Another key has its own.
    execute(&sql, "insert into feed (id, c1) values (2, 20)").await;
    assert_eq!(outbox.lines(&sql).await, ["rare 2 20"]);
}

/// The clock is the server's, and time alone ends it.
#[tokio::test]
async fn a_cooldown_ends_by_the_clock() {
    let (_cluster, router, sql) = start().await;
    let short = v1::Rule {
        cooldown: Some(Duration::from_millis(700).try_into().expect("a time")),
        ..edge("rare", "c1 > 10")
    };
    put(&router, [short]).await.expect("the rule is taken");
    let mut outbox = Outbox::new();
    let mut told = Vec::new();
    let mut written = 0;
    wait::limited("three alerts", async {
        while told.len() < 3 {
            written += 1;
            let start = "insert into feed (id, c1) values (1, 11) \
                         on conflict (id) do update set c1 = 11";
            execute(&sql, start).await;
            execute(&sql, "update feed set c1 = 1").await;
            told.extend(outbox.lines(&sql).await);
        }
    })
    .await;
    assert!(written > 3, "writes within the cool-down were told");
    let gaps = "select min(gap) >= interval '700ms' and max(gap) < interval '60s' from ( \
                select raised_at - lag(raised_at) over (order by seq) as gap from pgbraid.alert) x";
    let kept: bool = sql
        .query_one(gaps, &[])
        .await
        .expect("the outbox can be read")
        .get(0);
    assert!(kept, "alerts within the cool-down");
}

#[tokio::test]
async fn what_is_rolled_back_starts_no_cooldown() {
    let (_cluster, router, sql) = start().await;
    put(&router, [cooling(edge("rare", "c1 > 10"))])
        .await
        .expect("the rule is taken");
    let mut outbox = Outbox::new();
    execute(
        &sql,
        "begin; insert into feed (id, c1) values (1, 11); rollback",
    )
    .await;
    execute(
        &sql,
        "begin; savepoint a; insert into feed (id, c1) values (1, 12); rollback to a; \
         insert into feed (id, c1) values (2, 12); commit",
    )
    .await;
    assert_eq!(outbox.lines(&sql).await, ["rare 2 12"]);
    execute(&sql, "insert into feed (id, c1) values (1, 13)").await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 13"]);
}

/// Many writers of one key, at every isolation level: one alert, and no deadlock.
#[tokio::test]
async fn writers_of_one_key_raise_one_alert() {
    let (cluster, router, sql) = start().await;
    put(
        &router,
        [
            cooling(edge("rare", "c1 > 10")),
            cooling(edge("rare2", "c1 > 11")),
        ],
    )
    .await
    .expect("the rules are taken");
    let write = async |level: &str| {
        let sql = cluster.sql(0).await;
        execute(
            &sql,
            &format!("set default_transaction_isolation = '{level}'"),
        )
        .await;
        let mut done = 0;
        for n in 0..60 {
            // Delete and insert: the row of the key is another each time.
            let text = match n % 3 {
                0 => {
                    "insert into feed (id, c1) select g, 20 from generate_series(1, 5) g \
                      on conflict (id) do update set c1 = excluded.c1"
                }
                1 => "update feed set c1 = 1 where id = 3",
                _ => "delete from feed where id in (2, 4)",
            };
            match sql.batch_execute(text).await {
                Ok(()) => done += 1,
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_owned());
                    assert_eq!(code.as_deref(), Some("40001"), "{level}: {error:?}");
                }
            }
        }
        done
    };
    let (a, b, c, d) = tokio::join!(
        write("read committed"),
        write("read committed"),
        write("repeatable read"),
        write("serializable"),
    );
    assert_eq!((a, b), (60, 60));
    assert!(
        c + d > 0,
        "no transaction of the stricter levels got through"
    );
    let mut lines = Outbox::new().lines(&sql).await;
    lines.sort();
    let expected: Vec<String> = ["rare", "rare2"]
        .iter()
        .flat_map(|rule| (1..=5).map(move |key| format!("{rule} {key} 20")))
        .collect();
    assert_eq!(lines, expected);
}

/// Mending a rule repeats no alert; another duration holds at once; what was kept back by the old
/// text is not told by the new one.
#[tokio::test]
async fn edits_keep_what_was_told() {
    let (_cluster, router, sql) = start().await;
    put(&router, [cooling(edge("rare", "c1 > 10"))])
        .await
        .expect("the rule is taken");
    let mut outbox = Outbox::new();
    let toggle = "update feed set c1 = 1; update feed set c1 = 20";
    execute(&sql, "insert into feed (id, c1) values (1, 11)").await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 11"]);
    let mended = v1::Rule {
        reason: "mended".into(),
        ..cooling(edge("rare", "c1 > 10"))
    };
    put(&router, [mended]).await.expect("the edit is taken");
    execute(&sql, toggle).await;
    assert!(outbox.lines(&sql).await.is_empty());
    // Kept back now. The new text matches 20 as well, and nobody has seen the row start to.
    put(&router, [cooling(edge("rare", "c1 > 15"))])
        .await
        .expect("the edit is taken");
    hour(&sql).await;
    execute(&sql, "update feed set c1 = 21").await;
    assert!(outbox.lines(&sql).await.is_empty());
    execute(&sql, toggle).await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 20"]);
    // Half an hour later half an hour is enough.
    execute(
        &sql,
        "update pgbraid.cooldown set told_at = told_at - interval '30 minutes'",
    )
    .await;
    execute(&sql, toggle).await;
    assert!(outbox.lines(&sql).await.is_empty());
    let shorter = v1::Rule {
        cooldown: Some(Duration::from_secs(1800).try_into().expect("a time")),
        ..edge("rare", "c1 > 15")
    };
    put(&router, [shorter]).await.expect("the edit is taken");
    execute(&sql, toggle).await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 20"]);
    // Without one there is nothing to keep.
    put(&router, [edge("rare", "c1 > 15")])
        .await
        .expect("the edit is taken");
    execute(&sql, toggle).await;
    assert_eq!(outbox.lines(&sql).await, ["rare 1 20"]);
    let left: i64 = sql
        .query_one("select count(*) from pgbraid.cooldown", &[])
        .await
        .expect("it can be read")
        .get(0);
    assert_eq!(left, 0);
}

/// Routers remove what is past, and nothing else. Rows that fire again are updated in place.
#[tokio::test]
async fn past_cooldowns_are_removed() {
    let (cluster, router, sql) = start().await;
    put(&router, [cooling(edge("rare", "c1 > 10"))])
        .await
        .expect("the rule is taken");
    execute(
        &sql,
        "insert into feed (id, c1) select g, 11 from generate_series(1, 25000) g",
    )
    .await;
    let count = async || -> i64 { cluster.sum("select count(*) from pgbraid.cooldown").await };
    assert_eq!(count().await, 25_000);
    drop(router);
    hour(&sql).await;
    execute(
        &sql,
        "insert into feed (id, c1) values (100001, 11), (100002, 11)",
    )
    .await;
    // Kept back, and past: it is told by the row's next write, and stays until then.
    execute(
        &sql,
        "update pgbraid.cooldown set muted = true where key = '7'",
    )
    .await;
    let router = cluster.router();
    wait::until("past cool-downs are removed", || async {
        (count().await == 3).then_some(())
    })
    .await;
    let labels = ["instance=\"db0\""];
    wait::until("the removals are counted", || async {
        (router.metric("pgbraid_cooldowns_removed_total", &labels) == 24_999.0).then_some(())
    })
    .await;
    let mut outbox = Outbox::new();
    outbox.lines(&sql).await;
    execute(&sql, "update feed set c1 = 12 where id in (7, 8)").await;
    assert_eq!(outbox.lines(&sql).await, ["rare 7 12"]);
    for _ in 0..200 {
        hour(&sql).await;
        execute(
            &sql,
            "update feed set c1 = 1 where id = 8; update feed set c1 = 12 where id = 8",
        )
        .await;
    }
    assert_eq!(outbox.lines(&sql).await.len(), 200);
    execute(&sql, "select pg_stat_force_next_flush()").await;
    wait::until("updates in place are counted", || async {
        let stats = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables \
                     where relid = 'pgbraid.cooldown'::regclass";
        let row = sql
            .query_one(stats, &[])
            .await
            .expect("statistics can be read");
        let (all, hot): (i64, i64) = (row.get(0), row.get(1));
        // The first hour rewrote all 25 000 at once, which no page has room for.
        (all > 25_000 + 400 && all - hot < 25_100).then_some(())
    })
    .await;
}

fn instance(cluster: &Cluster, number: u16) -> Arc<Instance> {
    let wait = Duration::from_secs(10);
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
    let server = &cluster.postgres.instances()[usize::from(number)];
    let name = server.name().parse().expect("the name of an instance");
    let hosts = [("127.0.0.1".to_owned(), server.port())];
    let password = cluster.postgres.password();
    let connector = Connector::new(name, &hosts, &settings, None, Some(password));
    Instance::new(connector.expect("a connector"), 1, 2, 10, wait)
}

/// What a table's move has to carry: the new owner goes on where the last one was.
#[tokio::test]
async fn a_table_takes_its_cooldowns_along() {
    let cluster = Cluster::start(ClusterOptions {
        feeds: vec![("feed".into(), 2)],
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    put(&router, [cooling(resolving("rare", "c1 > 10"))])
        .await
        .expect("the rule is taken");
    let (source, target) = (cluster.sql(0).await, cluster.sql(1).await);
    let owned = "select tbl from pgbraid.ownership order by tbl limit 1";
    let number: i32 = source
        .query_one(owned, &[])
        .await
        .expect("a table is owned")
        .get(0);
    let keys = format!(
        "select array_agg(i) from (select i from generate_series(1, 100) i where \
         satisfies_hash_partition('feed'::regclass, 2, {number}, i::int8) limit 4) x"
    );
    let keys: Vec<i32> = source
        .query_one(&keys, &[])
        .await
        .expect("keys are found")
        .get(0);
    // 0: told; 1: told and kept back since; 2: past; 3: not told.
    for (at, c1) in [(0, 11), (1, 11), (1, 1), (1, 12), (2, 11)] {
        let write = format!(
            "insert into feed (id, c1) values ({}, {c1}) \
             on conflict (id) do update set c1 = excluded.c1",
            keys[at]
        );
        execute(&source, &write).await;
    }
    let past = format!(
        "update pgbraid.cooldown set told_at = told_at - interval '2 hours' where key = '{}'",
        keys[2]
    );
    execute(&source, &past).await;
    let leaf = format!("feed_{number}");
    let from = instance(&cluster, 0)
        .cooldowns("feed", &leaf)
        .await
        .expect("they are read");
    let mut carried: Vec<(String, bool)> = from
        .iter()
        .map(|one| (one.key.clone(), one.muted))
        .collect();
    carried.sort();
    let mut expected = vec![(keys[0].to_string(), false), (keys[1].to_string(), true)];
    expected.sort();
    assert_eq!(carried, expected);
    // Left over from an earlier stay of the table, and out of date.
    let stale = format!(
        "insert into pgbraid.cooldown (rule, key, tbl, told_at, cooldown_ms) \
         select 'rare', k, '{leaf}', now(), 3600000 from unnest('{{{},{}}}'::text[]) k",
        keys[0], keys[3]
    );
    execute(&target, &stale).await;
    let new = instance(&cluster, 1);
    for _ in 0..2 {
        new.take_cooldowns("feed", &leaf, &from)
            .await
            .expect("they are taken");
        let there = new.cooldowns("feed", &leaf).await.expect("they are read");
        assert_eq!(there.len(), from.len());
        assert!(
            from.iter().all(|one| there.contains(one)),
            "{there:?} is not {from:?}"
        );
    }
    // The rows, as replication brings them: no trigger fires.
    let rows = format!(
        "create table {leaf} partition of feed for values with (modulus 2, remainder {number}); \
         alter table {leaf} disable trigger user; \
         insert into feed (id, c1) values ({}, 11), ({}, 12), ({}, 11); \
         alter table {leaf} enable trigger user",
        keys[0], keys[1], keys[2]
    );
    execute(&target, &rows).await;
    let mut outbox = Outbox::new();
    execute(&target, "update feed set c1 = 1; update feed set c1 = 20").await;
    let mut lines = outbox.lines(&target).await;
    lines.sort();
    // The start of 1 was not told by the source: neither is its end by the target.
    let mut expected = vec![
        format!("-rare {} 1", keys[0]),
        format!("-rare {} 1", keys[2]),
        format!("rare {} 20", keys[2]),
    ];
    expected.sort();
    assert_eq!(lines, expected);
}
