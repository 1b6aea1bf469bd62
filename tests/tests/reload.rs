//! The shard map changes while the router serves.

use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;
use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Layout, Router, Subscriber, Writer,
    rows::{self, int},
    run,
    wait::until,
};

async fn status(router: &Router) -> v1::GetStatusResponse {
    let status = rows::admin(router)
        .await
        .get_status(v1::GetStatusRequest {})
        .await;
    status.expect("the status is there").into_inner()
}

/// Waits until the router says of its last reload what it should.
async fn refused(router: &Router, case: &str, part: &str) {
    until(&format!("{case}: an error with {part:?}"), || async {
        status(router).await.map_error.contains(part).then_some(())
    })
    .await;
    assert_eq!(
        router.metric("pgbraid_map_reload_failed", &[]),
        1.0,
        "{case}"
    );
}

async fn taken(router: &Router, what: &str) -> v1::GetStatusResponse {
    let status = until(&format!("{what} to be in force"), || async {
        let status = status(router).await;
        status.map_error.is_empty().then_some(status)
    })
    .await;
    assert_eq!(
        router.metric("pgbraid_map_reload_failed", &[]),
        0.0,
        "{what}"
    );
    status
}

async fn fingerprint(router: &Router, old: &str) -> String {
    until("another map to be in force", || async {
        let now = status(router).await.map_fingerprint;
        (now != old).then_some(now)
    })
    .await
}

/// Writes to every table.
async fn write_everywhere(router: &Router, value: i64) {
    let mut writer = Writer::open(router).await;
    let all = (0..200).map(|key| (int(key), vec![int(value)]));
    writer.write(rows::rows("feed", &["c1"], all)).await;
}

fn migrate(cluster: &Cluster) {
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    let message = String::from_utf8_lossy(&migrated.stderr);
    assert!(migrated.status.success(), "migrate failed:\n{message}");
}

#[tokio::test]
async fn a_wrong_map_is_refused_and_the_old_one_stays() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let good = cluster.map(2, &[("feed".into(), 16)]);
    let before = status(&router).await.map_fingerprint;
    let one = cluster.map(1, &[("feed".into(), 16)]);
    let wrong = [
        (
            "not TOML",
            "[instances.db0\n".to_owned(),
            "shardmap.toml:1:",
        ),
        ("nothing", String::new(), "no instances"),
        ("an unknown setting", good.replace("port", "prot"), "prot"),
        (
            "another number of tables",
            good.replace("tables = 16", "tables = 17"),
            "16 tables",
        ),
        ("an owner taken out", one, "db1 is not in the file"),
        (
            "an unknown instance",
            format!("{good}[feeds.feed.pins]\ndb9 = [1]\n"),
            "db9",
        ),
        (
            "an overlap",
            format!("{good}[feeds.feed.pins]\ndb0 = [1]\ndb1 = [\"0-3\"]\n"),
            "1",
        ),
        (
            "a table beyond the last",
            format!("{good}[feeds.feed.pins]\ndb0 = [16]\n"),
            "16",
        ),
    ];
    for (number, (case, map, part)) in wrong.into_iter().enumerate() {
        cluster.write_map(&map);
        refused(&router, case, part).await;
        assert_eq!(status(&router).await.map_fingerprint, before, "{case}");
        write_everywhere(&router, number as i64).await;
    }
    std::fs::remove_file(cluster.path("shardmap.toml")).expect("the map can be removed");
    refused(&router, "no file", "cannot read").await;
    // As it was again: nothing to do, but right.
    cluster.write_map(&good);
    taken(&router, "the map as it was").await;
    assert_eq!(status(&router).await.map_fingerprint, before);
    cluster.write_map("broken");
    refused(&router, "once more", "shardmap.toml:1:").await;
    cluster.write_map(&good.replacen("[instances.db1]", "[instances.db1]\nweight = 3", 1));
    let now = fingerprint(&router, &before).await;
    assert_eq!(taken(&router, "a corrected map").await.map_fingerprint, now);
    write_everywhere(&router, 100).await;
    assert!(router.metric("pgbraid_map_reloads_total", &["refused"]) >= 9.0);
    assert_eq!(
        router.metric("pgbraid_map_reloads_total", &["applied"]),
        1.0
    );
    assert_eq!(router.stop(), 0);
}

