//! Real orders, end to end: eight business systems write at once, every row and every alert comes
//! out as a plain fold of the events says, with keys of either type.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::SystemTime,
};

use pgbraid_proto::v1::{
    self, column::Values, subscribe_request::Start, subscribe_response::Event, value::Kind,
};
use pgbraid_shardmap::hash;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Subscriber, Writer,
    orders::{self, OrderEvent, OrderRow, Orders, RULES},
    rows,
    wait::limited,
};
use tokio::{sync::watch, task::JoinSet};

const INSTANCES: u16 = 4;
const TABLES: u32 = 64;
/// Events of one request.
const EVENTS: usize = 100;
/// Requests that a producer has under way.
const IN_FLIGHT: usize = 8;

#[derive(Clone, Copy)]
enum Key {
    Uuid,
    Text,
}

impl Key {
    fn sql(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
        }
    }

    fn uuid_bytes(text: &str) -> [u8; 16] {
        let number = u128::from_str_radix(&text.replace('-', ""), 16);
        number.expect("32 hexadecimal digits").to_be_bytes()
    }

    /// In requests: text, or for every other request of uuids their bytes.
    fn value(self, text: &str, as_bytes: bool) -> v1::Value {
        match self {
            Self::Uuid if as_bytes => v1::Value {
                kind: Some(Kind::Bytes(Self::uuid_bytes(text).to_vec().into())),
            },
            _ => rows::text(text),
        }
    }

    fn table(self, text: &str) -> u32 {
        let hash = match self {
            Self::Uuid => hash::bytes(&Self::uuid_bytes(text)),
            Self::Text => hash::bytes(text.as_bytes()),
        };
        hash::table_of(hash, TABLES).index()
    }
}

/// One business system, on its own stream.
async fn produce(mut writer: Writer, requests: Vec<v1::WriteRequest>) -> u64 {
    let mut committed = 0;
    let mut take = |answer: v1::WriteResponse| {
        assert_eq!(answer.status, None);
        assert_eq!(answer.refused, []);
        committed += answer.rows_committed;
    };
    for request in requests {
        writer.send(request).await.expect("the stream is open");
        while writer.in_flight() >= IN_FLIGHT {
            take(writer.answer().await.expect("the stream goes on").1);
        }
    }
    while writer.in_flight() > 0 {
        take(writer.answer().await.expect("the stream goes on").1);
    }
    committed
}

async fn write_all(router: &Router, orders: &Orders, key: Key) {
    let mut producers = JoinSet::new();
    for events in orders.by_source().values() {
        let requests = events.chunks(EVENTS).enumerate();
        let requests = requests
            .map(|(at, events): (usize, &[&OrderEvent])| {
                orders::request(events, |text| key.value(text, at % 2 == 1))
            })
            .collect();
        producers.spawn(produce(Writer::open(router).await, requests));
    }
    assert_eq!(producers.len(), 8);
    let committed: u64 = producers.join_all().await.into_iter().sum();
    assert_eq!(committed, orders.events.len() as u64);
}

/// Where each alert comes from; none comes twice.
fn places<'a>(alerts: impl IntoIterator<Item = &'a v1::Alert>) -> HashSet<(String, i64)> {
    let mut places = HashSet::new();
    for alert in alerts {
        let place = (alert.instance.clone(), alert.seq);
        assert!(
            places.insert(place),
            "{} {} came twice",
            alert.instance,
            alert.seq
        );
    }
    places
}

