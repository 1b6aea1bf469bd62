//! Rows that only PostgreSQL can find to be bad: they are refused, and nobody else is.

use std::{collections::BTreeMap, time::Duration};

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Refusal, Router, Writer,
    rows::{self, absent, int, int32s, int64s, text},
};
use tonic::Code;

const SCHEMA: &str = r#"
create table kinds (kind int primary key);
insert into kinds values (1), (2);
create type mood as enum ('good', 'bad');
create table feed (
    id int8 primary key,
    c1 int constraint c1_not_negative check (c1 >= 0),
    c2 int,
    c3 int default 0,
    kind int constraint known_kind references kinds,
    must int not null default 7,
    mood mood,
    took interval
) partition by hash (id);
create function poison() returns trigger language plpgsql as $$
begin
    if new.c2 = 101 then raise exception 'c2 must not be 101'; end if;
    if new.c2 = 102 then new.c3 := new.c2 * 2000000000; end if;
    if new.c2 = 103 then raise exception 'own code' using errcode = 'MY001'; end if;
    if new.c2 = 104 then raise exception 'own check' using errcode = 'check_violation'; end if;
    if new.c2 = 105 then new.c3 := 1 / (new.c2 - 105); end if;
    if new.c2 = 106 then raise exception 'too much' using errcode = 'program_limit_exceeded'; end if;
    if new.c2 = 107 then perform 1 / 0 from pg_class; end if;
    return new;
end $$;
create trigger poison before insert or update on feed for each row execute function poison();
create table named (name text primary key, c1 int) partition by hash (name);
"#;

async fn start() -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions {
        instances: 1,
        schema: SCHEMA.into(),
        // One table: a request is a batch.
        feeds: vec![("feed".into(), 1), ("named".into(), 1)],
        config: "[ingest]\nrequest_timeout = \"15s\"\n".into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

/// Sends a request on a stream and returns its answer.
async fn answer(router: &Router, request: v1::WriteRequest) -> v1::WriteResponse {
    let mut writer = Writer::open(router).await;
    writer.send(request).await.expect("the stream is open");
    let (_, answer) = writer.answer().await.expect("there is an answer");
    assert_eq!(answer.status, None, "the request itself is right");
    answer
}

async fn count(cluster: &Cluster, condition: &str) -> i64 {
    cluster
        .sum(&format!(
            "select count(*) from public.feed where {condition}"
        ))
        .await
}

#[tokio::test]
async fn bad_rows_of_a_large_batch_are_refused_alone() {
    let (cluster, router) = start().await;
    // Row, the column and its value, SQLSTATE, reason, constraint.
    let bad = [
        (0, "c1", -1, "23514", "CHECK_VIOLATION", "c1_not_negative"),
        (7, "c2", 101, "P0001", "TRIGGER_ERROR", ""),
        (1999, "c2", 102, "22003", "OUT_OF_RANGE", ""),
        (
            2000,
            "kind",
            3,
            "23503",
            "FOREIGN_KEY_VIOLATION",
            "known_kind",
        ),
        (2001, "c2", 103, "MY001", "REFUSED_BY_POSTGRES", ""),
        (2500, "c2", 104, "23514", "CHECK_VIOLATION", ""),
        (3000, "c2", 105, "22012", "INVALID_VALUE", ""),
        (3001, "c2", 106, "54000", "REFUSED_BY_POSTGRES", ""),
        (3999, "c2", 107, "22012", "INVALID_VALUE", ""),
    ];
    let keys: Vec<i64> = (0..4000).map(|row| row * 31 % 4000).collect();
    let value = |column: &str, good: i32| -> Vec<i32> {
        (0..4000)
            .map(
                |row| match bad.iter().find(|one| one.0 == row && one.1 == column) {
                    Some(one) => one.2,
                    None => good,
                },
            )
            .collect()
    };
    let columns = ["c1", "c2", "kind"].map(|name| int32s(name, &value(name, 1)));
    let request = rows::columnar("feed", int64s("", &keys), columns.into());
    let started = std::time::Instant::now();
    let answer = answer(&router, request).await;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "the batch is not stuck: {:?}",
        started.elapsed()
    );
    assert_eq!(
        answer.rows_committed,
        4000 - bad.len() as u64,
        "{:?}",
        answer.refused
    );
    let refused: BTreeMap<u32, &v1::RefusedRow> =
        answer.refused.iter().map(|row| (row.index, row)).collect();
    for (index, column, value, sqlstate, reason, constraint) in bad {
        let row = refused[&(index as u32)];
        let case = format!("{column} = {value}: {row:?}");
        assert_eq!(row.code, Code::InvalidArgument as i32, "{case}");
        assert_eq!(row.sqlstate, sqlstate, "{case}");
        assert_eq!(row.reason, reason, "{case}");
        assert_eq!(row.constraint, constraint, "{case}");
        assert_eq!(row.retry_delay, None, "{case}");
        let key = keys[index as usize];
        assert!(row.message.contains(&format!("key {key}: ")), "{case}");
        assert_eq!(count(&cluster, &format!("id = {key}")).await, 0, "{case}");
    }
    assert_eq!(refused.len(), bad.len(), "no other row is refused");
    assert_eq!(
        count(&cluster, "c1 = 1 and c2 = 1").await,
        4000 - bad.len() as i64
    );
    assert!(router.metric("pgbraid_poison_splits_total", &[]) > 0.0);
    assert_eq!(
        router.metric("pgbraid_instance_writable", &[]),
        1.0,
        "poison is no outage"
    );
}

