//! A batch's column as a binary array: 4000 rows of one table, out of 250 requests.

mod common;

use std::{hint::black_box, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use pgbraid_feed::{Batch, Block, encode::ArrayParam, input::ColumnInput, types::ColumnType};
use pgbraid_micro::{feed, message, random::SplitMix};
use pgbraid_shardmap::KeyType;
use postgres_types::{ToSql, Type};

const ROWS: usize = 4000;
const RUN: usize = 16;

/// Requests that write one column, whose values `input` makes for so many rows.
fn blocks(
    ty: ColumnType,
    nulls: u8,
    input: impl Fn(usize, u64) -> ColumnInput<'static>,
) -> Vec<Block> {
    let schema = Arc::new(feed::schema_of(KeyType::Int8, &[("value", ty)], 64));
    message::keys(ROWS)
        .chunks(RUN)
        .zip(0..)
        .map(|(keys, seed)| {
            let mut column = common::named("value", input(keys.len(), seed));
            if nulls != 0 {
                column.nulls = vec![nulls; keys.len().div_ceil(8)].into();
            }
            let request = common::upsert(ColumnInput::Int64s(message::int64s(keys)), vec![column]);
            request
                .build(schema.clone())
                .expect("a request that fits the feed")
        })
        .collect()
}

/// All rows in one batch.
fn batch(blocks: &[Block]) -> Batch<'_> {
    let rows = common::rows_of(blocks);
    Batch::build(blocks[0].schema.clone(), blocks.iter().collect(), &rows)
}

fn random_bytes(len: usize, seed: u64) -> Bytes {
    let mut random = SplitMix::new(seed);
    let mut bytes = BytesMut::new();
    while bytes.len() < len {
        bytes.put_u64_le(random.number());
    }
    bytes.truncate(len);
    bytes.freeze()
}

fn texts(rows: usize, seed: u64) -> ColumnInput<'static> {
    let mut random = SplitMix::new(seed);
    let mut data = BytesMut::new();
    let mut ends = BytesMut::new();
    for _ in 0..rows {
        let text = format!("order {} is on its way", random.below(1_000_000));
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
    let int4 = |rows, seed| ColumnInput::Int32s(random_bytes(rows * 4, seed));
    let int8 = |rows, seed| ColumnInput::Int64s(random_bytes(rows * 8, seed));
    let uuid = |rows, seed| ColumnInput::Uuids(random_bytes(rows * 16, seed));
    let cases = [
        ("int4", blocks(ColumnType::Int4, 0, int4)),
        (
            "int4_every_fourth_null",
            blocks(ColumnType::Int4, 0b0001_0001, int4),
        ),
        ("int8", blocks(ColumnType::Int8, 0, int8)),
        ("uuid", blocks(ColumnType::Uuid, 0, uuid)),
        ("text", blocks(ColumnType::Text, 0, texts)),
    ];
    let mut group = common::group(&mut criterion, "encode", ROWS);
    let mut out = BytesMut::new();
    for (name, blocks) in &cases {
        let batch = &batch(blocks);
        let statement = batch.statements().remove(0);
        group.bench_function(*name, |b| {
            b.iter(|| {
                out.clear();
                ArrayParam::column(black_box(batch), &statement.rows, 0)
                    .to_sql(&Type::ANYARRAY, &mut out)
                    .expect("arrays of fewer than 2^31 elements")
            });
        });
    }
    let batch = &batch(&cases[0].1);
    let statement = batch.statements().remove(0);
    group.bench_function("int8_keys", |b| {
        b.iter(|| {
            out.clear();
            ArrayParam::keys(black_box(batch), &statement.rows)
                .to_sql(&Type::ANYARRAY, &mut out)
                .expect("arrays of fewer than 2^31 elements")
        });
    });
    group.finish();
    criterion.final_summary();
}
