//! Every type of column, there and back: what was written is what `Rows.Get` reads.

use bytes::Bytes;
use pgbraid_proto::v1::{self, column::Values, value::Kind};
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, column, int, int64s, null, text},
};

/// Columns and types.
const COLUMNS: [(&str, &str); 26] = [
    ("yes", "bool"),
    ("i2", "int2"),
    ("i4", "int4"),
    ("i8", "int8"),
    ("f4", "float4"),
    ("f8", "float8"),
    ("num", "numeric"),
    ("price", "numeric(10,2)"),
    ("note", "text"),
    ("code", "varchar(5)"),
    ("fixed", "char(4)"),
    ("raw", "bytea"),
    ("uid", "uuid"),
    ("day", "date"),
    ("at_time", "time"),
    ("ts", "timestamp"),
    ("at", "timestamptz"),
    ("took", "interval"),
    ("doc", "json"),
    ("docb", "jsonb"),
    ("nums", "int[]"),
    ("bigs", "int8[]"),
    ("tags", "text[]"),
    ("mood", "public.mood"),
    ("addr", "inet"),
    ("pair", "public.pair"),
];

async fn start() -> (Cluster, Router) {
    let columns = COLUMNS.map(|(name, ty)| format!("{name} {ty}")).join(", ");
    let cluster = Cluster::start(ClusterOptions {
        schema: format!(
            "create type public.mood as enum ('good', 'bad');\n\
             create type public.pair as (a int, b text);\n\
             create table feed (id int8 primary key, {columns}) partition by hash (id);"
        ),
        ..ClusterOptions::default()
    })
    .await;
    let router = cluster.router();
    (cluster, router)
}

fn value(kind: Kind) -> v1::Value {
    v1::Value { kind: Some(kind) }
}

fn double(number: f64) -> v1::Value {
    value(Kind::Double(number))
}

fn boolean(yes: bool) -> v1::Value {
    value(Kind::Bool(yes))
}

async fn read(router: &Router, keys: v1::Column) -> Vec<v1::StoredRow> {
    let mut names: Vec<String> = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.push("id".into());
    let request = v1::GetRequest {
        feed: "feed".into(),
        keys: Some(keys),
        columns: names,
        format: v1::Format::Row.into(),
    };
    let answer = rows::reads(router).await.get(request).await;
    answer.expect("rows are read").into_inner().rows
}