#[tokio::test]
async fn a_hangup_reloads_a_map_that_is_not_watched() {
    let cluster = Cluster::start(ClusterOptions {
        config: "[map]\nwatch = false\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    let mut now = status(&router).await.map_fingerprint;
    for weight in 2..5 {
        let good = cluster.map(2, &[("feed".into(), 16)]);
        cluster.write_map(&good.replacen("db1]", &format!("db1]\nweight = {weight}"), 1));
        router.signal(Signal::SIGHUP);
        now = fingerprint(&router, &now).await;
    }
    cluster.write_map("broken");
    router.signal(Signal::SIGHUP);
    refused(&router, "a broken file", "shardmap.toml:1:").await;
    write_everywhere(&router, 1).await;
    assert_eq!(router.stop(), 0);
}

/// Kubernetes mounts a ConfigMap as links through `..data`, and swaps that link.
#[tokio::test]
async fn a_config_map_is_followed() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let good = cluster.map(2, &[("feed".into(), 16)]);
    let publish = |folder: &str, map: &str| {
        std::fs::create_dir(cluster.path(folder)).expect("a folder can be made");
        std::fs::write(cluster.path(folder).join("shardmap.toml"), map).expect("a file");
        symlink(folder, cluster.path("..data_tmp")).expect("a link");
        std::fs::rename(cluster.path("..data_tmp"), cluster.path("..data")).expect("a swap");
    };
    publish("..2026_1", &good);
    std::fs::remove_file(cluster.path("shardmap.toml")).expect("the file makes room");
    symlink("..data/shardmap.toml", cluster.path("shardmap.toml")).expect("a link");
    let router = cluster.router();
    let mut now = status(&router).await.map_fingerprint;
    for weight in 2..5 {
        let map = good.replacen(
            "[instances.db1]",
            &format!("[instances.db1]\nweight = {weight}"),
            1,
        );
        publish(&format!("..2026_{weight}"), &map);
        now = fingerprint(&router, &now).await;
        taken(&router, "the swapped map").await;
    }
    publish("..2026_9", "broken");
    refused(&router, "a broken ConfigMap", "shardmap.toml:1:").await;
    publish("..2026_10", &good);
    taken(&router, "the mended ConfigMap").await;
    write_everywhere(&router, 1).await;
}

#[tokio::test]
async fn drift_follows_the_pins_and_rows_follow_the_tables() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let layout = Layout::of(&cluster, "feed").await;
    write_everywhere(&router, 1).await;
    let mut owners = [usize::MAX; 16];
    for key in 0..10_000 {
        owners[layout.table(key)] = layout.owner(key);
    }
    let moved: Vec<usize> = (0..16)
        .filter(|table| owners[*table] == 0)
        .take(3)
        .collect();
    let pins = |instance: usize, moved: &[usize]| {
        let wanted = |table: &usize| {
            let there = if moved.contains(table) {
                1
            } else {
                owners[*table]
            };
            there == instance
        };
        let tables: Vec<String> = (0..16)
            .filter(wanted)
            .map(|table| table.to_string())
            .collect();
        format!("db{instance} = [{}]\n", tables.join(", "))
    };
    let map = |moved: &[usize]| {
        let good = cluster.map(2, &[("feed".into(), 16)]);
        format!(
            "{good}[feeds.feed.pins]\n{}{}",
            pins(0, moved),
            pins(1, moved)
        )
    };
    let mut now = status(&router).await.map_fingerprint;
    for (moved, wanted) in [(&moved[..], 3), (&[], 0), (&moved[..1], 1)] {
        cluster.write_map(&map(moved));
        now = fingerprint(&router, &now).await;
        until(&format!("a drift of {wanted}"), || async {
            let drift = router.metric("pgbraid_map_drift_tables", &["\"feed\""]);
            (drift == f64::from(wanted)).then_some(())
        })
        .await;
        assert_eq!(status(&router).await.feeds[0].drift, wanted);
        write_everywhere(&router, 2 + i64::from(wanted)).await;
    }
    assert_eq!(router.metric("pgbraid_tables_owned", &[]), 16.0);
    let feed = "select count(*) from public.feed where c1 = 3";
    assert_eq!(
        cluster.sum(feed).await,
        200,
        "each row is where it was, once"
    );
    assert_eq!(cluster.sum("select count(*) from public.feed").await, 200);
}

