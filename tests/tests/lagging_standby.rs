//! A standby that was behind is promoted: what its primary raised last is gone, and its numbers must
//! not come again for something else. Whoever drops repeats by (instance, seq) misses nothing.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use pgbraid_proto::v1::{self, Filter, subscribe_request::Start};
use pgbraid_tests::{
    AlertLog, Cluster, ClusterOptions, Member, Router, Seen, Standby, Subscriber,
    member::{ack, alert_id, group},
    rows,
    wait::until,
};
use tokio_postgres::Client;

const RAISE: &str = "insert into pgbraid.alert \
    (feed, rule, rule_version, channel, reason, key, \"row\") \
    select 'feed', 'r', 1, 'c', 'why', i::text, '{}' from generate_series($1::int8, $2) i";

/// Raises alerts with these keys, each in a transaction of its own where `each` says so: they take
/// transaction ids as well as numbers.
async fn raise(sql: &Client, keys: std::ops::RangeInclusive<i64>, each: bool) {
    let (first, last) = (*keys.start(), *keys.end());
    if each {
        for key in keys {
            sql.execute(RAISE, &[&key, &key]).await.expect("an alert");
        }
    } else {
        sql.execute(RAISE, &[&first, &last]).await.expect("alerts");
    }
    sql.batch_execute("notify pgbraid_alert")
        .await
        .expect("a notification");
}

