//! Order, batching, bounds.

use std::time::Duration;

use tokio::time::Instant;

use super::sink::{MemorySink, Setup, block};
use crate::{Code, IngestConfig, Owner, Signal, SubmitError, WhenFull};

#[tokio::test(start_paused = true)]
async fn writes_of_a_key_keep_their_order_and_none_is_hidden() {
    let sink = MemorySink::new(0);
    let setup = Setup::new(&[&sink], 4, IngestConfig::default());
    let mut acks = Vec::new();
    for value in 0..200 {
        let rows: Vec<(i64, i32)> = (0..10).map(|key| (key, value)).collect();
        acks.push(setup.submit("a", &rows, 30).await);
    }
    for ack in acks {
        let outcome = ack.wait().await;
        assert_eq!((outcome.committed, outcome.refused.len()), (10, 0));
    }
    let stored = sink.stored.lock();
    for key in 0..10 {
        assert!(
            stored.history[&(key, 0)].iter().copied().eq(0..200),
            "key {key}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rows_pile_up_into_large_batches_while_writers_are_busy() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let mut acks = Vec::new();
    for request in 0..40 {
        let rows: Vec<(i64, i32)> = (0..100).map(|row| (request * 100 + row, 1)).collect();
        acks.push(setup.submit("a", &rows, 30).await);
        tokio::task::yield_now().await;
    }
    sink.open();
    for ack in acks {
        assert_eq!(ack.wait().await.committed, 100);
    }
    let batches = sink.stored.lock().batches.clone();
    assert!(batches.len() <= 3, "{batches:?}");
    assert_eq!(batches.iter().sum::<usize>(), 4000);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_unary_rows_and_takes_others() {
    let (full, free) = (MemorySink::closed(0), MemorySink::new(1));
    let config = IngestConfig {
        queue_bytes_per_instance: 1000,
        ..IngestConfig::default()
    };
    let setup = Setup::new(&[&full, &free], 2, config);
    let rows: Vec<(i64, i32)> = (0..100).map(|key| (key, 1)).collect();
    let first = setup.submit("a", &rows, 5).await;
    while free.stored.lock().history.is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    let second = setup.submit("b", &rows, 5).await.wait().await;
    assert!(
        second.committed > 20,
        "rows of the free instance are written"
    );
    assert!(!second.refused.is_empty());
    assert!(second.refused.iter().all(|row| row.code == Code::Exhausted));
    full.open();
    assert_eq!(first.wait().await.committed, 100);
}

#[tokio::test(start_paused = true)]
async fn memory_over_all_instances_is_bounded() {
    let sink = MemorySink::closed(0);
    let config = IngestConfig {
        queue_bytes: 20_000,
        ..IngestConfig::default()
    };
    let setup = Setup::new(&[&sink], 1, config);
    let rows: Vec<(i64, i32)> = (0..200).map(|key| (key, 1)).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut acks = Vec::new();
    let error = loop {
        let block = block(&setup.schema, "a", &rows);
        match setup
            .ingest
            .submit(block, deadline, WhenFull::Refuse, Signal::new())
            .await
        {
            Ok(ack) => acks.push(ack),
            Err(error) => break error,
        }
        assert!(acks.len() < 100);
    };
    assert!(matches!(error, SubmitError::Full { .. }), "{error}");
    sink.open();
    for ack in acks {
        assert_eq!(ack.wait().await.committed, 200);
    }
    setup.submit("a", &rows, 5).await.wait().await;
}

#[tokio::test(start_paused = true)]
async fn queued_rows_follow_a_table_that_moves() {
    let (old, new) = (MemorySink::closed(0), MemorySink::new(1));
    let setup = Setup::new(&[&old, &new], 1, IngestConfig::default());
    setup.route(|_| Owner::One(crate::Sink::instance(&*old)));
    let mut acks = Vec::new();
    for value in 0..3 {
        acks.push(setup.submit("a", &[(1, value)], 30).await);
        tokio::task::yield_now().await;
    }
    setup.route(|_| Owner::Held(crate::Sink::instance(&*old)));
    setup.route(|_| Owner::One(crate::Sink::instance(&*new)));
    // What is in flight comes back as moved and follows the rest.
    old.stored
        .lock()
        .faults
        .push_back(super::sink::Fault::Moved);
    old.open();
    for ack in acks {
        assert_eq!(ack.wait().await.committed, 1);
    }
    assert_eq!(new.stored.lock().history[&(1, 0)], [0, 1, 2]);
    assert!(old.stored.lock().history.is_empty());
}

#[tokio::test(start_paused = true)]
async fn tables_without_one_owner_are_written_nowhere() {
    let sink = MemorySink::new(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let name = crate::Sink::instance(&*sink);
    for (owner, reason) in [
        (Owner::Nobody, "TABLE_UNOWNED"),
        (Owner::Conflict(vec![name, name]), "TABLE_OWNED_TWICE"),
    ] {
        setup.route(|_| owner.clone());
        let outcome = setup.submit("a", &[(1, 1)], 5).await.wait().await;
        assert_eq!(outcome.committed, 0);
        assert_eq!(outcome.refused[0].refusal.reason, reason);
        assert_eq!(outcome.refused[0].code, Code::Unavailable);
    }
    assert!(sink.stored.lock().history.is_empty());
}

#[tokio::test(start_paused = true)]
async fn draining_answers_what_was_taken_and_takes_no_more() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let ack = setup.submit("a", &[(1, 1)], 30).await;
    let ingest = setup.ingest.clone();
    let drained =
        tokio::spawn(async move { ingest.drain(Instant::now() + Duration::from_secs(10)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let late = block(&setup.schema, "a", &[(2, 2)]);
    let deadline = Instant::now() + Duration::from_secs(1);
    let refused = setup
        .ingest
        .submit(late, deadline, WhenFull::Wait, Signal::new())
        .await;
    assert_eq!(refused.err(), Some(SubmitError::Draining));
    sink.open();
    assert_eq!(ack.wait().await.committed, 1);
    assert_eq!(drained.await.unwrap(), 0);
}
