//! The rows of a request, grouped by table: a key and two ints.

mod common;

use criterion::BatchSize;
use pgbraid_micro::{feed, message};

fn main() {
    let mut criterion = common::criterion();
    for rows in [1, 1000, 4000] {
        let keys = message::keys(rows);
        let mut group = common::group(&mut criterion, "route", rows);
        for tables in [64, 4096] {
            let block = common::block(&feed::schema(tables), &keys, &feed::WRITTEN);
            // Tables of an instance side by side, and each instance every so many tables.
            let instances = tables / 16;
            let places: Vec<u32> = (0..tables)
                .map(|table| table % instances * 16 + table / instances)
                .collect();
            group.bench_function(format!("{rows}_rows_{tables}_tables"), |b| {
                b.iter_batched(
                    || block.clone(),
                    |block| block.arrange(&places),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
