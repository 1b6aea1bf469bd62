//! An address comes to be another server's: somebody swaps hosts in the shard map, or an address is
//! given to a server of another cluster. Rows, alerts and rules must not be mistaken for those of the
//! server that was meant.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use pgbraid_devcluster::StopMode;
use pgbraid_proto::v1::{self, subscribe_request::Start, subscribe_response::Event};
use pgbraid_tests::{
    Cluster, ClusterOptions, Layout, Router, Subscriber, Writer, binary,
    rows::{self, int},
    wait::{limited, until},
};
use tonic::{Code, Status};

const TABLES: u32 = 16;

/// Instance, key and value of a row that raised an alert.
type Raised = (String, i64, i64);

async fn cluster() -> Cluster {
    let options = ClusterOptions {
        // Continues [postgres].
        config: "connect_timeout = \"1s\"\n\n[alerts]\nchannels = [\"plain\"]\n".into(),
        ..ClusterOptions::default()
    };
    Cluster::start(options).await
}

/// A router with a rule for values above 10.
async fn router(cluster: &Cluster) -> Router {
    let router = cluster.router();
    let rule = [("high", "c1 > 10", "a")];
    cluster.put_rules(&router, "feed", &rule).await;
    router
}

fn port(cluster: &Cluster, instance: usize) -> u16 {
    cluster.postgres.instances()[instance].port()
}

/// A connection as superuser, whatever password the router's role has.
async fn sql(cluster: &Cluster, instance: usize) -> tokio_postgres::Client {
    let client = cluster.postgres.connect(instance, true, "pgbraid").await;
    client.expect("the instance answers")
}

/// Writes the map with these ports for db0 and db1.
fn write_map(cluster: &Cluster, ports: [u16; 2]) {
    let mut map = cluster.map(0, &[("feed".into(), TABLES)]);
    for (number, port) in ports.into_iter().enumerate() {
        map += &format!("[instances.db{number}]\nhost = \"127.0.0.1\"\nport = {port}\n");
    }
    cluster.write_map(&map);
}

/// Gives each instance the other's tables as well, empty and owned by nobody: a row that goes to
/// the wrong server would be written there, not refused.
async fn make_room_for_mistakes(cluster: &Cluster, layout: &Layout) {
    let owners: BTreeMap<usize, usize> = (0..10_000)
        .map(|key| (layout.table(key), layout.owner(key)))
        .collect();
    for (table, owner) in owners {
        let sql = format!(
            "create table public.feed_{table} partition of public.feed \
             for values with (modulus {TABLES}, remainder {table})"
        );
        let made = cluster.sql(1 - owner).await.batch_execute(&sql).await;
        made.expect("the other instance has no such table");
    }
}

/// The rows with this value: their instance and key.
async fn stored(cluster: &Cluster, value: i32) -> BTreeSet<(usize, i64)> {
    let mut found = BTreeSet::new();
    for instance in 0..cluster.instances().into() {
        let ask = "select id from public.feed where c1 = $1";
        let rows = sql(cluster, instance).await.query(ask, &[&value]).await;
        let rows = rows.expect("rows can be read");
        found.extend(rows.iter().map(|row| (instance, row.get(0))));
    }
    found
}

/// A key of this instance that the other writers of the tests leave alone.
fn key_of(layout: &Layout, instance: usize) -> i64 {
    layout.keys(1, |layout, key| {
        key >= 1000 && layout.owner(key) == instance
    })[0]
}

/// Where they must be.
fn placed(layout: &Layout, keys: &[i64]) -> BTreeSet<(usize, i64)> {
    keys.iter().map(|key| (layout.owner(*key), *key)).collect()
}

/// What they must have raised.
fn raised(layout: &Layout, keys: &[i64], value: i64) -> Vec<Raised> {
    keys.iter()
        .map(|key| (format!("db{}", layout.owner(*key)), *key, value))
        .collect()
}

fn request(keys: &[i64], value: i64, timeout: Duration) -> v1::WriteRequest {
    let rows_of = keys.iter().map(|key| (int(*key), vec![int(value)]));
    let mut request = rows::rows("feed", &["c1"], rows_of);
    request.timeout = Some(timeout.try_into().expect("a time"));
    request
}