#[tokio::test]
async fn values_that_postgresql_parses_are_refused_alone() {
    let (cluster, router) = start().await;
    let row = |key, mood: &str, took: &str| (int(key), vec![text(mood), text(took)]);
    let request = rows::rows(
        "feed",
        &["mood", "took"],
        [
            row(1, "good", "1 day"),
            row(2, "furious", "2 days"),
            row(3, "bad", "three fortnights"),
            row(4, "bad", "P1DT2H"),
        ],
    );
    let answer = answer(&router, request).await;
    let found: Vec<_> = answer
        .refused
        .iter()
        .map(|row| (row.index, row.sqlstate.as_str(), row.reason.as_str()))
        .collect();
    assert_eq!(
        found,
        [(1, "22P02", "INVALID_VALUE"), (2, "22007", "INVALID_VALUE")]
    );
    assert_eq!(
        count(&cluster, "id in (1, 4) and mood is not null").await,
        2
    );
    assert_eq!(count(&cluster, "true").await, 2);
}

#[tokio::test]
async fn a_column_that_must_not_be_null_is_refused_at_the_edge() {
    let (cluster, router) = start().await;
    let request = rows::rows(
        "feed",
        &["must", "c1"],
        [
            (int(1), vec![int(1), int(1)]),
            (int(2), vec![rows::null(), int(1)]),
            (int(3), vec![absent(), int(1)]),
        ],
    );
    let answer = answer(&router, request).await;
    let [refused] = answer.refused.as_slice() else {
        panic!("one row is refused: {answer:?}");
    };
    assert_eq!((refused.index, refused.reason.as_str()), (1, "NOT_NULL"));
    assert_eq!(refused.column, "must");
    assert_eq!(
        count(&cluster, "id = 3 and must = 7").await,
        1,
        "absent takes the default"
    );
}

