//! Routing is PostgreSQL's own hash partitioning: thousands of keys of each type against a live
//! server. The seed of the random keys is new in each run; a failure names the key.

use std::fmt::Debug;

use pgbraid_proto::v1;
use pgbraid_shardmap::hash;
use pgbraid_tests::{
    Cluster, ClusterOptions, Writer,
    rows::{self, int, text},
};
use proptest::{
    arbitrary::any,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tokio_postgres::{Client, types::ToSql};

const MODULI: [u32; 5] = [1, 2, 7, 64, 4096];
/// Random keys of each kind.
const RANDOM: usize = 3000;

fn random<T: Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::default();
    let tree = proptest::collection::vec(strategy, RANDOM).new_tree(&mut runner);
    tree.expect("keys can be made").current()
}

fn int8_keys() -> Vec<i64> {
    let mut keys = vec![0, 1, -1, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1];
    // Around the edges of every width, on both sides of zero.
    for bit in 0..63 {
        let edge = 1_i64 << bit;
        keys.extend([edge - 1, edge, edge + 1, -edge - 1, -edge, 1 - edge]);
    }
    keys.extend(-500..500);
    keys.extend(random(any::<i64>()));
    keys.extend(random(any::<i32>()).into_iter().map(i64::from));
    distinct(keys)
}

fn uuid_keys() -> Vec<u128> {
    let mut keys = vec![0, 1, u128::MAX, u128::MAX - 1, 1 << 127];
    keys.extend((0..128).map(|bit| 1_u128 << bit));
    keys.extend(random(any::<u128>()));
    distinct(keys)
}

fn text_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "",
        " ",
        "  ",
        "a",
        "A",
        "Größe",
        "注文-七",
        "🦀",
        "e\u{301}",
        "\u{e9}",
    ]
    .map(String::from)
    .into();
    keys.extend(
        [
            "\n",
            "\t",
            "\\",
            "'",
            "\"",
            "{}",
            "NULL",
            "\u{10ffff}",
            "\u{7f}",
        ]
        .map(String::from),
    );
    // Every length around the hash's blocks of 12 bytes, in one, two, three and four bytes a letter.
    for length in 0..40 {
        keys.extend(["x", "é", "注", "🦀"].map(|letter| letter.repeat(length)));
    }
    // An index holds keys of up to 2704 bytes, compressed: 100,000 equal ones.
    keys.extend([1000, 10_000, 20_000].map(|length| "long ".repeat(length)));
    let plain = |text: &String| !text.contains('\0');
    keys.extend(random(any::<String>()).into_iter().filter(plain));
    keys.extend(random("[a-z0-9-]{0,40}"));
    distinct(keys)
}

fn distinct<T: Ord>(mut keys: Vec<T>) -> Vec<T> {
    keys.sort();
    keys.dedup();
    keys
}

fn uuid_text(key: u128) -> String {
    let digits = format!("{key:032x}");
    let parts = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    parts.join("-")
}

/// PostgreSQL agrees that each key belongs to the partition that we say, for every modulus.
/// `keys` is an SQL array of `ty`.
async fn agrees(sql: &Client, ty: &str, keys: &(dyn ToSql + Sync), hashes: &[u64]) {
    sql.batch_execute(&format!(
        "create table of_{ty} (key {ty}) partition by hash (key)"
    ))
    .await
    .expect("a table can be made");
    let array = if ty == "int8" { "int8[]" } else { "text[]" };
    let question = format!(
        "select count(*), min(key::text) filter (where not satisfies_hash_partition( \
             'of_{ty}'::regclass, $3, remainder, key::{ty})) \
         from unnest($1::{array}, $2::int[]) as u(key, remainder)"
    );
    for modulus in MODULI {
        let remainders: Vec<i32> = hashes
            .iter()
            .map(|hash| hash::table_of(*hash, modulus).index() as i32)
            .collect();
        let row = sql
            .query_one(&question, &[keys, &remainders, &(modulus as i32)])
            .await
            .expect("PostgreSQL knows its partitions");
        assert_eq!(row.get::<_, i64>(0), hashes.len() as i64);
        let wrong: Option<String> = row.get(1);
        assert_eq!(
            wrong, None,
            "a key of type {ty} in another of {modulus} tables"
        );
    }
}

#[tokio::test]
async fn every_key_has_the_table_that_postgresql_gives_it() {
    let cluster = Cluster::start_bare(&ClusterOptions {
        instances: 1,
        ..Default::default()
    })
    .await;
    let sql = cluster.sql(0).await;

    let keys = int8_keys();
    let hashes: Vec<u64> = keys.iter().map(|key| hash::int8(*key)).collect();
    agrees(&sql, "int8", &keys, &hashes).await;

    let keys = uuid_keys();
    let hashes: Vec<u64> = keys
        .iter()
        .map(|key| hash::bytes(&key.to_be_bytes()))
        .collect();
    let texts: Vec<String> = keys.into_iter().map(uuid_text).collect();
    agrees(&sql, "uuid", &texts, &hashes).await;

    let keys = text_keys();
    let hashes: Vec<u64> = keys.iter().map(|key| hash::bytes(key.as_bytes())).collect();
    agrees(&sql, "text", &keys, &hashes).await;
}

