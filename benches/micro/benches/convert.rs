//! Values that are checked and turned into PostgreSQL's binary form: 1000 rows of one column,
//! beside an int8 key.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use pgbraid_feed::{input::ColumnInput, types::ColumnType};
use pgbraid_micro::{feed, message, random::SplitMix};
use pgbraid_shardmap::KeyType;

const ROWS: usize = 1000;

/// Texts end to end, and their ends.
fn end_to_end(texts: &[String]) -> ColumnInput<'static> {
    let mut data = BytesMut::new();
    let mut ends = BytesMut::new();
    for text in texts {
        data.put_slice(text.as_bytes());
        ends.put_u32_le(data.len() as u32);
    }
    ColumnInput::Utf8 {
        data: data.freeze(),
        ends: ends.freeze(),
    }
}

fn main() {
    let mut criterion = common::criterion();
    let mut random = SplitMix::new(5);
    let mut texts = |make: &dyn Fn(u64) -> String| -> Vec<String> {
        (0..ROWS).map(|_| make(random.number())).collect()
    };
    let notes = texts(&|n| format!("order {} is on its way", n % 1_000_000));
    let amounts = texts(&|n| format!("{}.{:02}", n % 1_000_000, n % 100));
    let times = texts(&|n| {
        format!(
            "2026-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+02:00",
            n % 12 + 1,
            n % 28 + 1,
            n % 24,
            n % 60,
            n / 60 % 60,
            n % 1_000_000
        )
    });
    let documents = texts(&|n| {
        format!(
            r#"{{"city":"Wien","items":[{},{}],"gift":{}}}"#,
            n % 100,
            n % 7,
            n % 2 == 0
        )
    });
    let uuids = texts(&|n| format!("{n:016x}{:016x}", n.rotate_left(17)));
    let micros: Bytes = {
        let mut bytes = BytesMut::new();
        (0..ROWS as i64).for_each(|row| bytes.put_i64_le(1_770_000_000_000_000 + row * 1_000_003));
        bytes.freeze()
    };
    let numeric = ColumnType::Numeric {
        precision: Some(12),
        scale: 2,
    };
    let cases: Vec<(&str, ColumnType, ColumnInput<'_>)> = vec![
        (
            "int4_taken_over",
            ColumnType::Int4,
            ColumnInput::Int32s(vec![7; 4 * ROWS].into()),
        ),
        ("text_end_to_end", ColumnType::Text, end_to_end(&notes)),
        ("text_strings", ColumnType::Text, ColumnInput::Texts(&notes)),
        (
            "numeric_text",
            numeric.clone(),
            ColumnInput::Texts(&amounts),
        ),
        (
            "numeric_doubles",
            numeric,
            ColumnInput::Doubles(&[12345.67; ROWS]),
        ),
        (
            "timestamptz_micros",
            ColumnType::Timestamptz,
            ColumnInput::Int64s(micros),
        ),
        (
            "timestamptz_text",
            ColumnType::Timestamptz,
            ColumnInput::Texts(&times),
        ),
        (
            "jsonb_text",
            ColumnType::Jsonb,
            ColumnInput::Texts(&documents),
        ),
        ("uuid_text", ColumnType::Uuid, ColumnInput::Texts(&uuids)),
    ];
    let keys = message::int64s(&message::keys(ROWS));
    let mut group = common::group(&mut criterion, "convert", ROWS);
    for (name, ty, input) in cases {
        let schema = Arc::new(feed::schema_of(KeyType::Int8, &[("value", ty)], 64));
        let request = common::upsert(
            ColumnInput::Int64s(keys.clone()),
            vec![common::named("value", input)],
        );
        let block = request
            .build(schema.clone())
            .expect("a request that fits the feed");
        assert!(
            block.refused().is_empty(),
            "{name}: {:?}",
            block.refused()[0]
        );
        group.bench_function(name, |b| {
            b.iter(|| black_box(&request).build(schema.clone()));
        });
    }
    group.finish();
    criterion.final_summary();
}
