//! Who follows a feed goes on when one of its tables moves: alerts, groups, changes.

use std::collections::BTreeSet;

use pgbraid_client::{ChangeEvent, ChangeFollower, Client, ClientConfig, FollowOptions};
use pgbraid_tests::{
    AlertLog, Cluster, ClusterOptions, Layout, Member, Router, Seen, Subscriber, Writer,
    member::{ack, alert_id, group},
    raised,
    rows::{self, int},
    run,
    wait::limited,
};

/// Pins the tables, and tells changes.
fn pin(cluster: &Cluster, owners: &[usize]) {
    cluster.pin("feed", owners);
    let path = cluster.path("shardmap.toml");
    let map = std::fs::read_to_string(path).expect("the map");
    cluster.write_map(&map.replace("tables = 4", "tables = 4\nchanges = true"));
}

async fn follow(router: &Router) -> ChangeFollower {
    let client = Client::connect(ClientConfig::new(format!("http://{}", router.grpc))).await;
    let options = FollowOptions {
        feeds: vec!["feed".into()],
        ..FollowOptions::default()
    };
    let follower = ChangeFollower::start(client.expect("a router"), options).await;
    follower.expect("the feed tells of its changes")
}

/// Waits until an instance says that nothing is missing from here on.
async fn live(follower: &mut ChangeFollower, instance: &str) {
    loop {
        let event = limited("an event", follower.next()).await;
        if let ChangeEvent::Live(live) = event.expect("the stream goes on")
            && live.instance == instance
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_groups_and_changes_follow_a_table_to_its_new_owner() {
    let cluster = Cluster::start(ClusterOptions::moving(2, 4)).await;
    let owners = cluster.owners("feed").await;
    pin(&cluster, &owners);
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    assert!(migrated.status.success(), "{migrated:?}");
    let router = cluster.router();
    let layout = Layout::of(&cluster, "feed").await;
    let keys = layout.keys(40, |layout, key| layout.table(key) == 0);
    cluster
        .put_rules(&router, "feed", &[("high", "c1 >= 10", "c")])
        .await;
    let ordered = pgbraid_proto::v1::Group {
        order_by_key: true,
        ..group("g")
    };
    cluster.put_group(&router, ordered).await;
    let log = AlertLog::follow(Subscriber::now(&router).await, Seen::default());
    let mut writer = Writer::open(&router).await;
    let upsert = |keys: &[i64], value: i64| {
        let rows = keys.iter().map(|key| (int(*key), vec![int(value)]));
        rows::rows("feed", &["c1"], rows)
    };
    // Some match before the move, and must not be told again by it.
    writer.write(upsert(&keys[..20], 10)).await;
    writer.write(upsert(&keys[20..], 1)).await;

    let mut wanted = owners.clone();
    wanted[0] = 1 - owners[0];
    let new = format!("db{}", wanted[0]);
    pin(&cluster, &wanted);
    cluster.map_done(&["apply"]).await;

    let mut follower = follow(&router).await;
    live(&mut follower, &new).await;
    // Written at the new owner, past the router: its triggers are there.
    let there = cluster.sql(wanted[0]).await;
    let changed = there
        .execute("update feed set c1 = 12 where id = any ($1)", &[&keys])
        .await;
    assert_eq!(changed.expect("the new owner takes writes"), 40);
    let mut told = BTreeSet::new();
    while told.len() < 40 {
        match limited("a change", follower.next())
            .await
            .expect("the stream goes on")
        {
            ChangeEvent::Changes(batch) => {
                assert_eq!(batch.instance, new);
                told.extend(
                    batch
                        .changes
                        .iter()
                        .flat_map(|some| some.keys.iter().cloned()),
                );
            }
            ChangeEvent::Reset(reset) => panic!("missing: {reset:?}"),
            _ => {}
        }
    }
    let expected: BTreeSet<String> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(told, expected);

    // Each key matched once: twenty before, twenty after.
    let all = raised(&cluster).await;
    assert_eq!(all.len(), 40, "{all:?}");
    assert_eq!(log.assert_complete(&cluster).await, 40);
    let mut member = Member::join(&router, "g", "m", 100).await.expect("joined");
    let mut acked = BTreeSet::new();
    while acked.len() < 40 {
        let delivery = member.next().await.expect("a delivery");
        assert!(acked.insert(alert_id(&delivery)), "twice: {delivery:?}");
        member.settle(vec![delivery.id], ack()).await;
    }
    assert_eq!(acked, all);
}
