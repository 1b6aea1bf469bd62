//! When a few rows wait for the batch before them.

use std::time::Duration;

use pgbraid_shardmap::hash;

use super::sink::{MemorySink, Setup};
use crate::{Ack, IngestConfig};

/// Lets writers come as far as they can, without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn all_committed(acks: Vec<Ack>) {
    for ack in acks {
        assert!(ack.wait().await.refused.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn few_rows_share_the_batch_behind_a_small_one() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 16, IngestConfig::default());
    let mut acks = Vec::new();
    for key in 0..20 {
        acks.push(setup.submit("a", &[(key, 1)], 30).await);
        settle().await;
    }
    sink.open();
    all_committed(acks).await;
    assert_eq!(sink.stored.lock().batches, [1, 19]);
}

#[tokio::test(start_paused = true)]
async fn they_wait_for_a_part_of_the_linger_limit_at_most() {
    let sink = MemorySink::closed(0);
    let linger = Duration::from_millis(20);
    let config = IngestConfig {
        linger,
        ..IngestConfig::default()
    };
    let setup = Setup::new(&[&sink], 16, config);
    let mut acks = vec![setup.submit("a", &[(0, 1)], 30).await];
    settle().await;
    // Again and again: whoever watches is replaced.
    for key in 1..20 {
        acks.push(setup.submit("a", &[(key, 1)], 30).await);
        settle().await;
    }
    assert_eq!(sink.started(), 1);
    tokio::time::sleep(linger / 4 - Duration::from_millis(2)).await;
    assert_eq!(sink.started(), 1);
    tokio::time::sleep(Duration::from_millis(4)).await;
    assert_eq!(sink.started(), 2);
    sink.open();
    all_committed(acks).await;
}

#[tokio::test(start_paused = true)]
async fn many_rows_do_not_wait() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 16, IngestConfig::default());
    let mut acks = vec![setup.submit("a", &[(0, 1)], 30).await];
    settle().await;
    let rows: Vec<(i64, i32)> = (1..400).map(|key| (key, 1)).collect();
    acks.push(setup.submit("a", &rows, 30).await);
    settle().await;
    assert_eq!(sink.started(), 2);
    sink.open();
    all_committed(acks).await;
}

#[tokio::test(start_paused = true)]
async fn few_rows_do_not_wait_for_a_large_batch() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 2, IngestConfig::default());
    let table = |key: &i64| hash::table_of(hash::int8(*key), 2).index();
    let large: Vec<(i64, i32)> = (0..4000)
        .filter(|key| table(key) == 0)
        .map(|key| (key, 1))
        .collect();
    let other = (0..4000).find(|key| table(key) == 1).unwrap();
    let mut acks = vec![setup.submit("a", &large, 30).await];
    settle().await;
    acks.push(setup.submit("a", &[(other, 1)], 30).await);
    settle().await;
    assert_eq!(sink.started(), 2);
    sink.open();
    all_committed(acks).await;
}
