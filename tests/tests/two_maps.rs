//! Two routers with different maps: each wants every table somewhere else, and no table is made
//! twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, int},
    run,
    wait::until,
};

const INSTANCES: u16 = 3;
const TABLES: u32 = 32;
const ROUNDS: u16 = 4;

/// A map that wants every table of the round's feed in another place than that of another `shift`.
fn map(cluster: &Cluster, feed: &str, shift: u32) -> String {
    let mut map = cluster.map(INSTANCES, &[("first".into(), 1), (feed.into(), TABLES)]);
    let _ = writeln!(map, "[feeds.{feed}.pins]");
    for instance in 0..u32::from(INSTANCES) {
        let tables = (0..TABLES).filter(|table| (table + shift) % u32::from(INSTANCES) == instance);
        let _ = writeln!(map, "db{instance} = {:?}", tables.collect::<Vec<_>>());
    }
    map
}

/// Where each table of the feed is, from all instances: owned once, and made there only.
async fn owners(cluster: &Cluster, feed: &str) -> BTreeMap<i32, usize> {
    let mut owners = BTreeMap::new();
    for instance in 0..usize::from(INSTANCES) {
        let sql = cluster.sql(instance).await;
        let ask = "select tbl from pgbraid.ownership where feed = $1 and state = 'owned'";
        let owned = sql
            .query(ask, &[&feed])
            .await
            .expect("ownership can be read");
        let owned: BTreeSet<i32> = owned.iter().map(|row| row.get(0)).collect();
        let ask = "select substring(inhrelid::regclass::text from '[0-9]+$')::int from pg_inherits \
                   where inhparent = $1::text::regclass";
        let made = sql
            .query(ask, &[&feed])
            .await
            .expect("the catalog can be read");
        let made: BTreeSet<i32> = made.iter().map(|row| row.get(0)).collect();
        assert_eq!(
            owned, made,
            "owned and made tables of {feed} on db{instance}"
        );
        for table in owned {
            let other = owners.insert(table, instance);
            assert_eq!(other, None, "tbl{table} of {feed} is owned twice");
        }
    }
    let ask = "select tbl, instance from pgbraid.claim where feed = $1";
    let claims = cluster.sql(0).await.query(ask, &[&feed]).await;
    for claim in claims.expect("the home has the claims") {
        let owner = owners.get(&claim.get(0)).map(|owner| format!("db{owner}"));
        assert_eq!(
            owner,
            Some(claim.get(1)),
            "tbl{} of {feed}",
            claim.get::<_, i32>(0)
        );
    }
    owners
}

/// Waits until the router knows an owner of every table.
async fn settled(router: &Router, feed: &str) {
    let admin = rows::admin(router).await;
    until("all tables to be owned", || async {
        let status = admin.clone().get_status(v1::GetStatusRequest {}).await;
        let status = status.expect("the router answers").into_inner();
        let state = status.feeds.into_iter().find(|state| state.name == feed);
        let state = state.expect("the feed is there");
        assert_eq!(state.conflicts, [] as [&str; 0]);
        (state.unowned == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_with_different_maps_make_no_table_twice() {
    let feeds: Vec<String> = (0..ROUNDS).map(|round| format!("feed{round}")).collect();
    let schema = std::iter::once("first").chain(feeds.iter().map(String::as_str));
    let schema: Vec<String> = schema
        .map(|feed| {
            format!("create table {feed} (id int8 primary key, a int) partition by hash (id);\n")
        })
        .collect();
    let cluster = Cluster::start(ClusterOptions {
        instances: INSTANCES,
        schema: schema.concat(),
        // The feeds of the rounds are not in this map: nobody has made their tables yet.
        feeds: vec![("first".into(), 1)],
        ..Default::default()
    })
    .await;
    let config = std::fs::read_to_string(cluster.config()).expect("the file is there");
    let config = config.replace("\"shardmap.toml\"", "\"other.toml\"");
    std::fs::write(cluster.path("router2.toml"), config).expect("files can be written");

    for (round, feed) in feeds.iter().enumerate() {
        cluster.write_map(&map(&cluster, feed, 0));
        std::fs::write(cluster.path("other.toml"), map(&cluster, feed, 1))
            .expect("files can be written");
        let starts = [cluster.config(), cluster.path("router2.toml")]
            .map(|config| tokio::task::spawn_blocking(move || Router::start(&config)));
        // In every other round a `migrate` takes part.
        let other = cluster.path("router2.toml");
        let migrate = tokio::task::spawn_blocking(move || {
            let config = other.to_str().expect("UTF-8");
            (round % 2 == 1).then(|| run(&["migrate", "--config", config]))
        });
        let mut routers = Vec::new();
        for start in starts {
            routers.push(start.await.expect("the router starts"));
        }
        if let Some(migrated) = migrate.await.expect("migrate runs") {
            assert!(
                migrated.status.success(),
                "{}",
                String::from_utf8_lossy(&migrated.stderr)
            );
        }
        for router in &routers {
            settled(router, feed).await;
        }
        let owners = owners(&cluster, feed).await;
        assert_eq!(owners.len(), TABLES as usize);
        for router in &routers {
            let mut writer = Writer::open(router).await;
            let keys = (0..1000).map(|key| (int(key), vec![int(key)]));
            writer.write(rows::rows(feed, &["a"], keys)).await;
            let mut admin = rows::admin(router).await;
            for key in 0..20 {
                let request = v1::LocateRequest {
                    feed: feed.clone(),
                    key: key.to_string(),
                };
                let place = admin
                    .locate(request)
                    .await
                    .expect("the key is taken")
                    .into_inner();
                let table: i32 = place
                    .table
                    .trim_start_matches("tbl")
                    .parse()
                    .expect("a number");
                assert_eq!(place.instance, format!("db{}", owners[&table]));
            }
        }
        let stored = cluster.sum(&format!("select count(*) from {feed}")).await;
        assert_eq!(stored, 1000);
    }
}