/// Sends rows whose time is over before the map is put right: they are refused, and say why. Then
/// the same with another value and all the time they need.
async fn send_meanwhile(router: &Router, keys: &[i64], why: &[&str]) -> Writer {
    let mut hasty = Writer::open(router).await;
    let sent = hasty.send(request(keys, 12, Duration::from_secs(3))).await;
    sent.expect("the stream is open");
    let (_, answer) = hasty.answer().await.expect("the stream goes on");
    assert_eq!(answer.refused.len(), keys.len(), "{answer:?}");
    assert!(!answer.refused[0].message.is_empty(), "{answer:?}");
    for row in &answer.refused {
        assert_eq!(Code::from_i32(row.code), Code::Unavailable, "{row:?}");
        // Messages are left out past the first 8 KiB of an answer.
        let told = row.message.is_empty() || why.iter().any(|part| row.message.contains(part));
        assert!(told, "{row:?}");
    }
    let mut patient = Writer::open(router).await;
    let sent = patient
        .send(request(keys, 11, Duration::from_secs(60)))
        .await;
    sent.expect("the stream is open");
    patient
}

/// Writes as other services do; it raises an alert and notifies the plain channel.
async fn write_beside(cluster: &Cluster, instance: usize, key: i64, value: i32) {
    let write = format!(
        "insert into public.feed (id, c1) values ({key}, {value}) \
         on conflict (id) do update set c1 = excluded.c1; \
         select pg_notify('plain', '{key}')"
    );
    let written = sql(cluster, instance).await.batch_execute(&write).await;
    written.expect("the instance takes rows");
}

async fn get(router: &Router, key: i64) -> Result<v1::GetResponse, Status> {
    let request = v1::GetRequest {
        feed: "feed".into(),
        keys: Some(rows::int64s("", &[key])),
        ..Default::default()
    };
    let answer = rows::reads(router).await.get(request).await?;
    Ok(answer.into_inner())
}

/// Waits until the router says this of an instance.
async fn told(router: &Router, instance: &str, why: &str) {
    until(&format!("{instance} to be said wrong: {why:?}"), || async {
        let status = rows::admin(router)
            .await
            .get_status(v1::GetStatusRequest {})
            .await
            .expect("the status is there")
            .into_inner();
        let state = status
            .instances
            .into_iter()
            .find(|one| one.name == instance)?;
        (state.error.contains(why) && !state.readable).then_some(())
    })
    .await;
}

/// Reads until these instances are said to be down. Nothing may come from anywhere until then.
async fn down(subscriber: &mut Subscriber, instances: &[&str]) {
    loop {
        match subscriber.next().await.expect("the stream goes on") {
            Event::Heartbeat(beat) => {
                let is_down = |name: &&str| {
                    let down = v1::progress::State::Down;
                    let mut progress = beat.progress.iter();
                    progress.any(|one| one.instance == *name && one.state() == down)
                };
                if instances.iter().all(is_down) {
                    return;
                }
            }
            Event::Alert(alert) => panic!("too early: {alert:?}"),
            Event::Notification(note) => panic!("too early: {note:?}"),
            _ => {}
        }
    }
}

/// What comes until now must be these alerts, each once, and no notification.
async fn hears(subscriber: &mut Subscriber, mut expected: Vec<Raised>) {
    let mut alerts = Vec::new();
    for event in subscriber.until(SystemTime::now()).await {
        match event {
            Event::Alert(alert) => {
                let row: serde_json::Value = serde_json::from_str(&alert.row).expect("a row");
                let key = alert.key.parse().expect("a number");
                alerts.push((alert.instance, key, row["c1"].as_i64().expect("c1")));
            }
            Event::Notification(note) => panic!("of another's, or of before: {note:?}"),
            _ => {}
        }
    }
    alerts.sort();
    expected.sort();
    assert_eq!(alerts, expected);
}

/// A notification has the name of the instance that it comes from.
async fn notifications_are_right(cluster: &Cluster, subscriber: &mut Subscriber) {
    for instance in 0..cluster.instances().into() {
        let notify = "select pg_notify('plain', 'hello')";
        let sent = cluster.sql(instance).await.batch_execute(notify).await;
        sent.expect("the instance notifies");
        loop {
            if let Event::Notification(note) = subscriber.next().await.expect("the stream goes on")
            {
                assert_eq!(note.instance, format!("db{instance}"));
                break;
            }
        }
    }
}