fn check_alerts(alerts: &[v1::Alert], expected: &[(&'static str, String)]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut raised: Vec<(&str, String)> = Vec::new();
    for alert in alerts {
        let rule = RULES.iter().find(|rule| rule.name == alert.rule);
        let rule = rule.expect("the rule is one of ours");
        let (key, row) = orders::stored_row(&alert.row);
        assert_eq!(key, alert.key);
        assert!(
            (rule.matches)(&row),
            "{} on a row that does not match: {row:?}",
            rule.name
        );
        assert_eq!(alert.channel, format!("orders_{}", rule.name));
        assert_eq!(alert.reason, format!("because of {}", rule.name));
        assert_eq!(alert.feed, "orders");
        *counts.entry(rule.name).or_default() += 1;
        raised.push((rule.name, key.replace('-', "")));
    }
    for rule in &RULES {
        assert_eq!(
            counts.get(rule.name),
            Some(&rule.alerts),
            "alerts of {}",
            rule.name
        );
        let keys = raised.iter().filter(|(name, _)| *name == rule.name);
        let keys: BTreeSet<&str> = keys.map(|(_, key)| key.as_str()).collect();
        if rule.name != "low_review" {
            assert_eq!(keys.len(), rule.alerts, "keys of {}", rule.name);
        }
    }
    raised.sort();
    assert_eq!(raised, expected);
}

/// What a subscriber that starts later gets.
async fn catch_up(router: &Router, start: Start, now: SystemTime) -> Vec<v1::Alert> {
    let mut subscriber = Subscriber::open(router, start, v1::Filter::default())
        .await
        .expect("the subscription is taken");
    let events = subscriber.until(now).await;
    let alert = |event| match event {
        Event::Alert(alert) => alert,
        other => panic!("unexpected: {other:?}"),
    };
    events.into_iter().map(alert).collect()
}

async fn check_rows(router: &Router, expected: &BTreeMap<String, OrderRow>, key: Key) {
    let keys: Vec<&String> = expected.keys().collect();
    let mut reads = rows::reads(router).await;
    for keys in keys.chunks(1000) {
        let texts = keys.iter().map(|key| (*key).clone()).collect();
        let answer = reads
            .get(v1::GetRequest {
                feed: "orders".into(),
                keys: Some(rows::column("", Values::Texts(v1::Texts { values: texts }))),
                ..Default::default()
            })
            .await
            .expect("the rows can be read")
            .into_inner();
        assert_eq!(answer.rows.len(), keys.len());
        for (wanted, stored) in keys.iter().zip(answer.rows) {
            assert!(stored.found, "{wanted} is not there");
            let (found, row) = orders::stored_row(&stored.json);
            assert_eq!(found.replace('-', ""), **wanted);
            assert_eq!(row, expected[*wanted], "the row of {wanted}");
            assert_eq!(stored.table, format!("tbl{}", key.table(wanted)));
        }
    }
}

/// Every row lies once, in the instance that owns its table, in that very table.
async fn check_places(cluster: &Cluster, expected: &BTreeMap<String, OrderRow>, key: Key) {
    let mut seen = BTreeSet::new();
    let mut tables = BTreeSet::new();
    for instance in 0..usize::from(INSTANCES) {
        let sql = cluster.sql(instance).await;
        let owned = "select tbl from pgbraid.ownership where feed = 'orders' and state = 'owned'";
        let owned = sql.query(owned, &[]).await.expect("ownership can be read");
        let owned: BTreeSet<u32> = owned
            .iter()
            .map(|row| row.get::<_, i32>(0) as u32)
            .collect();
        let stored = "select order_id::text, tableoid::regclass::text from orders";
        let stored = sql.query(stored, &[]).await.expect("rows can be read");
        assert!(!stored.is_empty(), "db{instance} has no rows");
        for row in &stored {
            let order = row.get::<_, String>(0).replace('-', "");
            let table = key.table(&order);
            assert_eq!(row.get::<_, String>(1), format!("orders_{table}"));
            assert!(
                owned.contains(&table),
                "db{instance} does not own tbl{table}"
            );
            assert!(seen.insert(order), "an order is stored twice");
        }
        tables.extend(owned);
    }
    assert_eq!(tables, (0..TABLES).collect());
    assert_eq!(seen, expected.keys().cloned().collect());
}

async fn run(key: Key) {
    let Some(orders) = Orders::load() else {
        return;
    };
    let (expected_rows, expected_alerts) = orders.fold();
    let cluster = Cluster::start(ClusterOptions {
        instances: INSTANCES,
        schema: Orders::schema(key.sql()),
        feeds: vec![("orders".into(), TABLES)],
        config: "[alerts]\nheartbeat = \"100ms\"".into(),
        ..Default::default()
    })
    .await;
    let router = cluster.router();
    let channels = RULES.map(|rule| format!("orders_{}", rule.name));
    let rules: Vec<(&str, &str, &str)> = RULES
        .iter()
        .zip(&channels)
        .map(|(rule, channel)| (rule.name, rule.expression, channel.as_str()))
        .collect();
    cluster.put_rules(&router, "orders", &rules).await;
    let (end, ended) = watch::channel(None);
    let follower = tokio::spawn(Subscriber::now(&router).await.follow(ended));

    write_all(&router, &orders, key).await;
    let now = SystemTime::now();
    end.send_replace(Some(now));
    let followed = limited("the alerts", follower)
        .await
        .expect("the follower goes on");

    let raised = cluster.sum("select count(*) from pgbraid.alert").await;
    assert_eq!(raised, followed.len() as i64);
    let (alerts, tokens): (Vec<v1::Alert>, Vec<String>) = followed.into_iter().unzip();
    let all = places(&alerts);
    check_alerts(&alerts, &expected_alerts);
    check_rows(&router, &expected_rows, key).await;
    check_places(&cluster, &expected_rows, key).await;

    let late = catch_up(&router, Start::Earliest(v1::Earliest {}), now).await;
    assert_eq!(places(&late), all);
    check_alerts(&late, &expected_alerts);
    for taken in [1, alerts.len() / 3, alerts.len() / 2, alerts.len()] {
        let token = Start::Token(tokens[taken - 1].clone());
        let rest = catch_up(&router, token, now).await;
        assert_eq!(
            places(&rest),
            places(&alerts[taken..]),
            "after {taken} alerts"
        );
    }
    assert_eq!(router.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_with_uuid_keys() {
    run(Key::Uuid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_with_text_keys() {
    run(Key::Text).await;
}
