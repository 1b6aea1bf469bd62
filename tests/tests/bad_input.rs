//! Requests and values that can't be right: each gets a clear answer, and its neighbours are
//! written.

use bytes::Bytes;
use pgbraid_proto::v1::{self, column::Values, value::Kind, write_request::Form};
use pgbraid_tests::{
    Cluster, ClusterOptions, Refusal, Router, Writer,
    rows::{self, absent, column, int, int32s, int64s, null, text},
};
use tonic::Code;

/// As long as PostgreSQL takes it, 63 bytes, and not ASCII.
fn long_name() -> String {
    format!("{}é", "n".repeat(61))
}

async fn start() -> (Cluster, Router) {
    let schema = format!(
        r#"create schema "Orders Wide";
        create type public.mood as enum ('good', 'bad');
        create table "Orders Wide"."T x" ("Key id" int8 primary key, c1 int, small int2, big int8,
            f4 float4, f8 float8, price numeric(10,2), any_num numeric, note text, code varchar(5),
            raw bytea, uid uuid, day date, at_time time, ts timestamp, at timestamptz,
            took interval, doc json, docb jsonb, tags text[], nums int[], mood public.mood,
            addr inet, yes bool, "{}" int, twice int generated always as (c1 * 2) stored,
            must int not null default 1) partition by hash ("Key id");"#,
        long_name()
    );
    let cluster = Cluster::start(ClusterOptions {
        schema,
        feeds: vec![("wide".into(), 16)],
        config: "[ingest]\nmax_request_rows = 200\nmax_request_bytes = \"64KiB\"\n\
                 [grpc]\nmax_message_bytes = \"128KiB\"\n\
                 [feeds.wide]\ntable = '\"Orders Wide\".\"T x\"'\n"
            .into(),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

async fn count(cluster: &Cluster, condition: &str) -> i64 {
    cluster
        .sum(&format!(
            r#"select count(*) from "Orders Wide"."T x" where {condition}"#
        ))
        .await
}

fn one_row(columns: &[&str], values: Vec<v1::Value>) -> v1::WriteRequest {
    rows::rows("wide", columns, [(int(1), values)])
}

fn with_columns(columns: Vec<v1::Column>) -> v1::WriteRequest {
    rows::columnar("wide", int64s("", &[1, 2]), columns)
}

fn utf8(data: &[u8], ends: &[u32]) -> Values {
    Values::Utf8(v1::Utf8 {
        data: data.to_vec().into(),
        ends: ends
            .iter()
            .flat_map(|end| end.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    })
}

fn nulls(mut column: v1::Column, bits: &[u8]) -> v1::Column {
    column.nulls = Bytes::copy_from_slice(bits);
    column
}

fn operation(mut request: v1::WriteRequest, operation: i32) -> v1::WriteRequest {
    match request.form.as_mut() {
        Some(Form::Rows(batch)) => batch.rows[0].operation = operation,
        Some(Form::Columnar(columnar)) => columnar.operation = operation,
        None => {}
    }
    request
}

fn timeout(seconds: i64) -> v1::WriteRequest {
    let mut request = one_row(&["c1"], vec![int(1)]);
    request.timeout = Some(std::time::Duration::ZERO.try_into().expect("a time"));
    if let Some(timeout) = &mut request.timeout {
        timeout.seconds = seconds;
    }
    request
}

/// Request, reason, field, part of the description.
fn bad_requests() -> Vec<(v1::WriteRequest, &'static str, &'static str, &'static str)> {
    let named = |name: &str| v1::WriteRequest {
        feed: name.into(),
        ..one_row(&["c1"], vec![int(1)])
    };
    let no_key = v1::WriteRequest {
        form: Some(Form::Columnar(v1::ColumnarRows::default())),
        ..named("wide")
    };
    let no_form = v1::WriteRequest {
        form: None,
        ..named("wide")
    };
    let no_values = v1::Column {
        values: None,
        ..int32s("c1", &[])
    };
    let ones = |name| int32s(name, &[1, 1]);
    let bytes = |bytes: &'static [u8]| column("c1", Values::Int32s(Bytes::from_static(bytes)));
    let large = "x".repeat(70_000);
    vec![
        (named("wido"), "UNKNOWN_FEED", "feed", "wide"),
        (named(""), "UNKNOWN_FEED", "feed", "wide"),
        (no_form, "EMPTY_REQUEST", "form", "columnar"),
        (
            rows::rows("wide", &["c1"], []),
            "EMPTY_REQUEST",
            "rows.rows",
            "at least one",
        ),
        (no_key, "NO_KEY", "columnar.key", "every row needs one"),
        (
            rows::columnar("wide", int64s("", &[]), vec![]),
            "EMPTY_REQUEST",
            "columnar.key",
            "no rows",
        ),
        (
            one_row(&["small", "c11"], vec![]),
            "UNKNOWN_COLUMN",
            "rows.columns[1]",
            "\"c1\"",
        ),
        (
            with_columns(vec![ones("prize")]),
            "UNKNOWN_COLUMN",
            "columnar.columns[0]",
            "\"price\"",
        ),
        (
            one_row(&["C1"], vec![]),
            "UNKNOWN_COLUMN",
            "rows.columns[0]",
            "\"c1\"",
        ),
        (
            one_row(&["c1", "c1"], vec![]),
            "REPEATED_COLUMN",
            "rows.columns[1]",
            "twice",
        ),
        (
            with_columns(vec![ones("c1"), ones("c1")]),
            "REPEATED_COLUMN",
            "columnar.columns[1]",
            "twice",
        ),
        (
            one_row(&["Key id"], vec![]),
            "KEY_AS_COLUMN",
            "rows.columns[0]",
            "is the key",
        ),
        (
            rows::columnar("wide", int64s("id", &[1]), vec![]),
            "WRONG_KEY_COLUMN",
            "columnar.key.name",
            "\"Key id\"",
        ),
        (
            one_row(&["twice"], vec![int(1)]),
            "GENERATED_COLUMN",
            "rows.columns[0]",
            "generated",
        ),
        (
            with_columns(vec![int32s("c1", &[1])]),
            "COLUMN_LENGTH",
            "columnar.columns[0]",
            "2 keys",
        ),
        (
            with_columns(vec![bytes(b"12345")]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "5 bytes",
        ),
        (
            with_columns(vec![nulls(ones("c1"), &[0, 0])]),
            "BAD_COLUMN",
            "columnar.columns[0].nulls",
            "need 1",
        ),
        (
            with_columns(vec![column("note", utf8(b"abc", &[2, 1]))]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "ascend",
        ),
        (
            with_columns(vec![column("note", utf8(b"abc", &[1, 9]))]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "3 bytes",
        ),
        (
            with_columns(vec![column("note", utf8(b"abc", &[1, 2]))]),
            "BAD_COLUMN",
            "columnar.columns[0]",
            "last",
        ),
        (
            with_columns(vec![no_values]),
            "NO_VALUES",
            "columnar.columns[0]",
            "\"c1\"",
        ),
        (
            one_row(&["c1"], vec![int(1), int(2)]),
            "TOO_MANY_VALUES",
            "rows.rows[0].values",
            "2 values",
        ),
        (
            operation(one_row(&["c1"], vec![int(1)]), 1),
            "COLUMNS_IN_DELETE",
            "rows.rows[0].values",
            "key only",
        ),
        (
            operation(with_columns(vec![ones("c1")]), 1),
            "COLUMNS_IN_DELETE",
            "columnar.columns",
            "keys only",
        ),
        (
            operation(one_row(&[], vec![]), 7),
            "UNKNOWN_OPERATION",
            "rows.rows[0].operation",
            "7",
        ),
        (
            operation(with_columns(vec![]), -1),
            "UNKNOWN_OPERATION",
            "columnar.operation",
            "-1",
        ),
        (
            rows::columnar("wide", int64s("", &[0; 201]), vec![]),
            "TOO_MANY_ROWS",
            "columnar.key",
            "200",
        ),
        (
            rows::rows("wide", &[], vec![(int(1), vec![]); 201]),
            "TOO_MANY_ROWS",
            "rows.rows",
            "max_request_rows",
        ),
        (
            one_row(&["note"], vec![text(large)]),
            "REQUEST_TOO_LARGE",
            "request",
            "max_request_bytes",
        ),
        (timeout(0), "BAD_TIMEOUT", "timeout", "zero"),
        (timeout(-1), "BAD_TIMEOUT", "timeout", "zero"),
    ]
}

#[tokio::test]
async fn requests_of_wrong_shape_are_refused_with_their_field() {
    let (cluster, router) = start().await;
    let mut writer = Writer::open(&router).await;
    let mut calls = rows::ingest(&router).await;
    for (number, (request, reason, field, part)) in bad_requests().into_iter().enumerate() {
        let case = format!("case {number}");
        let status = calls.write(request.clone()).await.expect_err(&case);
        Refusal::from(&status).assert_bad_field(&case, reason, field, part);
        // On a stream the others go on: one before it, one after it.
        let key = 1000 + 2 * number as i64;
        let good = |key| rows::rows("wide", &["c1"], [(int(key), vec![int(7)])]);
        for request in [good(key), request, good(key + 1)] {
            writer.send(request).await.expect("the stream is open");
        }
        let mut refused = 0;
        while writer.in_flight() > 0 {
            let (_, answer) = writer.answer().await.expect("the stream goes on");
            match &answer.status {
                None => assert_eq!(
                    (answer.rows_committed, &answer.refused[..]),
                    (1, &[][..]),
                    "{case}"
                ),
                Some(status) => {
                    refused += 1;
                    Refusal::from(status).assert_bad_field(&case, reason, field, part);
                }
            }
        }
        assert_eq!(refused, 1, "{case}");
    }
    let good = 2 * bad_requests().len() as i64;
    assert_eq!(count(&cluster, "c1 = 7").await, good);
    assert_eq!(
        count(&cluster, "true").await,
        good,
        "nothing of the bad requests is there"
    );
}

/// A message beyond the limit of gRPC itself ends the stream, but not what was sent before it.
#[tokio::test]
async fn a_message_that_is_too_large_harms_nothing_before_it() {
    let (cluster, router) = start().await;
    let mut writer = Writer::open(&router).await;
    for key in 0..20 {
        let request = rows::rows("wide", &["c1"], [(int(key), vec![int(7)])]);
        writer.send(request).await.expect("the stream is open");
    }
    let large = one_row(&["note"], vec![text("x".repeat(200_000))]);
    let call = rows::ingest(&router).await.write(large.clone()).await;
    let status = call.expect_err("it is too large");
    assert!(
        status.message().contains("131072"),
        "names the limit: {status:?}"
    );
    writer.send(large).await.expect("the stream is open");
    let mut answered = 0;
    let status = loop {
        match writer.answer().await {
            Ok((_, answer)) => answered += answer.rows_committed,
            Err(status) => break status,
        }
    };
    assert!(
        status.message().contains("131072"),
        "names the limit: {status:?}"
    );
    assert_eq!(answered, 20, "what was taken before is answered");
    assert_eq!(count(&cluster, "c1 = 7").await, 20);
}

fn double(value: f64) -> v1::Value {
    v1::Value {
        kind: Some(Kind::Double(value)),
    }
}

fn boolean(value: bool) -> v1::Value {
    v1::Value {
        kind: Some(Kind::Bool(value)),
    }
}

fn blob(value: &[u8]) -> v1::Value {
    v1::Value {
        kind: Some(Kind::Bytes(value.to_vec().into())),
    }
}

/// Column, value, reason.
fn bad_values() -> Vec<(&'static str, v1::Value, &'static str)> {
    vec![
        ("c1", text("x"), "INVALID_INTEGER"),
        ("c1", text(""), "INVALID_INTEGER"),
        ("c1", text("1.0"), "INVALID_INTEGER"),
        ("c1", double(1.0), "WRONG_TYPE"),
        ("c1", boolean(true), "WRONG_TYPE"),
        ("c1", blob(b"1"), "WRONG_TYPE"),
        ("c1", int(1 << 31), "OUT_OF_RANGE"),
        ("c1", int(-(1 << 31) - 1), "OUT_OF_RANGE"),
        ("c1", text("2147483648"), "OUT_OF_RANGE"),
        ("small", int(32768), "OUT_OF_RANGE"),
        ("big", text("9223372036854775808"), "OUT_OF_RANGE"),
        ("f4", double(1e39), "OUT_OF_RANGE"),
        ("f8", text("1e400"), "OUT_OF_RANGE"),
        ("f8", text("1,5"), "INVALID_FLOAT"),
        ("price", int(100_000_000), "OUT_OF_RANGE"),
        ("price", double(f64::INFINITY), "OUT_OF_RANGE"),
        ("price", text("12,50"), "INVALID_NUMERIC"),
        ("any_num", text("1e200000"), "OUT_OF_RANGE"),
        ("note", text("a\0b"), "INVALID_TEXT"),
        ("note", int(1), "WRONG_TYPE"),
        ("note", blob(b"\xff"), "INVALID_UTF8"),
        ("code", text("äöüßéè"), "TOO_LONG"),
        ("raw", text("\\xabc"), "INVALID_BYTEA"),
        ("uid", text("6ba7b810-9dad-11d1-80b4"), "INVALID_UUID"),
        ("uid", blob(&[0; 15]), "INVALID_UUID"),
        ("day", text("2023-02-29"), "INVALID_DATE"),
        ("day", int(i64::MAX), "OUT_OF_RANGE"),
        ("at_time", text("25:00:00"), "INVALID_TIME"),
        ("ts", text("2024-05-01 12:00:00+02"), "INVALID_TIMESTAMP"),
        ("at", text("yesterday"), "INVALID_TIMESTAMP"),
        ("at", int(i64::MIN), "OUT_OF_RANGE"),
        ("took", text(" "), "INVALID_INTERVAL"),
        ("took", text("three fortnights"), "INVALID_VALUE"),
        ("doc", text("{"), "INVALID_JSON"),
        ("docb", text(r#""\u0000""#), "INVALID_JSON"),
        ("docb", text("nul"), "INVALID_JSON"),
        ("tags", text("{a"), "INVALID_ARRAY"),
        ("nums", text("{1,x}"), "INVALID_ARRAY"),
        ("mood", text("furious"), "INVALID_VALUE"),
        ("addr", text("300.1.1.1"), "INVALID_VALUE"),
        ("addr", int(1), "WRONG_TYPE"),
        ("yes", text("maybe"), "INVALID_BOOL"),
        ("yes", int(1), "WRONG_TYPE"),
        ("must", null(), "NOT_NULL"),
    ]
}

#[tokio::test]
async fn values_that_do_not_fit_refuse_their_own_row() {
    let (cluster, router) = start().await;
    let bad = bad_values();
    let mut columns: Vec<&str> = bad.iter().map(|one| one.0).collect();
    columns.dedup();
    let mut all = Vec::new();
    for (key, (column, value, _)) in bad.iter().enumerate() {
        let place = columns
            .iter()
            .position(|name| name == column)
            .expect("it is named");
        let mut values = vec![absent(); place];
        values.push(value.clone());
        all.push((int(10 * key as i64), vec![int(7)]));
        all.push((int(10 * key as i64 + 1), values));
    }
    let wrong_keys = [null(), absent(), text("x"), double(1.0)];
    all.extend(wrong_keys.into_iter().map(|key| (key, vec![int(7)])));
    let request = rows::rows("wide", &columns, all);
    let answer = rows::ingest(&router).await.write(request).await;
    let answer = answer.expect("the good rows are written").into_inner();
    let mut refused = answer.refused.iter();
    for (at, (column, value, reason)) in bad.iter().enumerate() {
        let row = refused
            .next()
            .unwrap_or_else(|| panic!("{column} {value:?} was taken"));
        let case = format!("{column} {value:?}: {row:?}");
        assert_eq!(row.index as usize, 2 * at + 1, "{case}");
        assert_eq!(
            (row.reason.as_str(), row.code),
            (*reason, Code::InvalidArgument as i32),
            "{case}"
        );
        // PostgreSQL does not say which column it could not read.
        assert!(
            row.column == *column || *reason == "INVALID_VALUE",
            "{case}"
        );
        assert!(!row.message.is_empty(), "{case}");
        assert_eq!(row.retry_delay, None, "{case}");
    }
    let keys: Vec<(&str, &str)> = refused
        .map(|row| (row.column.as_str(), row.reason.as_str()))
        .collect();
    let of_key = |reason| ("Key id", reason);
    let wanted = ["NULL_KEY", "NULL_KEY", "INVALID_INTEGER", "WRONG_TYPE"].map(of_key);
    assert_eq!(keys, wanted);
    assert_eq!(answer.rows_committed, bad.len() as u64);
    assert_eq!(count(&cluster, "c1 = 7").await, bad.len() as i64);
    assert_eq!(count(&cluster, "true").await, bad.len() as i64);
}

#[tokio::test]
async fn columns_with_a_bad_value_refuse_its_row_only() {
    let (cluster, router) = start().await;
    let blobs = |values: [&'static [u8]; 3]| {
        let values = values.map(Bytes::from_static).to_vec();
        Values::Blobs(v1::Blobs { values })
    };
    let int64 = |values: [i64; 3]| int64s("", &values).values.expect("values");
    let texts = |values: [&str; 3]| {
        let values = values.map(str::to_owned).to_vec();
        Values::Texts(v1::Texts { values })
    };
    let bools = Values::Bools(Bytes::from_static(&[0, 2, 1]));
    let doubles = Values::Doubles(v1::Doubles {
        values: vec![1.0, 1e39, 2.0],
    });
    let cases = [
        ("note", utf8(b"ab\xffcd", &[2, 3, 5]), "INVALID_UTF8"),
        // One character, cut in two.
        ("note", utf8("aéb".as_bytes(), &[1, 2, 4]), "INVALID_UTF8"),
        ("note", utf8(b"a\0b", &[1, 2, 3]), "INVALID_TEXT"),
        ("note", blobs([b"a", b"\xff", b"b"]), "INVALID_UTF8"),
        ("c1", int64([1, 1 << 40, 2]), "OUT_OF_RANGE"),
        ("c1", texts(["1", "one", "2"]), "INVALID_INTEGER"),
        ("yes", bools, "INVALID_BOOL"),
        ("f4", doubles, "OUT_OF_RANGE"),
        ("price", texts(["1", "NaN?", "NaN"]), "INVALID_NUMERIC"),
        ("uid", blobs([&[1; 16], &[1; 17], &[2; 16]]), "INVALID_UUID"),
    ];
    for (number, (name, values, reason)) in cases.into_iter().enumerate() {
        let keys = [0, 1, 2].map(|key| 10 * number as i64 + key);
        let request = rows::columnar("wide", int64s("", &keys), vec![column(name, values)]);
        let answer = rows::ingest(&router).await.write(request).await;
        let answer = answer.expect("two rows are good").into_inner();
        let case = format!("case {number}, {name}: {answer:?}");
        let found = answer
            .refused
            .iter()
            .map(|row| (row.index, row.reason.as_str()));
        // A character cut in two spoils both rows that have a part of it.
        let cut = number == 1;
        let wanted: &[u32] = if cut { &[1, 2] } else { &[1] };
        assert!(
            found.eq(wanted.iter().map(|index| (*index, reason))),
            "{case}"
        );
        let there = format!("\"Key id\" between {} and {}", keys[0], keys[2]);
        assert_eq!(
            count(&cluster, &there).await,
            3 - wanted.len() as i64,
            "{case}"
        );
    }
}

#[tokio::test]
async fn names_that_need_quoting_work_everywhere() {
    let (cluster, router) = start().await;
    let name = long_name();
    let rule = format!("\"{name}\" > 5 and \"Key id\" < 100");
    cluster
        .put_rules(&router, "wide", &[("long", &rule, "a")])
        .await;
    let mut subscriber = pgbraid_tests::Subscriber::now(&router).await;
    let mut writer = Writer::open(&router).await;
    writer
        .write(rows::columnar(
            "wide",
            int64s("Key id", &[1, 2]),
            vec![int32s(&name, &[5, 6])],
        ))
        .await;
    let alert = subscriber.alerts(1).await.remove(0);
    assert_eq!((alert.key.as_str(), alert.rule.as_str()), ("2", "long"));
    assert!(alert.row.contains(&name), "{}", alert.row);
    let request = v1::GetRequest {
        feed: "wide".into(),
        keys: Some(int64s("", &[2])),
        columns: vec![name.clone(), "Key id".into()],
        format: v1::Format::Row.into(),
    };
    let read = rows::reads(&router)
        .await
        .get(request)
        .await
        .expect("it is read")
        .into_inner();
    assert_eq!(read.rows[0].values, [int(6), int(2)]);
    writer.write(rows::deletes("wide", [int(2)])).await;
    assert_eq!(count(&cluster, "true").await, 1);
}
