//! Positions in outboxes: snapshots as PostgreSQL writes them, and the tokens of subscribers.

mod common;

use std::hint::black_box;

use criterion::Throughput;
use pgbraid_alerts::{Cursor, Identity, Position, Snapshot, Token};
use pgbraid_shardmap::InstanceName;

/// A snapshot with so many transactions in progress.
fn snapshot(running: u64) -> Snapshot {
    let xmin = 73_921_044;
    let xip = (0..running).map(|number| xmin + number * 3).collect();
    Snapshot::new(xmin, xmin + running * 3 + 1, xip).expect("a snapshot in order")
}

fn token(instances: u16, running: u64) -> Token {
    let position = |instance: u16| Position {
        identity: Identity {
            system_id: 7_300_000_000_000_000_000 + u64::from(instance),
            timeline: 1,
        },
        cursor: Cursor::at(snapshot(running)),
    };
    Token {
        cluster: [7; 16],
        positions: (0..instances)
            .map(|instance| (InstanceName::new(instance as u8), position(instance)))
            .collect(),
    }
}

fn main() {
    let mut criterion = common::criterion();
    let mut group = criterion.benchmark_group("snapshot");
    for running in [0, 8, 100] {
        let snapshot = snapshot(running);
        let text = snapshot.to_string();
        group.bench_function(format!("parse_{running}_running"), |b| {
            b.iter(|| black_box(&text).parse::<Snapshot>());
        });
        group.bench_function(format!("render_{running}_running"), |b| {
            b.iter(|| black_box(&snapshot).to_string());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("cursor");
    group.throughput(Throughput::Elements(1000));
    let cursor = Cursor::at(snapshot(8));
    group.bench_function("is_new_1000_alerts", |b| {
        b.iter(|| {
            let xids = 73_920_544..73_921_544;
            xids.filter(|xid| black_box(&cursor).is_new(*xid, 1))
                .count()
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("token");
    for instances in [1, 16, 256] {
        group.throughput(Throughput::Elements(instances.into()));
        let token = token(instances, 4);
        let text = token.encode();
        group.bench_function(format!("encode_{instances}_instances"), |b| {
            b.iter(|| black_box(&token).encode());
        });
        group.bench_function(format!("decode_{instances}_instances"), |b| {
            b.iter(|| Token::decode(black_box(&text)));
        });
    }
    group.finish();
    criterion.final_summary();
}
