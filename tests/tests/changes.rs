//! The change stream: what it tells, in which order, and when it says RESET.

use std::time::Duration;

use pgbraid_client::{ChangeEvent, ChangeFollower, Client, ClientConfig, FollowOptions, proto};
use pgbraid_proto::v1::{Filter, subscribe_request::Start, subscribe_response::Event};
use pgbraid_tests::{
    Cluster, ClusterOptions, Layout, Router, Subscriber, Writer, rows, run,
    wait::{limited, until},
};

const SCHEMA: &str = "
    create table feed (id int8 primary key, c1 int, c2 int) partition by hash (id);
    create table notes (id text primary key, c1 int) partition by hash (id);
    create table parcels (id uuid primary key, c1 int) partition by hash (id);";

async fn cluster(more: &str, config: &str) -> Cluster {
    let feeds = ["feed", "notes", "parcels"];
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        schema: SCHEMA.into(),
        feeds: feeds.iter().map(|feed| ((*feed).into(), 4)).collect(),
        config: config.into(),
        ..ClusterOptions::default()
    })
    .await;
    let map = cluster.map(1, &feeds.map(|feed| (feed.into(), 4)));
    cluster.write_map(&map.replace("tables = 4", &format!("tables = 4\n{more}")));
    migrate(&cluster);
    cluster
}

fn migrate(cluster: &Cluster) {
    let config = cluster.config();
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    assert!(migrated.status.success(), "{migrated:?}");
}

struct Follower(ChangeFollower);

impl Follower {
    async fn start(router: &Router, feeds: &[&str], rows: bool) -> Self {
        let client = Client::connect(ClientConfig::new(format!("http://{}", router.grpc))).await;
        let options = FollowOptions {
            feeds: feeds.iter().map(|feed| (*feed).to_owned()).collect(),
            rows,
            heartbeat: Some(Duration::from_millis(200)),
            ..FollowOptions::default()
        };
        let follower = ChangeFollower::start(client.expect("a router"), options).await;
        let mut follower = Self(follower.expect("the feed tells of its changes"));
        follower.live().await;
        follower
    }

    async fn next(&mut self) -> ChangeEvent {
        let event = limited("an event", self.0.next()).await;
        event.expect("the stream goes on")
    }

    async fn live(&mut self) {
        while !matches!(self.next().await, ChangeEvent::Live(_)) {}
    }

    async fn reset(&mut self) -> proto::ChangeReset {
        loop {
            match self.next().await {
                ChangeEvent::Reset(reset) => return reset,
                ChangeEvent::Changes(batch) => panic!("before the RESET: {batch:?}"),
                _ => {}
            }
        }
    }