/// Key as it is sent, as PostgreSQL shows it, and its hash.
type Key = (v1::Value, String, u64);

/// Writes a row of each key, and finds each where we say.
async fn lie_where_they_belong(
    cluster: &Cluster,
    writer: &mut Writer,
    feed: &str,
    tables: u32,
    keys: &[Key],
) {
    for keys in keys.chunks(1000) {
        let keys = keys
            .iter()
            .map(|(value, _, _)| (value.clone(), vec![int(1)]));
        let request = rows::rows(feed, &["a"], keys);
        writer.send(request).await.expect("the stream is open");
    }
    writer.settle().await;
    let mut found: Vec<(String, String)> = Vec::new();
    for instance in 0..usize::from(cluster.instances()) {
        let stored = format!("select id::text, tableoid::regclass::text from {feed}");
        let stored = cluster.sql(instance).await.query(&stored, &[]).await;
        let stored = stored.expect("rows can be read");
        found.extend(stored.iter().map(|row| (row.get(0), row.get(1))));
    }
    found.sort();
    let mut expected: Vec<(String, String)> = keys
        .iter()
        .map(|(_, shown, hash)| {
            let table = hash::table_of(*hash, tables).index();
            (shown.clone(), format!("{feed}_{table}"))
        })
        .collect();
    expected.sort();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[tokio::test]
async fn rows_lie_in_the_table_that_their_key_names() {
    let feeds = [
        ("ints", "int8", 7),
        ("uuids", "uuid", 64),
        ("texts", "text", 100),
    ];
    let schema = feeds.map(|(feed, ty, _)| {
        format!("create table {feed} (id {ty} primary key, a int) partition by hash (id);\n")
    });
    let cluster = Cluster::start(ClusterOptions {
        instances: 2,
        schema: schema.concat(),
        feeds: feeds.map(|(feed, _, tables)| (feed.into(), tables)).into(),
        ..Default::default()
    })
    .await;
    let router = cluster.router();
    let mut writer = Writer::open(&router).await;
    let ints = int8_keys().into_iter();
    let uuids = uuid_keys().into_iter();
    let texts = text_keys().into_iter();
    let keys: [Vec<Key>; 3] = [
        ints.map(|key| (int(key), key.to_string(), hash::int8(key)))
            .collect(),
        uuids
            .map(|key| {
                let shown = uuid_text(key);
                (text(shown.clone()), shown, hash::bytes(&key.to_be_bytes()))
            })
            .collect(),
        texts
            .map(|key| (text(key.clone()), key.clone(), hash::bytes(key.as_bytes())))
            .collect(),
    ];
    for ((feed, _, tables), keys) in feeds.into_iter().zip(&keys) {
        lie_where_they_belong(&cluster, &mut writer, feed, tables, keys).await;
    }
    let mut admin = rows::admin(&router).await;
    for ((feed, _, tables), keys) in feeds.into_iter().zip(&keys) {
        for (_, shown, hash) in keys.iter().step_by(100) {
            let request = v1::LocateRequest {
                feed: feed.into(),
                key: shown.clone(),
            };
            let place = admin
                .locate(request)
                .await
                .expect("the key is taken")
                .into_inner();
            assert_eq!(
                place.table,
                hash::table_of(*hash, tables).to_string(),
                "key {shown:?}"
            );
        }
    }
    assert_eq!(router.stop(), 0);
}

#[tokio::test]
async fn a_key_that_no_index_can_hold_is_refused_alone() {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        schema: "create table texts (id text primary key, a int) partition by hash (id);".into(),
        feeds: vec![("texts".into(), 2)],
        ..Default::default()
    })
    .await;
    let router = cluster.router();
    let mut writer = Writer::open(&router).await;
    // Random letters can't be compressed.
    let mut keys: Vec<String> = (0..100).map(|key| format!("key {key}")).collect();
    keys[50] = random("[a-z]{40}").concat();
    let request = keys.iter().map(|key| (text(key.clone()), vec![int(1)]));
    let request = rows::rows("texts", &["a"], request);
    writer.send(request).await.expect("the stream is open");
    let (_, answer) = writer.answer().await.expect("the stream goes on");
    assert_eq!(answer.status, None);
    assert_eq!(answer.rows_committed, 99);
    assert_eq!(answer.refused.len(), 1);
    let refused = &answer.refused[0];
    assert_eq!(
        (refused.index, refused.code),
        (50, tonic::Code::InvalidArgument as i32)
    );
    assert_eq!(refused.sqlstate, "54000");
    assert_eq!(router.stop(), 0);
}
