//! What the benches share.

// Not every bench uses all of it.
#![allow(dead_code)]

use std::{sync::Arc, time::Duration};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use pgbraid_feed::{
    Block, FeedSchema, Operation, RowRef,
    input::{ColumnInput, ColumnarRequest, NamedInput},
};
use pgbraid_micro::{feed, message, random::SplitMix};
use pgbraid_shardmap::TableId;

/// Short: what is measured is steady, and there are many.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(30)
        .configure_from_args()
}

/// A group of benches that take so many rows a go.
pub fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    rows: usize,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(rows as u64));
    group
}

/// A column of a request without NULLs.
pub fn named<'a>(name: &'a str, input: ColumnInput<'a>) -> NamedInput<'a> {
    NamedInput {
        name,
        nulls: Default::default(),
        input,
    }
}

/// Upserts of these keys and columns.
pub fn upsert<'a>(key: ColumnInput<'a>, columns: Vec<NamedInput<'a>>) -> ColumnarRequest<'a> {
    ColumnarRequest {
        operation: Operation::Upsert,
        key: named("", key),
        columns,
    }
}

/// A block that writes random values to some int4 columns.
pub fn block(schema: &Arc<FeedSchema>, keys: &[i64], columns: &[&str]) -> Block {
    let mut random = SplitMix::new(7);
    let columns = columns
        .iter()
        .map(|name| {
            let values = message::int32s(keys.len(), &mut random);
            named(name, ColumnInput::Int32s(values))
        })
        .collect();
    upsert(ColumnInput::Int64s(message::int64s(keys)), columns)
        .build(schema.clone())
        .expect("a request that fits the feed")
}

/// All rows of some blocks, as those of one table, in the order of their arrival.
pub fn rows_of(blocks: &[Block]) -> Vec<(TableId, RowRef)> {
    blocks
        .iter()
        .zip(0..)
        .flat_map(|(one, block)| (0..one.rows()).map(move |row| RowRef { block, row }))
        .map(|row| (TableId::new(0), row))
        .collect()
}

/// The feed of the published workloads.
pub fn schema() -> Arc<FeedSchema> {
    feed::schema(64)
}