#[tokio::test]
async fn hosts_that_are_swapped_while_the_router_runs() {
    let cluster = cluster().await;
    let router = router(&cluster).await;
    let layout = Layout::of(&cluster, "feed").await;
    make_room_for_mistakes(&cluster, &layout).await;
    let mut subscriber = Subscriber::now(&router).await;
    let keys: Vec<i64> = (0..200).collect();
    let mut writer = Writer::open(&router).await;
    writer
        .write(request(&keys, 1, Duration::from_secs(30)))
        .await;

    let [db0, db1] = [port(&cluster, 0), port(&cluster, 1)];
    write_map(&cluster, [db1, db0]);
    let why = [
        format!("127.0.0.1:{db1} is db1, but the shard map calls it db0"),
        format!("127.0.0.1:{db0} is db0, but the shard map calls it db1"),
    ];
    let why = [why[0].as_str(), why[1].as_str()];
    told(&router, "db0", why[0]).await;
    told(&router, "db1", why[1]).await;
    down(&mut subscriber, &["db0", "db1"]).await;

    let mut patient = send_meanwhile(&router, &keys, &why).await;
    let beside = [key_of(&layout, 0), key_of(&layout, 1)];
    for (instance, key) in beside.iter().enumerate() {
        write_beside(&cluster, instance, *key, 13).await;
    }
    // Of a row that is there, nobody may say that it is not.
    for key in 0..4 {
        let refused = get(&router, key).await.expect_err("nobody can know");
        let told = refused.message().contains(why[layout.owner(key)]);
        assert!(told, "{refused:?}");
    }
    let more = v1::Rule {
        name: "more".into(),
        feed: "feed".into(),
        expression: "c1 > 100".into(),
        channel: "a".into(),
        ..Default::default()
    };
    let put = v1::RulePut {
        rule: Some(more),
        expected_version: None,
    };
    let put = v1::PutRulesRequest {
        rules: vec![put],
        ..Default::default()
    };
    let refused = rows::admin(&router).await.put_rules(put).await;
    let refused = refused.expect_err("the home is not where the map says");
    assert!(refused.message().contains(why[0]), "{refused:?}");
    let rules = "select count(*) from pgbraid.rule";
    assert_eq!(cluster.sum(rules).await, 2, "one on each, as before");
    assert_eq!(stored(&cluster, 11).await, BTreeSet::new());
    assert_eq!(stored(&cluster, 12).await, BTreeSet::new());

    write_map(&cluster, [db0, db1]);
    patient.settle().await;
    assert_eq!(stored(&cluster, 11).await, placed(&layout, &keys));
    assert_eq!(stored(&cluster, 12).await, BTreeSet::new());
    let mut alerts = raised(&layout, &keys, 11);
    alerts.extend(raised(&layout, &beside, 13));
    hears(&mut subscriber, alerts).await;
    notifications_are_right(&cluster, &mut subscriber).await;
    let answer = get(&router, 0).await.expect("the instance answers");
    assert!(answer.rows[0].found);
    assert_eq!(router.stop(), 0);
}

#[tokio::test]
async fn hosts_that_are_swapped_at_the_start() {
    let cluster = cluster().await;
    let layout = Layout::of(&cluster, "feed").await;
    make_room_for_mistakes(&cluster, &layout).await;
    let [db0, db1] = [port(&cluster, 0), port(&cluster, 1)];
    write_map(&cluster, [db1, db0]);
    let serve = tokio::process::Command::new(binary())
        .args(["serve", "--grpc-listen", "127.0.0.1:0"])
        .args(["--http-listen", "127.0.0.1:0", "--config"])
        .arg(cluster.config())
        .kill_on_drop(true)
        .output();
    let ended = limited("the router to refuse to start", serve).await;
    let ended = ended.expect("pgbraid starts");
    let message = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{message}");
    for part in [
        format!("127.0.0.1:{db1} is db1, but the shard map calls it db0"),
        format!("127.0.0.1:{db0} is db0, but the shard map calls it db1"),
    ] {
        assert!(message.contains(&part), "{message}");
    }
    let again = Layout::of(&cluster, "feed").await;
    let keys: Vec<i64> = (0..200).collect();
    assert_eq!(placed(&again, &keys), placed(&layout, &keys));

    write_map(&cluster, [db0, db1]);
    let router = cluster.router();
    let mut writer = Writer::open(&router).await;
    writer
        .write(request(&keys, 1, Duration::from_secs(30)))
        .await;
    assert_eq!(stored(&cluster, 1).await, placed(&layout, &keys));
}

