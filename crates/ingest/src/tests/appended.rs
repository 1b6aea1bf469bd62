//! Rows that wait for their table appended to each other, and rows written right behind a batch.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::sink::{Fault, MemorySink, Setup};
use crate::{Ack, IngestConfig, Owner, Sink};

/// Requests enough that most of their rows are appended to others, of `keys` keys each; each
/// writes its own number.
async fn submit_all(setup: &Setup, requests: i32, keys: i64, seconds: u64) -> Vec<Ack> {
    let mut acks = Vec::new();
    for request in 0..requests {
        let first = i64::from(request) * keys;
        let rows: Vec<(i64, i32)> = (first..first + keys).map(|key| (key, request)).collect();
        acks.push(setup.submit("a", &rows, seconds).await);
        tokio::task::yield_now().await;
    }
    acks
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_its_own_answers() {
    let mut sink = MemorySink::closed(0);
    Arc::get_mut(&mut sink).unwrap().poison = 666;
    let setup = Setup::new(&[&sink], 2, IngestConfig::default());
    let mut acks = Vec::new();
    for request in 0..40i64 {
        let mut rows: Vec<(i64, i32)> = (0..20).map(|row| (request * 20 + row, 1)).collect();
        rows[request as usize % 20].1 = 666;
        acks.push(setup.submit("a", &rows, 30).await);
        tokio::task::yield_now().await;
    }
    sink.open();
    for (request, ack) in (0..).zip(acks) {
        let outcome = ack.wait().await;
        assert_eq!(outcome.committed, 19, "request {request}");
        let refused: Vec<u32> = outcome.refused.iter().map(|row| row.refusal.row).collect();
        assert_eq!(refused, [request % 20], "request {request}");
    }
    assert_eq!(sink.stored.lock().history.len(), 40 * 19);
}

#[tokio::test(start_paused = true)]
async fn requests_whose_time_is_over_are_not_written_and_others_are() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let held = submit_all(&setup, 2, 1, 60).await;
    let mut acks = Vec::new();
    for request in 2..60 {
        let seconds = if request % 2 == 0 { 1 } else { 60 };
        let ack = setup
            .submit("a", &[(request, 1), (-request, 1)], seconds)
            .await;
        acks.push((request, ack));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    sink.open();
    for ack in held {
        assert_eq!(ack.wait().await.committed, 1);
    }
    for (request, ack) in acks {
        let outcome = ack.wait().await;
        let expected = if request % 2 == 0 { 0 } else { 2 };
        assert_eq!(outcome.committed, expected, "request {request}");
        let history = &sink.stored.lock().history;
        for key in [request, -request] {
            assert_eq!(history.contains_key(&(key, 0)), expected == 2, "key {key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn appended_rows_follow_a_table_that_moves() {
    let (old, new) = (MemorySink::closed(0), MemorySink::new(1));
    let setup = Setup::new(&[&old, &new], 1, IngestConfig::default());
    setup.route(|_| Owner::One(old.instance()));
    let acks = submit_all(&setup, 50, 2, 30).await;
    setup.route(|_| Owner::One(new.instance()));
    old.stored.lock().faults.push_back(Fault::Moved);
    old.stored.lock().faults.push_back(Fault::Moved);
    old.open();
    for ack in acks {
        assert_eq!(ack.wait().await.committed, 2);
    }
    assert_eq!(new.stored.lock().history.len(), 100);
    assert!(old.stored.lock().history.is_empty());
}

/// The few rows of a large batch that would hide another's value come right behind it, before what
/// has come meanwhile.
#[tokio::test(start_paused = true)]
async fn few_rows_that_would_hide_others_are_written_right_behind_them() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    // The table is busy, so that the requests below meet in one batch.
    let mut acks = submit_all(&setup, 1, 1, 30).await;
    sink.begun(1).await;
    for value in [1, 2, 3] {
        let rows: Vec<(i64, i32)> = (0..10).map(|key| (1000 + key, value)).collect();
        acks.push(setup.submit("a", &rows, 30).await);
    }
    let others: Vec<(i64, i32)> = (0..400).map(|key| (2000 + key, 1)).collect();
    acks.push(setup.submit("a", &others, 30).await);
    sink.permits.add_permits(1);
    sink.begun(2).await;
    let meanwhile: Vec<(i64, i32)> = (0..50).map(|key| (3000 + key, 1)).collect();
    acks.push(setup.submit("a", &meanwhile, 30).await);
    sink.open();
    for ack in acks {
        assert!(ack.wait().await.refused.is_empty());
    }
    let stored = sink.stored.lock();
    // Of the second values only: the third ones wait for the next batch.
    assert_eq!(stored.batches, [1, 410, 10, 60]);
    for key in 1000..1010 {
        assert_eq!(stored.history[&(key, 0)], [1, 2, 3]);
    }
}

/// What was to be written behind the batch is not if its time is over by then.
#[tokio::test(start_paused = true)]
async fn rows_whose_time_is_over_are_not_written_behind_a_batch() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let mut acks = submit_all(&setup, 1, 1, 30).await;
    sink.begun(1).await;
    let rows: Vec<(i64, i32)> = (0..400).map(|key| (1000 + key, 1)).collect();
    acks.push(setup.submit("a", &rows, 30).await);
    let short = setup.submit("a", &[(1000, 2)], 1).await;
    acks.push(setup.submit("a", &[(1001, 2)], 30).await);
    sink.permits.add_permits(1);
    sink.begun(2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(short.wait().await.committed, 0);
    sink.open();
    for ack in acks {
        assert!(ack.wait().await.refused.is_empty());
    }
    let stored = sink.stored.lock();
    assert_eq!(stored.history[&(1000, 0)], [1]);
    assert_eq!(stored.history[&(1001, 0)], [1, 2]);
}

/// Nor does an instance then count as one that does not answer.
#[tokio::test(start_paused = true)]
async fn what_is_not_written_is_not_waited_for() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let mut acks = submit_all(&setup, 1, 1, 30).await;
    sink.begun(1).await;
    let rows: Vec<(i64, i32)> = (0..400).map(|key| (1000 + key, 1)).collect();
    acks.push(setup.submit("a", &rows, 30).await);
    let late = setup.submit("a", &[(1000, 2)], 1).await;
    sink.permits.add_permits(1);
    sink.begun(2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(late.wait().await.committed, 0);
    sink.open();
    for ack in acks.drain(..) {
        assert!(ack.wait().await.refused.is_empty());
    }
    nothing_is_left(&setup).await;
    // Long after that two come at once: the second finds the first in flight.
    tokio::time::sleep(IngestConfig::default().stall_after * 2).await;
    sink.close();
    acks.push(setup.submit("a", &[(1, 1)], 30).await);
    sink.begun(3).await;
    acks.push(setup.submit("a", &[(2, 1)], 30).await);
    sink.open();
    for ack in acks {
        assert!(ack.wait().await.refused.is_empty());
    }
}

/// Requests of different columns in turns, of different sizes, and more of one kind after another:
/// what was queued is counted, and nothing is left.
#[tokio::test(start_paused = true)]
async fn different_requests_in_turns_are_written_and_counted() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 2, IngestConfig::default());
    let mut acks = Vec::new();
    for request in 0..200i64 {
        let column = match request {
            100.. => "a",
            _ if request % 2 == 0 => "a",
            _ => "b",
        };
        let rows: Vec<(i64, i32)> = (0..1 + request % 9)
            .map(|row| (request * 10 + row, 1))
            .collect();
        acks.push((rows.len(), setup.submit(column, &rows, 30).await));
        tokio::task::yield_now().await;
    }
    let queued: usize = acks.iter().map(|(rows, _)| rows).sum();
    let stats = setup.ingest.stats();
    assert_eq!(stats[0].rows, queued as u64);
    assert!(stats[0].bytes >= queued as u64 * 12, "{stats:?}");
    sink.open();
    for (rows, ack) in acks {
        assert_eq!(ack.wait().await.committed, rows as u64);
    }
    nothing_is_left(&setup).await;
    assert_eq!(sink.stored.lock().history.len(), queued);
}

/// Jobs are let go of a moment after their answers.
async fn nothing_is_left(setup: &Setup) {
    for _ in 0..100 {
        let stats = setup.ingest.stats();
        if stats.iter().all(|one| one.rows == 0 && one.bytes == 0) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("left: {:?}", setup.ingest.stats());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever comes, goes wrong and moves: each key's values are written in their order, and
    /// each once unless its answer was lost.
    #[test]
    fn each_value_is_written_in_order(
        requests in prop::collection::vec(prop::collection::vec(0i64..12, 1..30), 1..80),
        faults in prop::collection::vec(0u8..4, 0..6),
        pauses in prop::collection::vec(0u8..4, 80),
        // Rows of keys of their own, beside which those above are few.
        bulks in prop::collection::vec(0usize..400, 80),
        tables in 1u32..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let sink = MemorySink::closed(0);
            let setup = Setup::new(&[&sink], tables, IngestConfig::default());
            sink.stored.lock().faults.extend(faults.iter().map(|fault| match fault {
                0 => Fault::Outage,
                1 => Fault::Conflict,
                2 => Fault::Moved,
                _ => Fault::Lost,
            }));
            let mut acks = Vec::new();
            let mut value = 0;
            let mut expected = std::collections::BTreeMap::<i64, Vec<i32>>::new();
            let mut fresh = 1000;
            for ((keys, pause), bulk) in requests.iter().zip(&pauses).zip(&bulks) {
                let bulk = if *bulk < 200 { 0 } else { *bulk };
                let mut rows: Vec<(i64, i32)> = (fresh..).take(bulk).map(|key| (key, 0)).collect();
                fresh += bulk as i64;
                for key in keys {
                    value += 1;
                    rows.push((*key, value));
                    expected.entry(*key).or_default().push(value);
                }
                acks.push((rows.len() as u64, setup.submit("a", &rows, 60).await));
                match pause {
                    0 => sink.permits.add_permits(1),
                    1 => tokio::task::yield_now().await,
                    2 => tokio::time::sleep(Duration::from_millis(3)).await,
                    _ => {}
                }
            }
            sink.open();
            for (rows, ack) in acks {
                let outcome = ack.wait().await;
                assert_eq!((outcome.committed, outcome.refused.len()), (rows, 0));
            }
            nothing_is_left(&setup).await;
            let stored = sink.stored.lock();
            for key in 1000..fresh {
                assert!(stored.history.contains_key(&(key, 0)));
            }
            for (key, values) in expected {
                let mut found = stored.history[&(key, 0)].clone();
                // A write whose answer was lost is written again.
                found.dedup();
                assert_eq!(found, values, "key {key}");
            }
        });
    }
}
