//! Rules on rows that others write: psql, other services, roles without any right on pgbraid.

use futures::SinkExt;
use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router,
    rules::{Outbox, cooling, edge, put, resolving},
};
use tokio_postgres::{Client, error::SqlState};

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

/// May write the feed, and nothing else at all.
const PLAIN: &str = "create role plain; \
    grant usage on schema public to plain; \
    grant select, insert, update, delete, truncate on public.feed to plain; ";

#[tokio::test]
async fn a_role_that_may_only_write_the_feed_raises_alerts() {
    let (cluster, router, sql) = start().await;
    let both = cooling(resolving("both", "c1 > 10"));
    put(&router, [resolving("high", "c1 > 10"), both])
        .await
        .expect("the rules are taken");
    let other = cluster
        .postgres
        .connect(0, true, "pgbraid")
        .await
        .expect("db0 answers");
    execute(&other, PLAIN).await;
    execute(&other, "set session authorization plain").await;
    let mut outbox = Outbox::new();
    execute(&other, "insert into public.feed (id, c1) values (1, 11)").await;
    execute(&other, "update public.feed set c1 = 1 where id = 1").await;
    execute(&other, "update public.feed set c1 = 12 where id = 1").await;
    execute(&other, "delete from public.feed where id = 1").await;
    let told = [
        "both 1 11",
        "-both 1 1",
        "high 1 11",
        "-high 1 1",
        "high 1 12",
        "-high 1 12",
    ];
    let mut lines = outbox.lines(&sql).await;
    lines.sort_by_key(|line| {
        line.trim_start_matches('-')
            .split(' ')
            .next()
            .map(str::to_owned)
    });
    assert_eq!(lines, told);
    // It can neither see nor forge what is told, nor get at the function.
    for forbidden in [
        "select from pgbraid.alert",
        "insert into pgbraid.alert (feed, rule, rule_version, channel, reason, key, \"row\") \
         values ('feed', 'high', 1, 'a', '', '1', '{}')",
        "delete from pgbraid.cooldown",
        "alter table public.feed disable trigger pgbraid_rules_insert",
        "set session_replication_role = replica",
        "create temp table mine (id int8, c1 int); create trigger forge after insert on mine \
         for each row execute function pgbraid.rules_feed()",
    ] {
        let refused = other.batch_execute(forbidden).await.expect_err(forbidden);
        let state = refused.code().cloned();
        assert_eq!(
            state,
            Some(SqlState::INSUFFICIENT_PRIVILEGE),
            "{forbidden}: {refused:?}"
        );
    }
}

/// Names that a writer puts in the way of those that the rules use.
#[tokio::test]
async fn a_writers_search_path_changes_nothing() {
    let (cluster, router, sql) = start().await;
    let rules = [
        resolving("high", "c1 > 10"),
        cooling(edge("rare", "abs(c1) > 10")),
    ];
    put(&router, rules).await.expect("the rules are taken");
    let other = cluster
        .postgres
        .connect(0, true, "pgbraid")
        .await
        .expect("db0 answers");
    execute(&other, PLAIN).await;
    execute(
        &other,
        "create schema trap; grant all on schema trap to plain",
    )
    .await;
    execute(&other, "set session authorization plain").await;
    execute(
        &other,
        "create function trap.never(int, int) returns bool language sql as 'select false'; \
         create operator trap.> (leftarg = int, rightarg = int, function = trap.never)",
    )
    .await;
    execute(
        &other,
        "create function trap.abs(int) returns int language sql as 'select 0'; \
         create function trap.row_to_json(anyelement) returns json language sql as $$select '{}'::json$$; \
         create function trap.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz'; \
         create function trap.pg_notify(text, text) returns void language sql as 'select 1 / 0'; \
         create temp table alert (x int); create temp table cooldown (x int); \
         create domain trap.text as int; \
         set search_path = trap, pg_temp, pg_catalog, public",
    )
    .await;
    let mut outbox = Outbox::new();
    execute(&other, "insert into public.feed (id, c1) values (1, 11)").await;
    execute(&other, "update public.feed set c1 = 1").await;
    execute(&other, "update public.feed set c1 = 13").await;
    let lines = outbox.lines(&sql).await;
    assert_eq!(lines, ["high 1 11", "rare 1 11", "-high 1 1", "high 1 13"]);
}