/// Writes of one key that went into one row are taken apart when that row is refused.
#[tokio::test]
async fn of_merged_writes_only_the_bad_one_is_refused() {
    let (cluster, router) = start().await;
    let column = |at: usize, value: i64| {
        let mut values = vec![absent(), absent(), absent()];
        values[at] = int(value);
        values
    };
    for (case, (key, bad)) in [(1, 0), (2, 1), (3, 2)].into_iter().enumerate() {
        let good = [5, 6, 1];
        let poison = [-1, 101, 3];
        let writes = (0..3).map(|at| {
            let value = if at == bad { poison[at] } else { good[at] };
            (int(key), column(at, value))
        });
        let neighbour = [(int(100 + key), vec![int(1), int(1), int(1)])];
        let all = neighbour.into_iter().chain(writes);
        let answer = answer(&router, rows::rows("feed", &["c1", "c2", "kind"], all)).await;
        let indexes: Vec<u32> = answer.refused.iter().map(|row| row.index).collect();
        assert_eq!(indexes, [1 + bad as u32], "case {case}: {answer:?}");
        assert_eq!(answer.rows_committed, 3, "case {case}");
        let wanted = (0..3).map(|at| {
            let name = ["c1", "c2", "kind"][at];
            let value = if at == bad {
                "null".into()
            } else {
                good[at].to_string()
            };
            format!("{name} is not distinct from {value}")
        });
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        let stored = count(&cluster, &format!("id = {key} and {wanted}")).await;
        assert_eq!(
            stored, 1,
            "case {case}: the other writes of the key are stored"
        );
    }
}

/// A bad write between two good ones of the same column: the last good one stands.
#[tokio::test]
async fn later_writes_of_a_poisoned_key_go_on() {
    let (cluster, router) = start().await;
    let writes = [1, 101, 2, 101, 3].map(|value| (int(1), vec![int(value)]));
    let answer = answer(&router, rows::rows("feed", &["c2"], writes)).await;
    let indexes: Vec<u32> = answer.refused.iter().map(|row| row.index).collect();
    assert_eq!(indexes, [1, 3], "{answer:?}");
    assert_eq!(count(&cluster, "id = 1 and c2 = 3").await, 1);
}

/// A key that is too long for PostgreSQL's index must not be taken for an outage: the instance
/// would be given up for everybody.
#[tokio::test]
async fn a_key_too_long_for_the_index_is_refused_alone() {
    let (cluster, router) = start().await;
    // Not compressible.
    let mut seed = 88_172_645_463_325_252_u64;
    let long: String = (0..6000)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            char::from(b'!' + (seed % 90) as u8)
        })
        .collect();
    let keys = ["a", &long, "b", ""];
    let request = rows::rows("named", &["c1"], keys.map(|key| (text(key), vec![int(1)])));
    let answer = answer(&router, request).await;
    let [refused] = answer.refused.as_slice() else {
        panic!("one row is refused: {answer:?}");
    };
    assert_eq!(
        (refused.index, refused.code),
        (1, Code::InvalidArgument as i32),
        "{refused:?}"
    );
    assert!(
        refused.message.len() < 1000,
        "a long key is not shown whole"
    );
    assert_eq!(cluster.sum("select count(*) from named").await, 3);
    assert_eq!(
        router.metric("pgbraid_instance_writable", &[]),
        1.0,
        "poison is no outage"
    );
}

#[tokio::test]
async fn a_call_of_which_every_row_is_bad_fails() {
    let (_cluster, router) = start().await;
    let bad = rows::rows("feed", &["c1"], [1, 2].map(|key| (int(key), vec![int(-1)])));
    let status = rows::ingest(&router)
        .await
        .write(bad)
        .await
        .expect_err("nothing was written");
    let refusal = Refusal::from(&status);
    refusal.assert_bad_field("CHECK", "CHECK_VIOLATION", "rows[0]", "c1_not_negative");
    assert_eq!(refusal.violations.len(), 2, "{refusal:?}");
    let some = rows::rows(
        "feed",
        &["c1"],
        [-1, 1].map(|value| (int(value), vec![int(value)])),
    );
    let answer = rows::ingest(&router).await.write(some).await;
    let answer = answer.expect("a row was written").into_inner();
    assert_eq!((answer.rows_committed, answer.refused.len()), (1, 1));
}
