//! How writes of one key meet: order, absent and null, merge policies, versions, unknown columns.

use std::collections::BTreeMap;

use pgbraid_proto::v1::{self, write_request::Form};
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, absent, int, int32s, int64s, null, text},
};
use serde_json::{Map, Value, json};

async fn start(columns: &str, feed: &str) -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions {
        schema: format!(
            "create table feed (id int8 primary key, {columns}) partition by hash (id);"
        ),
        config: format!("[feeds.feed]\n{feed}\n"),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

/// Every stored row as JSON, by key.
async fn stored(cluster: &Cluster) -> BTreeMap<i64, Value> {
    let mut stored = BTreeMap::new();
    for instance in 0..cluster.instances().into() {
        let rows = "select id, to_jsonb(f)::text from public.feed f";
        for row in cluster
            .sql(instance)
            .await
            .query(rows, &[])
            .await
            .expect("feed is there")
        {
            let value = serde_json::from_str(row.get(1)).expect("JSON");
            assert_eq!(
                stored.insert(row.get(0), value),
                None,
                "a key is stored once"
            );
        }
    }
    stored
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

fn delete(key: i64) -> v1::Row {
    v1::Row {
        operation: v1::Operation::Delete.into(),
        key: Some(int(key)),
        values: vec![],
    }
}

fn upsert(key: i64, values: Vec<v1::Value>) -> v1::Row {
    v1::Row {
        operation: v1::Operation::Upsert.into(),
        key: Some(int(key)),
        values,
    }
}

fn request(columns: &[&str], rows: Vec<v1::Row>) -> v1::WriteRequest {
    let columns = columns.iter().map(|name| (*name).to_owned()).collect();
    v1::WriteRequest {
        feed: "feed".into(),
        form: Some(Form::Rows(v1::RowBatch { columns, rows })),
        ..Default::default()
    }
}

#[tokio::test]
async fn writes_of_one_key_in_one_request_count_in_their_order() {
    let (cluster, router) = start("c1 int, c2 int", "").await;
    let level = v1::Rule {
        name: "every".into(),
        feed: "feed".into(),
        expression: "c1 >= 0".into(),
        channel: "a".into(),
        mode: v1::RuleMode::Level.into(),
        ..Default::default()
    };
    let put = v1::PutRulesRequest {
        rules: vec![v1::RulePut {
            rule: Some(level),
            expected_version: None,
        }],
        ..Default::default()
    };
    rows::admin(&router)
        .await
        .put_rules(put)
        .await
        .expect("the rule is taken");
    let rows = vec![
        // Passing values are seen by rules, one after the other.
        upsert(1, vec![int(1)]),
        upsert(1, vec![int(2)]),
        upsert(1, vec![int(3)]),
        // Different columns are one row.
        upsert(2, vec![int(1), absent()]),
        upsert(2, vec![absent(), int(2)]),
        // A delete hides what came before it, not what comes after.
        upsert(3, vec![int(1), int(1)]),
        delete(3),
        upsert(3, vec![absent(), int(9)]),
        upsert(4, vec![int(1)]),
        delete(4),
        delete(5),
        upsert(5, vec![int(5)]),
        delete(6),
        delete(6),
        // Nothing but the key.
        upsert(7, vec![]),
        upsert(8, vec![null(), int(1)]),
    ];
    let mut writer = Writer::open(&router).await;
    let count = rows.len() as u64;
    let number = writer
        .send(request(&["c1", "c2"], rows))
        .await
        .expect("the stream is open");
    let (_, answer) = writer.answer().await.expect("there is an answer");
    assert_eq!(
        (answer.sequence, answer.rows_committed),
        (number, count),
        "{answer:?}"
    );
    let wanted = BTreeMap::from([
        (1, json!({"id": 1, "c1": 3, "c2": null})),
        (2, json!({"id": 2, "c1": 1, "c2": 2})),
        (3, json!({"id": 3, "c1": null, "c2": 9})),
        (5, json!({"id": 5, "c1": 5, "c2": null})),
        (7, json!({"id": 7, "c1": null, "c2": null})),
        (8, json!({"id": 8, "c1": null, "c2": 1})),
    ]);
    assert_eq!(stored(&cluster).await, wanted);
    let alerts = "select count(*) from pgbraid.alert where key = '1'";
    assert_eq!(cluster.sum(alerts).await, 3, "each value of c1 was seen");
    // Absent leaves what is stored, null removes it, a delete by column form too.
    let rows = vec![
        upsert(1, vec![absent(), int(7)]),
        upsert(2, vec![null(), absent()]),
    ];
    writer.write(request(&["c1", "c2"], rows)).await;
    let mut deletes = rows::columnar("feed", int64s("", &[5, 7, 100]), vec![]);
    if let Some(Form::Columnar(columnar)) = &mut deletes.form {
        columnar.operation = v1::Operation::Delete.into();
    }
    writer.write(deletes).await;
    let now = stored(&cluster).await;
    assert_eq!(now[&1], json!({"id": 1, "c1": 3, "c2": 7}));
    assert_eq!(now[&2], json!({"id": 2, "c1": null, "c2": 2}));
    assert_eq!(now.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 8]);
}

const POLICIES: [&str; 5] = ["v", "hi", "lo", "first", "doc"];

/// What the policies mean, one write after the other.
fn fold(row: Option<&Map<String, Value>>, write: &[(usize, Value)]) -> Map<String, Value> {
    let mut next = row.cloned().unwrap_or_default();
    for (column, value) in write {
        let name = POLICIES[*column];
        let before = next.get(name).cloned().unwrap_or(Value::Null);
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        let after = match (name, &before, value) {
            ("v", _, value) | (_, Value::Null, value) => value.clone(),
            (_, before, Value::Null) => before.clone(),
            ("hi", before, value) => json!(number(before).max(number(value))),
            ("lo", before, value) => json!(number(before).min(number(value))),
            ("doc", Value::Object(before), Value::Object(value)) => {
                let mut all = before.clone();
                all.extend(value.clone());
                Value::Object(all)
            }
            (_, before, _) => before.clone(),
        };
        next.insert(name.to_owned(), after);
    }
    next
}

#[tokio::test]
async fn policies_mean_the_same_however_writes_fall_into_batches() {
    let merge = r#"merge = { hi = "max", lo = "min", first = "keep_first", doc = "json_merge" }"#;
    for coalesce in ["disjoint", "last"] {
        let feed = format!("coalesce = \"{coalesce}\"\n{merge}");
        let (cluster, router) = start("v int, hi int, lo int, first int, doc jsonb", &feed).await;
        let mut dice = Dice(88_172_645_463_325_252);
        let mut model: BTreeMap<i64, Map<String, Value>> = BTreeMap::new();
        let mut writer = Writer::open(&router).await;
        for _ in 0..200 {
            let mut rows = Vec::new();
            for _ in 0..=dice.roll(20) {
                let key = dice.roll(12) as i64;
                if dice.roll(12) == 0 {
                    rows.push(delete(key));
                    model.remove(&key);
                    continue;
                }
                let mut write = Vec::new();
                let mut values = Vec::new();
                for (column, name) in POLICIES.into_iter().enumerate() {
                    let number = dice.roll(100) as i64;
                    let value = match (dice.roll(4), name) {
                        (0, _) => Value::Null,
                        (1, "doc") => json!({ format!("k{}", number % 3): number }),
                        (1, _) => json!(number),
                        _ => {
                            values.push(absent());
                            continue;
                        }
                    };
                    values.push(match &value {
                        Value::Null => null(),
                        Value::Object(_) => text(value.to_string()),
                        _ => int(number),
                    });
                    write.push((column, value));
                }
                let next = fold(model.get(&key), &write);
                model.insert(key, next);
                rows.push(upsert(key, values));
            }
            writer
                .send(request(&POLICIES, rows))
                .await
                .expect("the stream is open");
            while writer.in_flight() > 24 {
                let (_, answer) = writer.answer().await.expect("the stream goes on");
                assert_eq!((answer.status, answer.refused), (None, vec![]));
            }
        }
        writer.settle().await;
        let wanted: BTreeMap<i64, Value> = model
            .into_iter()
            .map(|(key, mut row)| {
                for name in POLICIES {
                    row.entry(name).or_insert(Value::Null);
                }
                row.insert("id".into(), json!(key));
                (key, Value::Object(row))
            })
            .collect();
        assert_eq!(stored(&cluster).await, wanted, "coalesce = {coalesce}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_never_overwrites_a_newer_one() {
    let (cluster, router) = start("v int8, c1 int, c2 int", "version_column = \"v\"").await;
    // Four streams write the same versions of the same keys, each in an order of its own.
    let mut tasks = tokio::task::JoinSet::new();
    for stream in 1..=4 {
        let mut writer = Writer::open(&router).await;
        tasks.spawn(async move {
            let mut dice = Dice(stream * 7_919 + 88_172_645_463_325_252);
            for _ in 0..150 {
                let keys: Vec<i64> = (0..20).collect();
                let versions: Vec<i64> =
                    keys.iter().map(|_| 1 + dice.roll(10_000) as i64).collect();
                let values: Vec<i32> = versions.iter().map(|version| *version as i32 * 3).collect();
                let columns = vec![int64s("v", &versions), int32s("c1", &values)];
                let request = rows::columnar("feed", int64s("", &keys), columns);
                writer.send(request).await.expect("the stream is open");
                while writer.in_flight() > 12 {
                    writer.answer().await.expect("the stream goes on");
                }
            }
            // The newest of all, and an old one after it.
            for version in [10_001, 1] {
                let rows = (0..20).map(|key| (int(key), vec![int(version), int(version * 3)]));
                writer
                    .send(rows::rows("feed", &["v", "c1"], rows))
                    .await
                    .expect("open");
            }
            writer.settle().await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a stream does not break");
    }
    for (key, row) in stored(&cluster).await {
        assert_eq!(
            row,
            json!({"id": key, "v": 10_001, "c1": 30_003, "c2": null})
        );
    }
    // Without a version there is nothing to compare: the write counts.
    let mut writer = Writer::open(&router).await;
    writer
        .write(rows::rows("feed", &["c2"], [(int(1), vec![int(5)])]))
        .await;
    // The same version again is the same event again.
    writer
        .write(rows::rows(
            "feed",
            &["v", "c1"],
            [(int(1), vec![int(10_001), int(6)])],
        ))
        .await;
    let old = [(int(1), vec![int(10_000), int(7), int(7)])];
    writer
        .write(rows::rows("feed", &["v", "c1", "c2"], old))
        .await;
    assert_eq!(
        stored(&cluster).await[&1],
        json!({"id": 1, "v": 10_001, "c1": 6, "c2": 5})
    );
}

#[tokio::test]
async fn unknown_columns_are_kept_where_the_settings_say() {
    let (cluster, router) = start("c1 int, attrs jsonb", "overflow = \"attrs\"").await;
    let mut writer = Writer::open(&router).await;
    let row = |c1, colour: v1::Value, size: v1::Value| vec![c1, colour, size];
    let all = [
        (int(1), row(int(1), text("red"), int(5))),
        (int(2), row(absent(), absent(), null())),
        (int(3), row(int(3), absent(), absent())),
    ];
    writer
        .write(rows::rows("feed", &["c1", "colour", "size"], all))
        .await;
    // Another writer adds to the same object, in the other form.
    writer
        .write(rows::columnar(
            "feed",
            int64s("", &[1, 3]),
            vec![int32s("Weight kg", &[7, 8])],
        ))
        .await;
    let bad = [(int(1), vec![text("blue")]), (int(4), vec![text("a\0b")])];
    let answer = rows::ingest(&router)
        .await
        .write(rows::rows("feed", &["colour"], bad))
        .await;
    let answer = answer.expect("one row is good").into_inner();
    assert_eq!(answer.refused.len(), 1, "{answer:?}");
    assert_eq!(
        (answer.refused[0].index, answer.refused[0].column.as_str()),
        (1, "colour")
    );
    let both = rows::rows(
        "feed",
        &["attrs", "colour"],
        [(int(1), vec![text("{}"), text("x")])],
    );
    rows::ingest(&router)
        .await
        .write(both)
        .await
        .expect_err("written in two ways");
    let wanted = BTreeMap::from([
        (
            1,
            json!({"id": 1, "c1": 1, "attrs": {"colour": "blue", "size": 5, "Weight kg": 7}}),
        ),
        (2, json!({"id": 2, "c1": null, "attrs": {"size": null}})),
        (3, json!({"id": 3, "c1": 3, "attrs": {"Weight kg": 8}})),
    ]);
    assert_eq!(stored(&cluster).await, wanted);
}