/// The map of two instances gets a third, and then a feed.
#[tokio::test]
async fn an_added_instance_and_an_added_feed_appear() {
    let options = ClusterOptions {
        instances: 3,
        schema: "create table feed (id int8 primary key, c1 int) partition by hash (id);\n\
                 create table more (id int8 primary key, c1 int) partition by hash (id);"
            .into(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start_bare(&options).await;
    let feed = ("feed".to_owned(), 16);
    cluster.write_map(&cluster.map(2, std::slice::from_ref(&feed)));
    migrate(&cluster);
    let router = cluster.router();
    cluster
        .put_rules(&router, "feed", &[("high", "c1 > 10", "a")])
        .await;
    let mut subscriber = Subscriber::now(&router).await;
    let before = status(&router).await.map_fingerprint;

    // In the map before it was migrated: an SRE forgot, or does it in this order.
    cluster.write_map(&cluster.map(3, std::slice::from_ref(&feed)));
    fingerprint(&router, &before).await;
    until("the router to tell what is wrong with db2", || async {
        let state = status(&router).await.instances.pop()?;
        let told = state.error.contains("pgbraid migrate") && !state.writable;
        (state.name == "db2" && told).then_some(())
    })
    .await;
    write_everywhere(&router, 11).await;
    assert_eq!(subscriber.alerts(200).await.len(), 200);
    migrate(&cluster);
    until("db2 to be all right", || async {
        let state = status(&router).await.instances.pop()?;
        (state.writable && state.readable && state.error.is_empty()).then_some(())
    })
    .await;
    assert_eq!(
        router.metric("pgbraid_tables_owned", &["\"db2\""]),
        0.0,
        "tables stay"
    );
    assert!(
        router.metric("pgbraid_map_drift_tables", &["\"feed\""]) > 0.0,
        "db2 should have some"
    );
    let rules = "select string_agg(name, ',') from pgbraid.rule";
    let row = cluster
        .sql(2)
        .await
        .query_one(rules, &[])
        .await
        .expect("db2 has rules");
    assert_eq!(row.get::<_, Option<String>>(0).as_deref(), Some("high"));

    // The parent is there; its tables are made by the router.
    let now = status(&router).await.map_fingerprint;
    cluster.write_map(&cluster.map(3, &[feed, ("more".into(), 24)]));
    fingerprint(&router, &now).await;
    until("the new feed's tables to be made", || async {
        let status = status(&router).await;
        let more = status.feeds.iter().find(|feed| feed.name == "more")?;
        (more.tables == 24 && more.unowned == 0 && more.drift == 0).then_some(())
    })
    .await;
    assert!(router.metric("pgbraid_tables_owned", &["\"db2\""]) > 0.0);
    cluster
        .put_rules(&router, "more", &[("low", "c1 < 0", "b")])
        .await;
    let mut writer = Writer::open(&router).await;
    let all = (0..100).map(|key| (int(key), vec![int(-1)]));
    writer.write(rows::rows("more", &["c1"], all)).await;
    let alerts = subscriber.alerts(100).await;
    assert!(
        alerts
            .iter()
            .all(|alert| alert.rule == "low" && alert.feed == "more")
    );
    assert!(
        alerts.iter().any(|alert| alert.instance == "db2"),
        "db2 raises alerts"
    );
    assert_eq!(router.stop(), 0);
}

#[tokio::test]
async fn rules_outlive_the_router() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let rules = [
        ("one", "c1 > 10", "a"),
        ("two", "c2 is null and c1 = 3", "b"),
    ];
    cluster.put_rules(&router, "feed", &rules).await;
    let list = async |router: &Router| {
        let rules = rows::admin(router)
            .await
            .list_rules(v1::ListRulesRequest::default())
            .await;
        let rules = rules.expect("rules are listed").into_inner();
        assert!(rules.pending.is_empty(), "pending: {:?}", rules.pending);
        rules.rules
    };
    let before = list(&router).await;
    assert_eq!(before.len(), 2);
    assert_eq!(router.stop(), 0);
    let router = cluster.router();
    assert_eq!(list(&router).await, before);
    let mut subscriber = Subscriber::now(&router).await;
    write_everywhere(&router, 11).await;
    let alerts = subscriber.alerts(200).await;
    assert!(
        alerts
            .iter()
            .all(|alert| alert.rule == "one" && alert.rule_version == 1)
    );
}