/// Every way to write a row, through the parent and into a partition.
#[tokio::test]
async fn every_statement_is_seen() {
    let (_cluster, router, sql) = start().await;
    put(&router, [resolving("high", "c1 > 10")])
        .await
        .expect("the rule is taken");
    let mut outbox = Outbox::new();
    let sink = sql
        .copy_in("copy feed (id, c1) from stdin")
        .await
        .expect("copy begins");
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes::Bytes::from_static(b"1\t11\n2\t5\n3\t\\N\n"))
        .await
        .expect("rows go");
    sink.close().await.expect("copy ends");
    assert_eq!(outbox.lines(&sql).await, ["high 1 11"], "copy");
    let table = sql
        .query_one(
            "select tableoid::regclass::text from feed where id = 2",
            &[],
        )
        .await;
    let table: String = table.expect("row 2 is there").get(0);
    let steps: [(&str, &[&str]); 9] = [
        ("update {t} set c1 = 12 where id = 2", &["high 2 12"]),
        (
            "insert into {t} (id, c1) values (2, 5) on conflict (id) do update set c1 = excluded.c1",
            &["-high 2 5"],
        ),
        (
            "insert into feed (id, c1) values (1, 99) on conflict (id) do nothing",
            &[],
        ),
        (
            "insert into feed (id, c1) values (1, 9) on conflict (id) do update set c1 = 9 where false",
            &[],
        ),
        ("update feed set c1 = c1 where true", &[]),
        (
            "with a as (update feed set c1 = 20 where id = 2 returning 1) delete from feed where id = 1",
            &["-high 1 11", "high 2 20"],
        ),
        ("update feed set c1 = null where id = 2", &["-high 2 null"]),
        (
            "insert into feed (id, c1) select 2, 30 on conflict (id) do update set c1 = 30",
            &["high 2 30"],
        ),
        (
            "update feed set id = id + 1000000 where id = 2",
            &["-high 2 30", "high 1000002 30"],
        ),
    ];
    for (step, expected) in steps {
        execute(&sql, &step.replace("{t}", &table)).await;
        let mut lines = outbox.lines(&sql).await;
        lines.sort();
        assert_eq!(lines, expected, "{step}");
    }
}

/// A key that changes is one row's end and another's start, whether both are in one partition,
/// where PostgreSQL makes an update of it, or not, where it makes a delete and an insert.
#[tokio::test]
async fn a_changed_key_is_another_row_in_any_partition() {
    let (_cluster, router, sql) = start().await;
    let level = v1::Rule {
        mode: v1::RuleMode::Level.into(),
        ..edge("level", "c1 > 10")
    };
    // Alone at first: the others make the triggers look at more.
    let alone = [resolving("high", "c1 > 10"), edge("plain", "c1 > 10")];
    put(&router, alone).await.expect("the rules are taken");
    let mut others = vec![edge("rise", "old.id < id"), level];
    let of_table = |number: u32| {
        format!(
            "select array_agg(i) from (select i from generate_series(1, 100) i where \
        satisfies_hash_partition('feed'::regclass, 2, {number}, i::int8) limit 2) x"
        )
    };
    let mut keys = Vec::new();
    for number in 0..2 {
        let found = sql
            .query_one(&of_table(number), &[])
            .await
            .expect("keys are found");
        keys.push(found.get::<_, Vec<i32>>(0));
    }
    let mut outbox = Outbox::new();
    let (a, b) = (&keys[0], &keys[1]);
    for (from, to, more) in [
        (a[0], a[1], false),
        (a[1], b[0], false),
        (a[0], a[1], true),
        (a[1], b[0], true),
    ] {
        if more {
            put(&router, others.drain(..))
                .await
                .expect("the rules are taken");
        }
        let fresh = format!("delete from feed; insert into feed (id, c1) values ({from}, 11)");
        execute(&sql, &fresh).await;
        outbox.next(&sql).await;
        execute(
            &sql,
            &format!("update feed set id = {to} where id = {from}"),
        )
        .await;
        let mut expected = vec![
            format!("-high {from} 11"),
            format!("high {to} 11"),
            format!("plain {to} 11"),
        ];
        if more {
            expected.insert(2, format!("level {to} 11"));
        }
        assert_eq!(outbox.lines(&sql).await, expected, "{from} to {to}");
    }
}

/// TRUNCATE has no rows: it tells nothing, and what comes after it starts anew.
#[tokio::test]
async fn truncate_tells_nothing() {
    let (_cluster, router, sql) = start().await;
    let rules = [
        resolving("high", "c1 > 10"),
        cooling(edge("rare", "c1 > 10")),
    ];
    put(&router, rules).await.expect("the rules are taken");
    let mut outbox = Outbox::new();
    execute(&sql, "insert into feed (id, c1) values (1, 11)").await;
    assert_eq!(outbox.lines(&sql).await, ["high 1 11", "rare 1 11"]);
    execute(&sql, "truncate feed").await;
    assert!(outbox.next(&sql).await.is_empty());
    execute(&sql, "insert into feed (id, c1) values (1, 12)").await;
    // A cool-down is of a key, not of a row.
    assert_eq!(outbox.lines(&sql).await, ["high 1 12"]);
}

/// NULL is neither a match nor the end of one that was none.
#[tokio::test]
async fn null_is_no_match() {
    let (_cluster, router, sql) = start().await;
    let rules = [
        resolving("high", "c1 > 10"),
        resolving("not_high", "not (c1 > 10)"),
        resolving("none", "c1 is null"),
        resolving("either", "c1 > 10 or c2 > 10"),
    ];
    put(&router, rules).await.expect("the rules are taken");
    let mut outbox = Outbox::new();
    let steps: [(&str, &[&str]); 5] = [
        ("insert into feed (id) values (1)", &["none 1 null"]),
        ("update feed set c2 = 11", &["either 1 null"]),
        ("update feed set c1 = 1", &["-none 1 1", "not_high 1 1"]),
        (
            "update feed set c1 = 11, c2 = null",
            &["-not_high 1 11", "high 1 11"],
        ),
        (
            "update feed set c1 = null",
            &["-either 1 null", "-high 1 null", "none 1 null"],
        ),
    ];
    for (step, expected) in steps {
        execute(&sql, step).await;
        let mut lines = outbox.lines(&sql).await;
        lines.sort();
        assert_eq!(lines, expected, "{step}");
    }
}