/// Another cluster of the same shape: its db1 has the same name and the same tables.
async fn twin(cluster: &Cluster) -> Cluster {
    let twin = self::cluster().await;
    let layouts = [
        Layout::of(cluster, "feed").await,
        Layout::of(&twin, "feed").await,
    ];
    let keys: Vec<i64> = (0..1000).collect();
    assert_eq!(placed(&layouts[0], &keys), placed(&layouts[1], &keys));
    assert_eq!(router(&twin).await.stop(), 0);
    let password = cluster.postgres.password();
    let alter = format!("alter role pgbraid password '{password}'");
    let altered = sql(&twin, 1).await.batch_execute(&alter).await;
    altered.expect("the role gets a new password");
    twin
}

#[tokio::test]
async fn an_address_that_is_given_to_another_cluster() {
    let cluster = cluster().await;
    let router = router(&cluster).await;
    let layout = Layout::of(&cluster, "feed").await;
    let twin = twin(&cluster).await;
    let mut subscriber = Subscriber::now(&router).await;

    let good = [port(&cluster, 0), port(&cluster, 1)];
    write_map(&cluster, [good[0], port(&twin, 1)]);
    let why = format!("db1 at 127.0.0.1:{} belongs to cluster", port(&twin, 1));
    told(&router, "db1", &why).await;
    down(&mut subscriber, &["db1"]).await;

    let of_db1 = layout.keys(100, |layout, key| layout.owner(key) == 1);
    let of_db0 = layout.keys(100, |layout, key| layout.owner(key) == 0);
    let mut patient = send_meanwhile(&router, &of_db1, &[&why]).await;
    write_beside(&twin, 1, key_of(&layout, 1), 13).await;
    let refused = get(&router, of_db1[0]).await.expect_err("nobody can know");
    assert!(refused.message().contains(&why), "{refused:?}");
    // What has nothing to do with it goes on.
    let mut writer = Writer::open(&router).await;
    writer
        .write(request(&of_db0, 14, Duration::from_secs(30)))
        .await;

    write_map(&cluster, good);
    patient.settle().await;
    assert_eq!(stored(&cluster, 11).await, placed(&layout, &of_db1));
    for value in [11, 12, 14] {
        assert_eq!(stored(&twin, value).await, BTreeSet::new(), "{value}");
    }
    let mut alerts = raised(&layout, &of_db1, 11);
    alerts.extend(raised(&layout, &of_db0, 14));
    hears(&mut subscriber, alerts).await;
    notifications_are_right(&cluster, &mut subscriber).await;
    assert_eq!(router.stop(), 0);
}

/// The router has never met the right server when the wrong one answers.
#[tokio::test]
async fn a_first_contact_with_another_cluster() {
    let cluster = cluster().await;
    assert_eq!(router(&cluster).await.stop(), 0);
    let layout = Layout::of(&cluster, "feed").await;
    let twin = twin(&cluster).await;
    write_beside(&twin, 1, key_of(&layout, 1), 13).await;
    cluster
        .postgres
        .stop(1, StopMode::Fast)
        .await
        .expect("db1 stops");
    let router = cluster.router();
    let open = Subscriber::open(
        &router,
        Start::Earliest(v1::Earliest {}),
        v1::Filter::default(),
    );
    let mut subscriber = open.await.expect("the subscription is taken");

    let good = [port(&cluster, 0), port(&cluster, 1)];
    write_map(&cluster, [good[0], port(&twin, 1)]);
    let why = format!("db1 at 127.0.0.1:{} belongs to cluster", port(&twin, 1));
    told(&router, "db1", &why).await;
    down(&mut subscriber, &["db1"]).await;

    cluster.postgres.start(1).await.expect("db1 starts");
    write_map(&cluster, good);
    let keys: Vec<i64> = (0..200).collect();
    let written = until("all tables to be found", || async {
        let mut writer = Writer::open(&router).await;
        let sent = writer
            .send(request(&keys, 11, Duration::from_secs(30)))
            .await;
        sent.expect("the stream is open");
        let (_, answer) = writer.answer().await.expect("the stream goes on");
        answer.refused.is_empty().then_some(answer.rows_committed)
    })
    .await;
    assert_eq!(written, 200);
    assert_eq!(stored(&cluster, 11).await, placed(&layout, &keys));
    assert_eq!(stored(&twin, 11).await, BTreeSet::new());
    hears(&mut subscriber, raised(&layout, &keys, 11)).await;
    assert_eq!(router.stop(), 0);
}
