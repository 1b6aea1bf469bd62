//! An outbox in many parts is read a few at a time: by subscribers and by groups, everything once,
//! also what lies in a part that its number would not tell.

use std::collections::BTreeSet;

use pgbraid_proto::v1::{self, Filter, subscribe_request::Start};
use pgbraid_tests::{
    AlertLog, Cluster, ClusterOptions, Member, Seen, Subscriber,
    member::{ack, alert_id, group},
    raised,
};
use tokio_postgres::Client;

const PARTS: i32 = 30;

/// Makes the next part the current one, as routers do, and seals the one before.
async fn rotate(sql: &Client, part: i32, seal: bool) {
    let next = part + 1;
    let make = match next {
        // It is there from the beginning.
        2 => String::new(),
        _ => format!(
            "create table pgbraid.alert_{next} (like pgbraid.alert including all); \
             alter table pgbraid.alert attach partition pgbraid.alert_{next} for values in ({next}); \
             insert into pgbraid.alert_part (part, waits_for) values ({next}, '{{}}');"
        ),
    };
    let seal = match seal {
        false => String::new(),
        true => format!(
            "update pgbraid.alert_part p set sealed_at = now(), alerts = a.alerts, \
             first_seq = a.first_seq, last_seq = a.last_seq, \
             first_xid = (select xid from pgbraid.alert_{part} order by xid limit 1), \
             last_xid = (select xid from pgbraid.alert_{part} order by xid desc limit 1) \
             from (select count(*) as alerts, min(seq) as first_seq, max(seq) as last_seq \
              from pgbraid.alert_{part}) a where p.part = {part};"
        ),
    };
    sql.batch_execute(&format!(
        "{make} select setval('pgbraid.alert_current_part', {next}); \
         update pgbraid.alert_part set closed_at = now(), closed_xid = pg_current_xact_id() \
         where part = {part}; \
         update pgbraid.alert_part set opened_at = now() where part = {next}; {seal}"
    ))
    .await
    .expect("a part can be made");
}

/// Alerts in parts, of which the last `open` are not sealed. In each part there is one that has an
/// older number than the part: its writer was stopped between the two.
async fn fill(cluster: &Cluster, open: i32) {
    let sql = cluster.sql(0).await;
    let insert = "insert into pgbraid.alert (seq, part, feed, rule, rule_version, channel, reason, \
                  key, \"row\") select s, $1, 'feed', 'r', 1, 'c', 'why', 'k', '{}' \
                  from unnest($2::int8[]) s";
    for part in 1..=PARTS {
        let first = i64::from(part) * 10;
        // Number 3 of the part lies in the one after the next two.
        let mut numbers: Vec<i64> = (0..10)
            .map(|at| first + at)
            .filter(|at| at % 10 != 3)
            .collect();
        numbers.extend((part > 3).then_some(first - 27));
        sql.execute(insert, &[&part, &numbers])
            .await
            .expect("alerts are raised");
        if part < PARTS {
            rotate(&sql, part, part <= PARTS - open).await;
        }
    }
    sql.batch_execute("select setval('pgbraid.alert_seq', 100000)")
        .await
        .expect("numbers go on");
}

async fn everything_comes_once(open: i32) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        ..ClusterOptions::default()
    })
    .await;
    fill(&cluster, open).await;
    let router = cluster.router();
    let start = Start::Earliest(v1::Earliest {});
    let subscriber = Subscriber::open(&router, start, Filter::default()).await;
    let log = AlertLog::follow(subscriber.expect("a subscription"), Seen::default());
    let all = log.assert_complete(&cluster).await;
    assert!(log.look(|seen| seen.alerts.values().all(|times| *times == 1)));
    for ordered in [false, true] {
        let name = format!("g{ordered}");
        let settings = v1::Group {
            order_by_key: ordered,
            ..group(&name)
        };
        cluster.put_group(&router, settings).await;
        let mut member = Member::join(&router, &name, "m", 7)
            .await
            .expect("a member");
        let mut taken = Vec::new();
        while taken.len() < all {
            let delivery = member.take(1).await.remove(0);
            taken.push(alert_id(&delivery));
            // One that comes back is found in its part.
            let settled = member.settle(vec![delivery.id], ack()).await;
            assert_eq!(settled.len(), 1);
        }
        assert!(!ordered || taken.is_sorted(), "one key, so one order");
        let taken: BTreeSet<_> = taken.into_iter().collect();
        assert_eq!(taken, raised(&cluster).await);
    }
    assert_eq!(router.stop(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sealed_parts_are_read_once() {
    everything_comes_once(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_still_written_to_are_read_with_them() {
    everything_comes_once(5).await;
}

/// The planner knows nothing of an outbox that was never analyzed, as behind a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_inside_a_window_reads_what_it_takes_without_statistics() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let sql = cluster.sql(0).await;
    sql.batch_execute("alter table pgbraid.alert_1 set (autovacuum_enabled = false)")
        .await
        .expect("it is ours");
    cluster.put_group(&router, group("g")).await;
    for _ in 0..20 {
        cluster.raise(0, 2000, 100).await;
    }
    let claim = "select count(*) from pgbraid.group_claim('g', 'm', 100, 1000000000)";
    let read = "select coalesce(idx_tup_fetch, 0) + seq_tup_read \
                from pg_stat_xact_user_tables where relname = 'alert_1'";
    let number = async |what: &str| {
        let row = sql.query_one(what, &[]).await.expect("it answers");
        row.get::<_, i64>(0)
    };
    // The first opens the window.
    assert_eq!(number(claim).await, 100);
    sql.batch_execute("begin").await.expect("it begins");
    let before = number(read).await;
    assert_eq!(number(claim).await, 100);
    let reads = number(read).await - before;
    sql.batch_execute("commit").await.expect("it commits");
    assert!((100..2000).contains(&reads), "{reads} rows were read");
}
