//! Values that do not fit: they refuse their own row, and its neighbours are written.

use bytes::Bytes;
use pgbraid_proto::v1::{self, column::Values, value::Kind};
use pgbraid_tests::{
    Writer,
    rows::{self, absent, column, int, int32s, int64s, null, text, utf8},
    wide::{count, long_name, start},
};
use tonic::Code;

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
