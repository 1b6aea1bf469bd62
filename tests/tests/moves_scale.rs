//! 4 instances become 6, then 3, under full load: a checker over all acks finds each key's last
//! value in its one place, and each alert of a write that was acked came once to a subscriber and
//! was acked once in a group. `PGBRAID_MOVES_KEYS` asks for more keys than a test run has time for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgbraid_proto::v1::{self, settle_result::Outcome};
use pgbraid_tests::{
    Acked, AlertLog, Cluster, ClusterOptions, Layout, Member, Producer, Router, Seen, Subscriber,
    Writer,
    member::{ack, alert_id, group},
    rows,
    wait::{LIMIT, until},
};
use tokio::{sync::watch, task::JoinSet};

const TABLES: u32 = 16;
const PRODUCERS: usize = 8;
/// Of which this many are cut over at each step, at the least.
const MOVED: usize = 4;
/// One request in so many raises an alert with each of its rows.
const ALERTING: i32 = 500;

fn keys() -> i64 {
    let wanted = std::env::var("PGBRAID_MOVES_KEYS").ok();
    wanted.and_then(|keys| keys.parse().ok()).unwrap_or(8_000)
}

/// A map in which only some instances take tables.
fn map(cluster: &Cluster, taking: usize) -> String {
    let all = cluster.map(cluster.instances(), &[("feed".into(), TABLES)]);
    (taking..cluster.instances().into()).fold(all, |map, name| {
        let head = format!("[instances.db{name}]\n");
        map.replace(&head, &format!("{head}weight = 0\n"))
    })
}

fn migrate(cluster: &Cluster) {
    let config = cluster.config();
    let migrated = pgbraid_tests::run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    let errors = String::from_utf8_lossy(&migrated.stderr);
    assert!(migrated.status.success(), "{errors}");
}

/// Each write of a value is told, whatever was there before.
async fn put_rule(router: &Router) {
    let rule = v1::Rule {
        name: "some".into(),
        feed: "feed".into(),
        expression: format!("c1 % {ALERTING} = 0"),
        channel: "some".into(),
        reason: "it is told".into(),
        mode: v1::RuleMode::Level.into(),
        ..Default::default()
    };
    let put = v1::RulePut {
        rule: Some(rule),
        expected_version: None,
    };
    let request = v1::PutRulesRequest {
        rules: vec![put],
        ..Default::default()
    };
    let mut admin = rows::admin(router).await;
    let answer = admin.put_rules(request).await.expect("the rule is taken");
    assert!(answer.into_inner().pending.is_empty());
}

/// Key and value of an alert.
type Write = (String, i64);

/// Acks all that comes, until it has acked as many as it is told then.
async fn ack_all(
    mut member: Member,
    mut until: watch::Receiver<Option<usize>>,
) -> BTreeMap<(String, i64), Write> {
    let mut acked = BTreeMap::new();
    while until.borrow().is_none_or(|count| acked.len() < count) {
        let some = tokio::select! {
            some = member.some() => some.expect("the stream goes on"),
            _ = until.changed() => continue,
        };
        let ids = some.iter().map(|delivery| delivery.id.clone()).collect();
        for settled in member.settle(ids, ack()).await {
            assert_eq!(settled.outcome(), Outcome::Settled, "{settled:?}");
        }
        for delivery in some {
            let id = alert_id(&delivery);
            let alert = delivery.alert.expect("a delivery has an alert");
            let row: serde_json::Value = serde_json::from_str(&alert.row).expect("JSON");
            let write = (alert.key, row["c1"].as_i64().expect("a number"));
            assert_eq!(acked.insert(id.clone(), write), None, "{id:?} came again");
        }
    }
    acked
}

