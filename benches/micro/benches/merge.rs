//! Rows into a batch: sorted by key, each key once, and the batch's statements.
//!
//! The rows of a table come in runs of 16, as from requests of 1000 rows to 64 tables.

mod common;

use std::hint::black_box;

use criterion::BatchSize;
use pgbraid_feed::{Batch, Block};
use pgbraid_micro::message;

fn main() {
    let mut criterion = common::criterion();
    let schema = common::schema();
    let blocks = |keys: &[i64], columns: &[&[&str]]| -> Vec<Block> {
        let mut columns = columns.iter().cycle();
        keys.chunks(16)
            .filter_map(|keys| Some(common::block(&schema, keys, columns.next()?)))
            .collect()
    };
    for rows in [1000, 8000] {
        let distinct = message::keys(rows);
        let mut consecutive = distinct.clone();
        consecutive.sort_unstable();
        // Each key twice: other columns merge, the same ones make the second write wait.
        let (twice, half) = distinct.split_at(rows / 2);
        assert_eq!(twice.len(), half.len());
        let twice = [twice, twice].concat();
        let cases: [(&str, Vec<Block>); 5] = [
            ("distinct", blocks(&distinct, &[&["c1", "c2"]])),
            ("ascending", blocks(&consecutive, &[&["c1", "c2"]])),
            (
                "mixed_masks",
                blocks(&distinct, &[&["c1"], &["c2"], &["c1", "c2"], &["c3"]]),
            ),
            ("duplicates_merged", {
                let mut both = blocks(&twice[..rows / 2], &[&["c1"]]);
                both.extend(blocks(&twice[rows / 2..], &[&["c2"]]));
                both
            }),
            ("duplicates_deferred", {
                let mut both = blocks(&twice[..rows / 2], &[&["c1"]]);
                // Every block's values are those of its seed: shifted by one they differ.
                let (first, rest) = twice[rows / 2..].split_at(1);
                both.extend(blocks(rest, &[&["c1"]]));
                both.extend(blocks(first, &[&["c1"]]));
                both
            }),
        ];
        let mut group = common::group(&mut criterion, "merge", rows);
        for (name, blocks) in cases {
            let refs = common::rows_of(&blocks);
            let deferred = Batch::build(schema.clone(), blocks.iter().collect(), &refs)
                .deferred()
                .len();
            assert_eq!(deferred > 0, name == "duplicates_deferred");
            group.bench_function(format!("{name}_{rows}"), |b| {
                b.iter_batched(
                    || blocks.iter().collect(),
                    |blocks| {
                        let batch = Batch::build(schema.clone(), blocks, black_box(&refs));
                        let statements = batch.statements();
                        (batch, statements)
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
