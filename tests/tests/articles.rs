//! The demo of the articles: a wide table whose own trigger notifies a channel, followed through
//! our stream instead of one LISTEN for each instance.

use std::collections::BTreeMap;

use pgbraid_proto::v1::{self, subscribe_request::Start, subscribe_response::Event};
use pgbraid_tests::{
    Cluster, ClusterOptions, Subscriber, Writer,
    rows::{self, int, int32s, int64s},
    wait::limited,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const INSTANCES: u16 = 4;
const CHANNEL: &str = "channel_1";

/// The articles' DDL, but for the partitioning. Row triggers are theirs for single writes; ours
/// are batches, and the messages are the same.
const SCHEMA: &str = "
create table feed (id int8 primary key, c1 int, c2 int, c3 int, c4 int, c5 int, c6 int, c7 int,
                   c8 int, c9 int, c10 int, c11 int, c12 int) partition by hash (id);
create or replace function tg2() returns trigger as $$
declare
begin
  -- c2 over 9999 sends a message
  perform pg_notify('channel_1', 'Resone:c2 overflow::'||row_to_json(NEW)) where NEW.c2>9999;
  return null;
end;
$$ language plpgsql strict;
create trigger tg1 after insert on feed for each row execute procedure tg2();
create trigger tg2 after update on feed for each row execute procedure tg2();
";

async fn demo_cluster() -> Cluster {
    Cluster::start(ClusterOptions {
        instances: INSTANCES,
        schema: SCHEMA.into(),
        feeds: vec![("feed".into(), 16)],
        config: format!("[alerts]\nheartbeat = \"200ms\"\nchannels = [{CHANNEL:?}]"),
        ..Default::default()
    })
    .await
}

/// The row as the trigger shows it: c1 to c12.
type Row = [Option<i32>; 12];

fn payload(id: i64, row: &Row) -> String {
    let mut text = format!("Resone:c2 overflow::{{\"id\":{id}");
    for (at, value) in row.iter().enumerate() {
        let value = value.map_or("null".into(), |value| value.to_string());
        text += &format!(",\"c{}\":{value}", at + 1);
    }
    text + "}"
}

fn overflows(row: &Row) -> bool {
    row[1].is_some_and(|c2| c2 > 9999)
}

/// Everything that the instances sent before they were asked to send `end`. Messages of one
/// instance come in the order of its commits, so nothing can follow later.
async fn drain(cluster: &Cluster, subscriber: &mut Subscriber, end: &str) -> Vec<v1::Notification> {
    for instance in 0..usize::from(INSTANCES) {
        let sql = cluster.sql(instance).await;
        sql.batch_execute(&format!("notify {CHANNEL}, '{end}'"))
            .await
            .expect("the instance notifies");
    }
    limited("the messages", async {
        let mut ended = 0;
        let mut messages = Vec::new();
        while ended < INSTANCES {
            match subscriber.next().await.expect("the stream goes on") {
                Event::Notification(message) => {
                    assert_eq!(message.channel, CHANNEL);
                    if message.payload == end {
                        ended += 1;
                    } else {
                        messages.push(message);
                    }
                }
                Event::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        messages
    })
    .await
}

/// All of these, each once, and from every instance.
fn check(messages: Vec<v1::Notification>, rows: &BTreeMap<i64, Row>) {
    let mut instances: Vec<String> = messages.iter().map(|one| one.instance.clone()).collect();
    instances.sort();
    instances.dedup();
    assert_eq!(instances, ["db0", "db1", "db2", "db3"]);
    let mut payloads: Vec<String> = messages.into_iter().map(|one| one.payload).collect();
    payloads.sort();
    let expected = rows.iter().filter(|(_, row)| overflows(row));
    let mut expected: Vec<String> = expected.map(|(id, row)| payload(*id, row)).collect();
    expected.sort();
    assert!(expected.len() > 100, "{} rows overflow", expected.len());
    assert_eq!(payloads, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_of_the_articles() {
    let cluster = demo_cluster().await;
    let router = cluster.router();
    let mut subscriber = Subscriber::now(&router).await;
    let mut writer = Writer::open(&router).await;

    // Two systems write their own columns of one row.
    writer
        .write(rows::rows(
            "feed",
            &["c1", "c2"],
            [(int(2), vec![int(2), int(30001)])],
        ))
        .await;
    writer
        .write(rows::rows(
            "feed",
            &["c3", "c4"],
            [(int(2), vec![int(99), int(290_001)])],
        ))
        .await;
    let messages = drain(&cluster, &mut subscriber, "first").await;
    let payloads: Vec<&str> = messages.iter().map(|one| one.payload.as_str()).collect();
    assert_eq!(
        payloads,
        [
            r#"Resone:c2 overflow::{"id":2,"c1":2,"c2":30001,"c3":null,"c4":null,"c5":null,"c6":null,"c7":null,"c8":null,"c9":null,"c10":null,"c11":null,"c12":null}"#,
            r#"Resone:c2 overflow::{"id":2,"c1":2,"c2":30001,"c3":99,"c4":290001,"c5":null,"c6":null,"c7":null,"c8":null,"c9":null,"c10":null,"c11":null,"c12":null}"#,
        ]
    );

    // The batch: 10,000 rows in one request, then again in ten.
    let mut rows: BTreeMap<i64, Row> = (1..=10_000).map(|id| (id, [None; 12])).collect();
    let merged = rows.get_mut(&2).expect("the range holds 2");
    (merged[2], merged[3]) = (Some(99), Some(290_001));
    let mut random = StdRng::seed_from_u64(20_171_111);
    for requests in [1, 10] {
        for row in rows.values_mut() {
            row[0] = Some(random.random_range(0..=100));
            row[1] = Some(random.random_range(0..=11_000));
        }
        let all: Vec<(i64, Row)> = rows.iter().map(|(id, row)| (*id, *row)).collect();
        for part in all.chunks(all.len() / requests) {
            let column =
                |at: usize| -> Vec<i32> { part.iter().filter_map(|(_, row)| row[at]).collect() };
            let ids: Vec<i64> = part.iter().map(|(id, _)| *id).collect();
            let request = rows::columnar(
                "feed",
                int64s("id", &ids),
                vec![int32s("c1", &column(0)), int32s("c2", &column(1))],
            );
            writer.send(request).await.expect("the stream is open");
        }
        writer.settle().await;
        check(drain(&cluster, &mut subscriber, "batch").await, &rows);
    }

    // Writers beside us raise the same messages.
    for row in rows.values_mut() {
        row[0] = Some(1);
    }
    let mut updated = 0;
    for instance in 0..usize::from(INSTANCES) {
        // Another role: for ours, a plain `feed` would be the table in the schema of its name.
        let sql = cluster.postgres.connect(instance, true, "pgbraid").await;
        let sql = sql.expect("the instance answers");
        let update = sql.execute("update feed set c1=1", &[]).await;
        updated += update.expect("the rows can be updated");
    }
    assert_eq!(updated, 10_000);
    check(drain(&cluster, &mut subscriber, "update").await, &rows);

    // Who filters by another channel hears nothing of it.
    let filter = v1::Filter {
        channels: vec!["channel_2".into()],
        ..Default::default()
    };
    let other = Subscriber::open(&router, Start::Now(v1::Now {}), filter).await;
    let mut other = other.expect("the subscription is taken");
    other.caught_up().await;
    let again = drain(&cluster, &mut subscriber, "nothing").await;
    assert_eq!(again, []);
    let heard = other.until(std::time::SystemTime::now()).await;
    assert_eq!(heard, []);
    assert_eq!(router.stop(), 0);
}

/// The next event that is no heartbeat, and comes from this instance.
async fn next_of(subscriber: &mut Subscriber, name: &str) -> Event {
    limited("an event", async {
        loop {
            let event = subscriber.next().await.expect("the stream goes on");
            let instance = match &event {
                Event::Heartbeat(_) => continue,
                Event::Notification(one) => &one.instance,
                Event::Gap(one) => &one.instance,
                Event::InstanceStatus(one) => &one.instance,
                other => panic!("unexpected: {other:?}"),
            };
            assert_eq!(instance, name);
            return event;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_notifications_come_from_every_instance_and_say_where_they_may_be_missing() {
    let cluster = demo_cluster().await;
    let router = cluster.router();
    let mut subscriber = Subscriber::now(&router).await;
    for instance in 0..usize::from(INSTANCES) {
        let sql = cluster.sql(instance).await;
        sql.batch_execute("notify channel_1, 'x'")
            .await
            .expect("the instance notifies");
        let pid = sql.query_one("select pg_backend_pid()", &[]).await;
        let name = format!("db{instance}");
        let message = v1::Notification {
            instance: name.clone(),
            channel: CHANNEL.into(),
            payload: "x".into(),
            pid: pid.expect("the query works").get(0),
        };
        let event = next_of(&mut subscriber, &name).await;
        assert_eq!(event, Event::Notification(message));
    }

    cluster
        .postgres
        .restart(2)
        .await
        .expect("the instance restarts");
    let (mut down, mut gaps, mut up) = (0, 0, 0);
    while up == 0 || gaps == 0 {
        match next_of(&mut subscriber, "db2").await {
            Event::Gap(gap) => {
                assert_ne!(gap.reason, "");
                gaps += 1;
            }
            Event::InstanceStatus(status) if status.readable => up += 1,
            Event::InstanceStatus(status) => {
                assert_ne!(status.reason, "");
                down += 1;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    // A gap for each connection that began to listen, but one outage.
    assert_eq!((down, up), (1, 1));
    let sql = cluster.sql(2).await;
    sql.batch_execute("notify channel_1, 'back'")
        .await
        .expect("the instance notifies");
    match next_of(&mut subscriber, "db2").await {
        Event::Notification(message) => assert_eq!(message.payload, "back"),
        other => panic!("unexpected: {other:?}"),
    }
    assert_eq!(router.stop(), 0);
}