/// The alerts that an instance has: key of each number.
async fn kept(sql: &Client) -> BTreeMap<i64, String> {
    let rows = sql.query("select seq, key from pgbraid.alert", &[]).await;
    let rows = rows.expect("the outbox can be read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn numbers(alerts: &BTreeMap<i64, String>) -> BTreeSet<(String, i64)> {
    alerts.keys().map(|seq| ("db0".to_owned(), *seq)).collect()
}

/// Uses up so many transaction ids.
async fn burn(sql: &Client, ids: u32) {
    let sql_text = format!(
        "create temp table if not exists burnt (i int); \
         do $$ begin for i in 1..{ids} loop \
           begin insert into burnt values (i); exception when division_by_zero then null; end; \
         end loop; end $$; drop table burnt"
    );
    sql.batch_execute(&sql_text).await.expect("ids are used");
}

/// From here on the standby hears nothing: what its primary does now will be lost.
async fn cut_off(primary: &Client, standby: &Standby) {
    let row = primary.query_one("select pg_current_wal_lsn()::text", &[]);
    let position: String = row.await.expect("a position").get(0);
    let replayed = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
    let sql = standby.sql().await;
    until("the standby to have all", || async {
        let row = sql.query_one(replayed, &[&position]).await;
        row.expect("it reads").get::<_, bool>(0).then_some(())
    })
    .await;
    standby.cut_off();
    until("the standby to be cut off", || async {
        let receivers = sql.query_one("select count(*) from pg_stat_wal_receiver", &[]);
        let receivers: i64 = receivers.await.expect("it reads").get(0);
        (receivers == 0).then_some(())
    })
    .await;
}

async fn put_rule(router: &Router, name: &str) {
    let rule = v1::Rule {
        name: name.into(),
        feed: "feed".into(),
        expression: "c1 > 0".into(),
        channel: "c".into(),
        reason: "r".into(),
        ..Default::default()
    };
    let put = v1::PutRulesRequest {
        rules: vec![v1::RulePut {
            rule: Some(rule),
            expected_version: None,
        }],
        ..Default::default()
    };
    until("a rule to be taken", || async {
        rows::admin(router).await.put_rules(put.clone()).await.ok()
    })
    .await;
}

async fn has(sql: &Client, what: &str, query: &str) {
    until(what, || async {
        let found: i64 = sql.query_one(query, &[]).await.ok()?.get(0);
        (found > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lagging_standby_raises_is_never_taken_for_what_was_lost() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 2,
        config: "connect_timeout = \"1s\"\n[alerts]\nheartbeat = \"200ms\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let standby = Standby::of(&cluster, 0).await;
    let feeds = [("feed".to_owned(), 16)];
    let port = cluster.postgres.instances()[0].port();
    let alone = format!("host = \"127.0.0.1\"\nport = {port}\n");
    let both = format!(
        "hosts = [\"127.0.0.1:{port}\", \"127.0.0.1:{}\"]\n",
        standby.port()
    );
    cluster.write_map(&cluster.map(2, &feeds).replace(&alone, &both));
    let router = cluster.router();
    put_rule(&router, "kept").await;
    let settings = v1::Group {
        visibility_timeout: std::time::Duration::from_secs(2).try_into().ok(),
        filter: Some(Filter {
            instances: vec!["db0".into()],
            ..Filter::default()
        }),
        ..group("g")
    };
    cluster.put_group(&router, settings).await;

    let primary = cluster.sql(0).await;
    raise(&primary, 1..=100, false).await;
    let start = Start::Earliest(v1::Earliest {});
    let subscriber = Subscriber::open(&router, start, Filter::default()).await;
    let log = AlertLog::follow(subscriber.expect("a subscription"), Seen::default());
    log.until("what is kept", |seen| seen.alerts.len() >= 100)
        .await;
    let mut member = Member::join(&router, "g", "old", 1)
        .await
        .expect("a member");
    for _ in 0..20 {
        let delivery = member.take(1).await.remove(0);
        member.settle(vec![delivery.id], ack()).await;
    }

    cut_off(&primary, &standby).await;
    put_rule(&router, "lost").await;
    let other = cluster.sql(1).await;
    let rule = |name: &str| format!("select count(*) from pgbraid.rule where name = '{name}'");
    has(&other, "the rule to be copied", &rule("lost")).await;
    // More than a rewind without knowledge would go back by.
    burn(&primary, 150_000).await;
    raise(&primary, 101..=200, true).await;
    let old = log
        .until("what is lost", |seen| seen.alerts.len() >= 200)
        .await;
    for _ in 0..50 {
        let delivery = member.take(1).await.remove(0);
        member.settle(vec![delivery.id], ack()).await;
    }
    let held = member.take(1).await.remove(0);
    let row = primary.query_one("select max(id) from pgbraid.group_claim", &[]);
    let claims: i64 = row.await.expect("a claim").get(0);

    cluster.postgres.kill9(0).await.expect("db0 can be killed");
    standby.promote(&cluster, 0).await;
    let sql = standby.sql().await;
    let there = kept(&sql).await;
    assert!(
        there.len() == 100,
        "the standby was not behind: {}",
        there.len()
    );
    raise(&sql, 1001..=1100, false).await;
    burn(&sql, 200_000).await;
    raise(&sql, 1101..=1150, false).await;

    // Who follows, and who comes back with a position that is ahead of where the histories part.
    let all = kept(&sql).await;
    let lost: BTreeSet<_> = old.alerts.keys().cloned().collect();
    let lost: BTreeSet<_> = lost.difference(&numbers(&there)).cloned().collect();
    assert_eq!(lost.len(), 100);
    let again: Vec<_> = lost.intersection(&numbers(&all)).cloned().collect();
    assert!(again.is_empty(), "numbers that were given twice: {again:?}");
    let wanted = numbers(&all);
    let complete = |seen: &Seen| wanted.iter().all(|alert| seen.alerts.contains_key(alert));
    let seen = log.until("what the new primary has", complete).await;
    assert_eq!(seen.alerts.len(), all.len() + lost.len());
    router.signal(Signal::SIGKILL);
    let router = cluster.router();
    let start = Start::Token(old.token.clone());
    let subscriber = Subscriber::open(&router, start, Filter::default()).await;
    let log = AlertLog::follow(subscriber.expect("the token is taken"), old);
    let seen = log.until("what the new primary has, later", complete).await;
    assert_eq!(seen.rewound, ["db0"]);

    // The group goes on from what the standby knew of it; what was acked since comes again.
    let mut member = Member::join(&router, "g", "new", 50)
        .await
        .expect("a member");
    let stale = member.settle(vec![held.id], ack()).await.remove(0);
    assert_ne!(stale.outcome(), v1::settle_result::Outcome::Settled);
    let mut acked = BTreeSet::new();
    while acked.len() < all.len() - 20 {
        let delivery = member.take(1).await.remove(0);
        acked.insert(alert_id(&delivery));
        let row = sql.query_one(
            "select min(id) from pgbraid.group_claim where member = 'new'",
            &[],
        );
        let first: Option<i64> = row.await.expect("SQL").get(0);
        assert!(
            first.is_none_or(|first| first > claims),
            "claims are numbered as before"
        );
        let settled = member.settle(vec![delivery.id], ack()).await.remove(0);
        assert_eq!(settled.outcome(), v1::settle_result::Outcome::Settled);
    }
    assert!(acked.is_subset(&wanted));

    // An edit of the home that was lost is not in the way of the next one.
    put_rule(&router, "later").await;
    has(&other, "the next edit to be copied", &rule("later")).await;
    let left: i64 = other
        .query_one(&rule("lost"), &[])
        .await
        .expect("SQL")
        .get(0);
    assert_eq!(left, 0, "what the home does not have any more");
    assert_eq!(router.stop(), 0);
}