fn total(acked: &Acked) -> u64 {
    (0..6).map(|instance| acked.of(instance)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_instances_become_six_then_three_and_nobody_notices() {
    let mut options = ClusterOptions::moving(6, TABLES);
    // Six servers on one disk.
    options.settings.push(("max_wal_size", "128MB"));
    let cluster = Cluster::start_bare(&options).await;
    cluster.write_map(&map(&cluster, 4));
    migrate(&cluster);
    let routers: Vec<Arc<Router>> = (0..2).map(|_| Arc::new(cluster.router())).collect();
    put_rule(&routers[0]).await;
    cluster.put_group(&routers[1], group("g")).await;
    let log = AlertLog::follow(Subscriber::now(&routers[0]).await, Seen::default());
    let member = Member::join(&routers[1], "g", "m", 1000).await;
    let (end, until_end) = watch::channel(None);
    let member = tokio::spawn(ack_all(member.expect("joined"), until_end));
    let layout = Layout::of(&cluster, "feed").await;
    let stop = Arc::new(AtomicBool::new(false));
    let acked = Acked::new(layout, 6);
    let mut producers = JoinSet::new();
    for number in 0..PRODUCERS {
        let (router, stop, acked) = (routers[number % 2].clone(), stop.clone(), acked.clone());
        let own = (0..keys()).filter(|key| *key as usize % PRODUCERS == number);
        let mut producer = Producer::new("c1", own.collect());
        producers.spawn(async move {
            let writer = Writer::open(&router).await;
            let time = Duration::from_secs(50);
            let run = producer.run(writer, time, &stop, &acked).await;
            run.expect("the stream goes on");
            producer
        });
    }
    until("every table to have rows", || async {
        (total(&acked) > keys() as u64).then_some(())
    })
    .await;
    let mut pauses = Vec::new();
    for taking in [6, 3] {
        let before = cluster.owners("feed").await;
        cluster.write_map(&map(&cluster, taking));
        let rows = total(&acked);
        cluster.map_done(&["apply"]).await;
        assert!(total(&acked) > rows, "rows are acked meanwhile");
        let after = cluster.owners("feed").await;
        assert!(after.iter().all(|owner| *owner < taking), "{after:?}");
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(moved >= MOVED, "{moved} tables moved");
        for instance in 0..6 {
            let name = format!("db{instance}");
            cluster
                .map_done(&["clean", "--older-than", "0", "--confirm", &name])
                .await;
        }
    }
    let status = cluster
        .map_done(&["status", "--json", "--ended", "1000"])
        .await;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    for one in status["moves"].as_array().expect("moves") {
        assert_eq!(one["outcome"], "done");
        pauses.push(one["pause_us"].as_u64().expect("a pause"));
    }
    pauses.sort_unstable();
    let at = |share: usize| pauses[(pauses.len() - 1) * share / 100] as f64 / 1000.0;
    println!(
        "{} moves, pause ms: p50 {:.1}, p99 {:.1}",
        pauses.len(),
        at(50),
        at(99)
    );
    stop.store(true, Ordering::Relaxed);
    let mut last: BTreeMap<i64, i32> = BTreeMap::new();
    let mut told: BTreeSet<Write> = BTreeSet::new();
    let layout = Layout::of(&cluster, "feed").await;
    while let Some(producer) = producers.join_next().await {
        let producer = producer.expect("the producer ends");
        assert!(producer.refused.is_empty(), "{:?}", producer.refused);
        let keys = (1..=4).flat_map(|request| producer.keys_of(request));
        let tables: BTreeSet<usize> = keys.map(|key| layout.table(key)).collect();
        assert_eq!(tables.len(), TABLES as usize, "it writes every table");
        for request in (1..=producer.requests()).filter(|number| number % ALERTING == 0) {
            let keys = producer.keys_of(request).into_iter();
            told.extend(keys.map(|key| (key.to_string(), i64::from(request))));
        }
        last.extend(producer.keys.iter().copied().zip(producer.acked));
    }
    println!("{} rows acked, {} alerts", total(&acked), told.len());
    assert_eq!(log.assert_complete(&cluster).await, told.len());
    end.send_replace(Some(told.len()));
    let member = tokio::time::timeout(LIMIT, member).await;
    let in_group = member
        .expect("all alerts are acked")
        .expect("the member ends");
    let acked_writes: BTreeSet<Write> = in_group.values().cloned().collect();
    assert_eq!(acked_writes.len(), in_group.len(), "a write was told twice");
    assert!(acked_writes == told, "each write was told, and no other");
    let rows = cluster.rows_everywhere("c1").await;
    assert_eq!(rows.len(), last.len(), "every key is there, and no other");
    for (key, value) in last {
        let expected = vec![(layout.owner(key), value.to_string())];
        assert_eq!(rows[&key], expected, "key {key}");
    }
}