    /// The next changes: operation and key, and the row where there is one.
    async fn changes(&mut self, count: usize) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < count {
            match self.next().await {
                ChangeEvent::Changes(batch) => told.extend(batch.changes.iter().flat_map(lines)),
                ChangeEvent::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        told
    }
}

fn lines(change: &proto::KeyChanges) -> Vec<String> {
    let operation = match change.operation() {
        proto::ChangeOperation::Insert => "I",
        proto::ChangeOperation::Update => "U",
        proto::ChangeOperation::Delete => "D",
        proto::ChangeOperation::Unspecified => panic!("no operation: {change:?}"),
    };
    let row = |at: usize| {
        change
            .rows
            .get(at)
            .map_or(String::new(), |row| format!(" {row}"))
    };
    let columns = (change.columns.as_ref()).map_or(String::new(), |columns| {
        format!(" [{}]", columns.names.join(", "))
    });
    let keys = change.keys.iter().enumerate();
    keys.map(|(at, key)| format!("{operation}{key}{columns}{}", row(at)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_committed_change_is_told_in_order_whoever_writes() {
    let cluster = cluster("changes = true", "").await;
    let router = cluster.router();
    let layout = Layout::of(&cluster, "feed").await;
    let mut follower = Follower::start(&router, &["feed"], false).await;
    let sql = cluster.sql(0).await;
    // Statements that name the parent, and a leaf.
    let leaf = format!("feed_{}", layout.table(1));
    sql.batch_execute(&format!(
        "insert into feed values (1, 1); update {leaf} set c1 = 2 where id = 1; \
         update feed set c1 = 3 where id = 1; delete from {leaf} where id = 1;"
    ))
    .await
    .expect("SQL");
    assert_eq!(follower.changes(4).await, ["I1", "U1", "U1", "D1"]);
    // What is rolled back is not told; equal messages of a transaction are not one.
    sql.batch_execute(
        "begin; insert into feed values (2, 1); rollback; \
         begin; insert into feed values (3, 1); savepoint a; delete from feed; rollback to a; commit; \
         begin; insert into feed values (4, 1); delete from feed where id = 4; \
           insert into feed values (4, 2); commit; \
         insert into notes values ('not asked for', 1); \
         insert into feed values (4, 9), (5, 9) on conflict (id) do update set c1 = excluded.c1;",
    )
    .await
    .expect("SQL");
    let told = follower.changes(6).await;
    assert_eq!(told[..4], ["I3", "I4", "D4", "I4"]);
    let mut last = told[4..].to_vec();
    last.sort();
    assert_eq!(last, ["I5", "U4"]);
    // A key that changes: through the parent it may go to another leaf, in its leaf it stays.
    let other = (1000..)
        .find(|key| layout.table(*key) != layout.table(3))
        .expect("one");
    sql.batch_execute(&format!("update feed set id = {other} where id = 3"))
        .await
        .expect("SQL");
    let mut told = follower.changes(2).await;
    told.sort();
    assert_eq!(told, [String::from("D3"), format!("I{other}")]);
    let same = (2000..)
        .find(|key| layout.table(*key) == layout.table(4))
        .expect("one");
    let table = layout.table(4);
    sql.batch_execute(&format!("update feed_{table} set id = {same} where id = 4"))
        .await
        .expect("SQL");
    let mut told = follower.changes(2).await;
    told.sort();
    assert_eq!(told, [String::from("D4"), format!("U{same}")]);
    // Batches of a router: large ones of one table, and deletes.
    let mut writer = Writer::open(&router).await;
    let keys: Vec<i64> = (10_000..15_000).collect();
    let columns = vec![rows::int32s("c1", &vec![7; keys.len()])];
    writer
        .write(rows::columnar("feed", rows::int64s("", &keys), columns))
        .await;
    let mut told = follower.changes(keys.len()).await;
    told.sort();
    let expected: Vec<String> = keys.iter().map(|key| format!("I{key}")).collect();
    assert_eq!(told, expected);
    let columns = vec![rows::int32s("c2", &vec![8; keys.len()])];
    writer
        .write(rows::columnar("feed", rows::int64s("", &keys), columns))
        .await;
    let mut told = follower.changes(keys.len()).await;
    told.sort();
    assert_eq!(
        told,
        keys.iter().map(|key| format!("U{key}")).collect::<Vec<_>>()
    );
    assert!(router.metric("pgbraid_changes_read_total", &[]) > 10_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_to_tell_is_a_reset_and_then_it_goes_on() {
    let cluster = cluster("changes = true", "[alerts]\nheartbeat = \"100ms\"").await;
    let router = cluster.router();
    let mut follower = Follower::start(&router, &["feed"], false).await;
    let sql = cluster.sql(0).await;
    sql.batch_execute("insert into feed select i, 1 from generate_series(1, 100001) i")
        .await
        .expect("SQL");
    let reset = follower.reset().await;
    assert!(reset.reason.contains("100000"), "{reset:?}");
    assert_eq!(
        (reset.instance.as_str(), reset.feed.as_str()),
        ("db0", "feed")
    );
    follower.live().await;
    sql.batch_execute("truncate feed").await.expect("SQL");
    assert!(follower.reset().await.reason.contains("truncated"));
    follower.live().await;
    // Another feed in the transaction of one that is too large is not forgotten.
    let mut notes = Follower::start(&router, &["notes"], false).await;
    sql.batch_execute(
        "begin; insert into feed select i, 1 from generate_series(1, 100001) i; \
         insert into notes values ('a', 1); commit",
    )
    .await
    .expect("SQL");
    assert_eq!(notes.reset().await.feed, "notes");
    assert_eq!(follower.reset().await.feed, "feed");
    follower.live().await;
    sql.batch_execute("update feed set c1 = 5 where id = 7")
        .await
        .expect("SQL");
    assert_eq!(follower.changes(1).await, ["U7"]);
    // The connection is lost.
    let broken = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                  where pid <> pg_backend_pid() and query like '%pg_listening_channels%'";
    until("the router to be known by what it asks", || async {
        let row = sql.query_one(broken, &[]).await.expect("SQL");
        (row.get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    assert_eq!(follower.reset().await.feed, "");
    follower.live().await;
    sql.batch_execute("update feed set c1 = 6 where id = 8")
        .await
        .expect("SQL");
    assert_eq!(follower.changes(1).await, ["U8"]);
    assert!(router.metric("pgbraid_change_resets_total", &["connection"]) >= 1.0);
    assert!(router.metric("pgbraid_change_resets_total", &["large"]) >= 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_type_come_as_they_are_with_their_rows() {
    let cluster = cluster("changes = true", "").await;
    let router = cluster.router();
    let sql = cluster.sql(0).await;
    let mut notes = Follower::start(&router, &["notes"], true).await;
    let keys = [
        "",
        "a,b",
        "3:é",
        "two words",
        "\u{1f4e6}",
        &"x".repeat(1400),
    ];
    let mut expected = Vec::new();
    for key in keys {
        sql.execute("insert into notes values ($1, 1)", &[&key])
            .await
            .expect("SQL");
        let row = serde_json::json!({"id": key, "c1": 1}).to_string();
        expected.push(format!("I{key} {row}"));
    }
    let told = notes.changes(keys.len()).await;
    assert_eq!(told.len(), expected.len());
    for (told, key) in told.iter().zip(keys) {
        let row = told.strip_prefix(&format!("I{key} ")).expect("the key");
        let row: serde_json::Value = serde_json::from_str(row).expect("a row");
        assert_eq!(row, serde_json::json!({"id": key, "c1": 1}));
    }
    sql.batch_execute(
        "insert into notes select i || repeat('é', 30), 2 from generate_series(1, 5000) i",
    )
    .await
    .expect("SQL");
    assert_eq!(notes.changes(5000).await.len(), 5000);
    let mut parcels = Follower::start(&router, &["parcels"], false).await;
    sql.batch_execute(
        "insert into parcels select gen_random_uuid(), 1 from generate_series(1, 1000)",
    )
    .await
    .expect("SQL");
    let mut told = parcels.changes(1000).await;
    told.sort();
    let stored = sql
        .query("select 'I' || id from parcels order by 1", &[])
        .await;
    let stored: Vec<String> = stored.expect("SQL").iter().map(|row| row.get(0)).collect();
    assert_eq!(told, stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_tells_only_where_it_was_asked_to_and_the_old_form_is_there() {
    let cluster = cluster(
        "table_channel = true",
        "[alerts]\nchannels = [\"feed_chan\"]",
    )
    .await;
    let router = cluster.router();
    let client = Client::connect(ClientConfig::new(format!("http://{}", router.grpc))).await;
    let options = FollowOptions {
        feeds: vec!["feed".into()],
        ..FollowOptions::default()
    };
    until("the instance to be heard", || async {
        let connected = router.metric("pgbraid_instance_readable", &[]) >= 1.0;
        connected.then_some(())
    })
    .await;
    let client = client.expect("a router");
    let refused = ChangeFollower::start(client, options).await;
    let refused = refused.expect_err("it does not tell").to_string();
    assert!(refused.contains("changes = true"), "{refused}");

    let start = Start::Now(proto::Now {});
    let subscriber = Subscriber::open(&router, start, Filter::default()).await;
    let mut subscriber = subscriber.expect("a subscription");
    subscriber.caught_up().await;
    let sql = cluster.sql(0).await;
    sql.batch_execute(
        "insert into feed values (5, 1); update feed set c1 = 2 where id = 5; \
         delete from feed where id = 5",
    )
    .await
    .expect("SQL");
    let mut told = Vec::new();
    while told.len() < 3 {
        if let Event::Notification(note) = subscriber.next().await.expect("the stream goes on") {
            assert_eq!(note.channel, "feed_chan");
            told.push(note.payload);
        }
    }
    assert_eq!(told, ["I5", "U5", "D5"]);

    // Turned on under a running router, and the other off: followers are live once it is so.
    let map = cluster.map(
        1,
        &["feed", "notes", "parcels"].map(|feed| (feed.into(), 4)),
    );
    cluster.write_map(&map.replace("tables = 4", "tables = 4\nchanges = true"));
    migrate(&cluster);
    until("the router to know", || async {
        let client = Client::connect(ClientConfig::new(format!("http://{}", router.grpc))).await;
        let options = FollowOptions {
            feeds: vec!["feed".into()],
            ..FollowOptions::default()
        };
        ChangeFollower::start(client.expect("a router"), options)
            .await
            .ok()
    })
    .await;
    let mut follower = Follower::start(&router, &["feed"], false).await;
    sql.batch_execute("insert into feed values (6, 1)")
        .await
        .expect("SQL");
    assert_eq!(follower.changes(1).await, ["I6"]);
    let channels = "select count(*) from pg_trigger where tgname = 'pgbraid_table_channel'";
    assert_eq!(cluster.sum(channels).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_columns_that_an_update_changed_are_told_where_a_feed_asks_for_it() {
    let cluster = cluster("changes = true\nchange_columns = true", "").await;
    let router = cluster.router();
    let layout = Layout::of(&cluster, "feed").await;
    let sql = cluster.sql(0).await;
    let mut follower = Follower::start(&router, &["feed"], false).await;
    let told = async |follower: &mut Follower, statement: &str, expected: &[&str]| {
        sql.batch_execute(statement).await.expect(statement);
        let mut told = follower.changes(expected.len()).await;
        told.sort();
        assert_eq!(told, expected, "{statement}");
    };
    let follow = &mut follower;
    let insert =
        "insert into feed select i, 1, case when i < 4 then i end from generate_series(1, 4) i";
    told(follow, insert, &["I1", "I2", "I3", "I4"]).await;
    // Each row's own, through the parent and of a leaf; nothing, NULL to NULL, from and to NULL.
    let statement =
        "update feed set c1 = case id when 1 then 1 else id end, c2 = case id when 2 then 2 end";
    let expected = ["U1 [c2]", "U2 [c1]", "U3 [c1, c2]", "U4 [c1]"];
    told(follow, statement, &expected).await;
    let table = layout.table(4);
    let leaf = |set: &str| format!("update feed_{table} set {set} where id = 4");
    told(follow, &leaf("c1 = 4, c2 = null"), &["U4 []"]).await;
    told(follow, &leaf("c2 = 0"), &["U4 [c2]"]).await;
    told(follow, &leaf("c2 = null"), &["U4 [c2]"]).await;
    let upsert = "insert into feed values (4, 4, 5), (5, 5, 5) \
                  on conflict (id) do update set c1 = excluded.c1, c2 = excluded.c2";
    told(follow, upsert, &["I5", "U4 [c2]"]).await;
    // Another key is another row, within its leaf too.
    let same = (2000..)
        .find(|key| layout.table(*key) == table)
        .expect("one");
    let key = format!("id = {same}, c1 = 9");
    told(follow, &leaf(&key), &["D4", &format!("I{same}")]).await;
    let other = (1000..)
        .find(|key| layout.table(*key) != table)
        .expect("one");
    let statement = format!("update feed set id = {other} where id = {same}");
    told(
        follow,
        &statement,
        &[&format!("D{same}"), &format!("I{other}")],
    )
    .await;
    // Tables are altered under the triggers: no write fails, and nothing untrue is told.
    let statement = "alter table feed add column \"c, 3=;\" numeric default 1; \
                     update feed set \"c, 3=;\" = 1.0 where id = 1";
    told(follow, statement, &["U1 [c, 3=;]"]).await;
    let statement = "alter table feed rename column c1 to renamed; alter table feed drop column c2; \
                     update feed set renamed = 77, \"c, 3=;\" = 1 where id = 1";
    told(follow, statement, &["U1 [renamed, c, 3=;]"]).await;
    sql.batch_execute("alter table feed rename column renamed to c1; alter table feed drop column \"c, 3=;\"; alter table feed add column c2 int; truncate feed")
        .await
        .expect("SQL");
    follow.reset().await;
    follow.live().await;
    // A batch of a router, and more sets of columns than go into a payload.
    let mut writer = Writer::open(&router).await;
    let keys: Vec<i64> = (10_000..15_000).collect();
    for (column, letter) in [("c1", "I"), ("c2", "U")] {
        let columns = vec![rows::int32s(column, &vec![7; keys.len()])];
        writer
            .write(rows::columnar("feed", rows::int64s("", &keys), columns))
            .await;
        let mut told = follow.changes(keys.len()).await;
        told.sort();
        let columns = if letter == "U" { " [c2]" } else { "" };
        let expected: Vec<String> = keys
            .iter()
            .map(|key| format!("{letter}{key}{columns}"))
            .collect();
        assert_eq!(told, expected);
    }
    // Keys of the other types.
    let mut notes = Follower::start(&router, &["notes", "parcels"], false).await;
    let parcel = "0189d3b1-9f68-7a3b-8b1a-0123456789ab";
    let statement = format!(
        "insert into notes select repeat('é;', 10) || i, 1 from generate_series(1, 3000) i; \
         insert into parcels values ('{parcel}', 1)"
    );
    sql.batch_execute(&statement).await.expect("SQL");
    notes.changes(3001).await;
    sql.batch_execute("update notes set c1 = 2")
        .await
        .expect("SQL");
    let mut told = notes.changes(3000).await;
    told.sort();
    let mut expected: Vec<String> = (1..=3000)
        .map(|i| format!("U{}{i} [c1]", "é;".repeat(10)))
        .collect();
    expected.sort();
    assert_eq!(told, expected);
    sql.batch_execute("update parcels set c1 = 2")
        .await
        .expect("SQL");
    assert_eq!(notes.changes(1).await, [format!("U{parcel} [c1]")]);
    // Too many rows are a RESET, as without columns.
    sql.batch_execute(
        "begin; insert into notes select 'x' || i, 1 from generate_series(1, 99999) i; \
         update notes set c1 = 3; commit",
    )
    .await
    .expect("SQL");
    assert!(notes.0.next().await.is_ok());

    // A feed that asks no more compares no more.
    let map = cluster.map(
        1,
        &["feed", "notes", "parcels"].map(|feed| (feed.into(), 4)),
    );
    cluster.write_map(&map.replace("tables = 4", "tables = 4\nchanges = true"));
    migrate(&cluster);
    let compared = "select count(*) from pg_trigger where tgname = 'pgbraid_changes_columns'";
    assert_eq!(cluster.sum(compared).await, 0);
    let mut follower = Follower::start(&router, &["feed"], false).await;
    sql.batch_execute("update feed set c1 = 8 where id = 10000")
        .await
        .expect("SQL");
    assert_eq!(follower.changes(1).await, ["U10000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_come_and_go_without_a_reset() {
    let cluster = cluster("changes = true", "").await;
    let router = cluster.router();
    let mut follower = Follower::start(&router, &["feed"], false).await;
    cluster
        .put_group(&router, pgbraid_tests::member::group("g"))
        .await;
    let remove = pgbraid_proto::v1::RemoveGroupRequest {
        name: "g".into(),
        expected_version: None,
    };
    let removed = rows::alerts(&router).await.remove_group(remove).await;
    removed.expect("it was there");
    let client = cluster.sql(0).await;
    client
        .batch_execute("insert into feed (id) values (1)")
        .await
        .expect("a row");
    // Fails at a RESET, which would have come before.
    assert_eq!(follower.changes(1).await.len(), 1);
}