/// For each column: what is written, and what is read, where that is not the same.
fn samples() -> Vec<Vec<(v1::Value, Option<v1::Value>)>> {
    let same = |value: v1::Value| (value, None);
    let other = |value: v1::Value, read: v1::Value| (value, Some(read));
    let texts = |texts: &[&str]| texts.iter().map(|one| same(text(*one))).collect::<Vec<_>>();
    let becomes = |written: &str, read: &str| other(text(written), text(read));
    let day = |days: i64| value(Kind::Int(days));
    let second = 1_000_000;
    vec![
        vec![
            same(boolean(true)),
            same(boolean(false)),
            other(text("off"), boolean(false)),
        ],
        vec![
            same(int(-32768)),
            same(int(32767)),
            other(text(" 12 "), int(12)),
        ],
        vec![
            same(int(i64::from(i32::MIN))),
            same(int(i64::from(i32::MAX))),
            other(text("+5"), int(5)),
        ],
        vec![same(int(i64::MIN)), same(int(i64::MAX)), same(int(0))],
        vec![
            same(double(1.5)),
            other(int(3), double(3.0)),
            same(double(f64::INFINITY)),
        ],
        vec![
            same(double(0.1)),
            same(double(-1e300)),
            other(text("5e-324"), double(5e-324)),
        ],
        vec![
            same(text("-12345678901234567890.123456789")),
            other(int(i64::MIN), text(i64::MIN.to_string())),
            same(text("NaN")),
        ],
        vec![
            becomes("12.345", "12.35"),
            other(double(-0.5), text("-0.50")),
            same(text("NaN")),
        ],
        texts(&["", "ab\u{301}c \u{1F980} \"quoted\" \\ {}", "null"]),
        vec![
            same(text("äöüßé")),
            same(text("")),
            becomes("abcde  ", "abcde"),
        ],
        // The blanks of a char(n) mean nothing.
        vec![same(text("abcd")), same(text("a")), becomes("ab   ", "ab")],
        vec![
            other(
                value(Kind::Bytes(Bytes::from_static(b"\x00\xff"))),
                text("\\x00ff"),
            ),
            same(text("\\x")),
            becomes("\\xDEADbeef", "\\xdeadbeef"),
        ],
        vec![
            becomes(
                "{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}",
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ),
            other(
                value(Kind::Bytes(Bytes::from_static(&[0xab; 16]))),
                text("abababab-abab-abab-abab-abababababab"),
            ),
            same(text("00000000-0000-0000-0000-000000000000")),
        ],
        vec![
            same(text("2024-02-29")),
            other(day(-1), text("1969-12-31")),
            same(text("infinity")),
        ],
        vec![
            same(text("23:59:59.999999")),
            other(int(second), text("00:00:01")),
            same(text("00:00:00")),
        ],
        vec![
            becomes("2024-05-01T12:30:00.25", "2024-05-01 12:30:00.25"),
            other(int(0), text("1970-01-01 00:00:00")),
            same(text("-infinity")),
        ],
        vec![
            becomes("2024-05-01T12:30:00+02:00", "2024-05-01 10:30:00+00"),
            other(int(-second), text("1969-12-31 23:59:59+00")),
            becomes("2024-05-01 12:30:00", "2024-05-01 12:30:00+00"),
        ],
        vec![
            same(text("1 day 02:03:04")),
            becomes("P1M", "1 mon"),
            becomes("-1 hour", "-01:00:00"),
        ],
        vec![
            same(text("{\"a\" : 1, \"a\":2}")),
            same(text("[]")),
            same(text("null")),
        ],
        vec![
            becomes(
                "{\"b\":1,\"a\":[1.50,\"\\u00e9\"]}",
                "{\"a\": [1.50, \"é\"], \"b\": 1}",
            ),
            same(text("null")),
            same(text("\"x\"")),
        ],
        vec![
            same(text("{1,NULL,-3}")),
            becomes("[1, 2]", "{1,2}"),
            same(text("{}")),
        ],
        vec![
            same(text("{9223372036854775807}")),
            same(text("{}")),
            becomes("{ 1 , 2 }", "{1,2}"),
        ],
        vec![
            same(text("{a,\"b c\",NULL,\"\\\"\"}")),
            becomes("[\"x\", null]", "{x,NULL}"),
            same(text("{}")),
        ],
        vec![same(text("good")), same(text("bad")), same(null())],
        vec![
            same(text("10.0.0.0/8")),
            becomes("::1", "::1/128"),
            same(null()),
        ],
        vec![same(text("(1,x)")), same(text("(,\"a b\")")), same(null())],
    ]
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_written() {
    let (_cluster, router) = start().await;
    let names = COLUMNS.map(|(name, _)| name);
    let samples = samples();
    let row = |at: usize| {
        samples
            .iter()
            .map(|column| column[at].0.clone())
            .collect::<Vec<_>>()
    };
    let mut all: Vec<_> = (0..3).map(|at| (int(at), row(at as usize))).collect();
    all.push((int(3), vec![null(); names.len()]));
    let mut writer = Writer::open(&router).await;
    writer.write(rows::rows("feed", &names, all.clone())).await;
    // Once more, as updates of all columns.
    writer.write(rows::rows("feed", &names, all)).await;
    let read = read(&router, int64s("", &[0, 1, 2, 3, 4])).await;
    for (at, stored) in read.iter().take(3).enumerate() {
        assert!(stored.found);
        for (column, (name, ty)) in COLUMNS.iter().enumerate() {
            let (written, wanted) = &samples[column][at];
            let wanted = wanted.as_ref().unwrap_or(written);
            assert_eq!(&stored.values[column], wanted, "{name} {ty}, row {at}");
        }
        assert_eq!(stored.values.last(), Some(&int(at as i64)), "the key");
    }
    assert!(
        read[3].values[..names.len()]
            .iter()
            .all(|value| *value == null()),
        "NULL is NULL"
    );
    assert!(!read[4].found && read[4].values.is_empty());
}

/// The columnar forms that have no own test elsewhere.
#[tokio::test]
async fn every_form_of_a_column_is_taken() {
    let (_cluster, router) = start().await;
    let le = |bytes: &[&[u8]]| Bytes::from(bytes.concat());
    let utf8 = Values::Utf8(v1::Utf8 {
        data: Bytes::from_static("aé".as_bytes()),
        ends: le(&[&1u32.to_le_bytes(), &3u32.to_le_bytes()]),
    });
    let forms = [
        (
            "yes",
            Values::PackedBools(v1::Bools {
                values: vec![true, false],
            }),
            [boolean(true), boolean(false)],
        ),
        (
            "yes",
            Values::Bools(Bytes::from_static(&[0, 1])),
            [boolean(false), boolean(true)],
        ),
        (
            "i2",
            Values::Int16s(le(&[&(-5i16).to_le_bytes(), &6i16.to_le_bytes()])),
            [int(-5), int(6)],
        ),
        (
            "i8",
            Values::Int16s(le(&[&(-5i16).to_le_bytes(), &6i16.to_le_bytes()])),
            [int(-5), int(6)],
        ),
        (
            "i4",
            Values::Ints(v1::Ints {
                values: vec![-7, 8],
            }),
            [int(-7), int(8)],
        ),
        (
            "i2",
            Values::Int64s(le(&[&1i64.to_le_bytes(), &2i64.to_le_bytes()])),
            [int(1), int(2)],
        ),
        (
            "f4",
            Values::Float32s(le(&[&0.5f32.to_le_bytes(), &2f32.to_le_bytes()])),
            [double(0.5), double(2.0)],
        ),
        (
            "f8",
            Values::Float64s(le(&[&0.1f64.to_le_bytes(), &2f64.to_le_bytes()])),
            [double(0.1), double(2.0)],
        ),
        (
            "price",
            Values::Doubles(v1::Doubles {
                values: vec![0.1, 7.0],
            }),
            [text("0.10"), text("7.00")],
        ),
        ("note", utf8.clone(), [text("a"), text("é")]),
        ("code", utf8, [text("a"), text("é")]),
        (
            "raw",
            Values::Blobs(v1::Blobs {
                values: vec![Bytes::new(), Bytes::from_static(b"\x01")],
            }),
            [text("\\x"), text("\\x01")],
        ),
        (
            "at",
            Values::Int64s(le(&[&0i64.to_le_bytes(), &1i64.to_le_bytes()])),
            [
                text("1970-01-01 00:00:00+00"),
                text("1970-01-01 00:00:00.000001+00"),
            ],
        ),
    ];
    let mut writer = Writer::open(&router).await;
    for (number, (name, values, wanted)) in forms.into_iter().enumerate() {
        let keys = [
            10 * number as i64,
            10 * number as i64 + 1,
            10 * number as i64 + 2,
        ];
        writer
            .write(rows::columnar(
                "feed",
                int64s("", &keys[..2]),
                vec![column(name, values.clone())],
            ))
            .await;
        // The same with a NULL in the second place.
        let mut with_null = column(name, values);
        with_null.nulls = Bytes::from_static(&[0b10]);
        let swapped = [keys[2], keys[1]];
        writer
            .write(rows::columnar(
                "feed",
                int64s("", &swapped),
                vec![with_null],
            ))
            .await;
        let at = COLUMNS
            .iter()
            .position(|one| one.0 == name)
            .expect("it is a column");
        let read = read(&router, int64s("", &keys)).await;
        let found: Vec<&v1::Value> = read.iter().map(|row| &row.values[at]).collect();
        assert_eq!(
            found,
            [&wanted[0], &null(), &wanted[0]],
            "case {number}, {name}"
        );
    }
}
