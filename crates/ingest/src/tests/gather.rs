//! Requests that are queued together.

use std::{sync::Arc, time::Duration};

use pgbraid_feed::{
    Block, FeedSchema, Operation,
    input::{ColumnInput, ColumnarRequest, NamedInput},
};
use tokio::time::Instant;

use super::sink::{Fault, MemorySink, Setup, block};
use crate::{Ack, Code, IngestConfig, Owner, Signal, Sink, SubmitError, WhenFull};

/// As many as it takes that requests wait for others.
const TABLES: u32 = 256;

/// Keys of the backlog begin here.
const BACKLOG: i64 = 1_000_000;

/// Nothing waits here because of time unless a test lets it.
fn patient() -> IngestConfig {
    IngestConfig {
        linger: Duration::from_secs(3600),
        ..IngestConfig::default()
    }
}

/// Rows that wait in the instances' queues, several for each table.
async fn backlog(setup: &Setup) -> Ack {
    let rows: Vec<(i64, i32)> = (0..i64::from(TABLES) * 40)
        .map(|key| (BACKLOG + key, 1))
        .collect();
    setup.submit("a", &rows, 60).await
}

async fn submit(
    setup: &Setup,
    stream: &Signal,
    block: Block,
    seconds: u64,
) -> Result<Ack, SubmitError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    (setup.ingest)
        .submit(block, deadline, WhenFull::Wait, stream.clone())
        .await
}

/// A request of a stream, which waits for others.
async fn thin(setup: &Setup, stream: &Signal, rows: &[(i64, i32)], seconds: u64) -> Ack {
    let before = setup.ingest.gather.waiting();
    let block = block(&setup.schema, "a", rows);
    let ack = submit(setup, stream, block, seconds).await.unwrap();
    assert_eq!(setup.ingest.gather.waiting(), before + 1, "it waits");
    ack
}

#[tokio::test(start_paused = true)]
async fn requests_keep_their_order_whether_they_wait_for_others_or_not() {
    let (one, two) = (MemorySink::closed(0), MemorySink::closed(1));
    let setup = Setup::new(&[&one, &two], TABLES, patient());
    one.stored.lock().faults.push_back(Fault::Outage);
    let stream = Signal::new();
    let mut acks = vec![backlog(&setup).await];
    for round in 0..5 {
        for step in 0..6 {
            let value = round * 10 + step;
            let rows: Vec<(i64, i32)> = (0..20).map(|key| (key, value)).collect();
            acks.push(thin(&setup, &stream, &rows, 60).await);
        }
        // One that does not wait comes after them all the same.
        let rows: Vec<(i64, i32)> = (0..20).map(|key| (key, round * 10 + 6)).collect();
        let block = block(&setup.schema, "a", &rows);
        let deadline = Instant::now() + Duration::from_secs(60);
        let ack = (setup.ingest).submit(block, deadline, WhenFull::Refuse, stream.clone());
        acks.push(ack.await.unwrap());
        assert_eq!(setup.ingest.gather.waiting(), 0);
    }
    one.open();
    two.open();
    for ack in acks {
        let outcome = ack.wait().await;
        assert_eq!(outcome.refused, []);
    }
    let expected = || (0..5).flat_map(|round| (0..7).map(move |step| round * 10 + step));
    for key in 0..20 {
        let written: Vec<i32> = [&one, &two]
            .iter()
            .filter_map(|sink| sink.stored.lock().history.get(&(key, 0)).cloned())
            .flatten()
            .collect();
        assert!(
            written.iter().copied().eq(expected()),
            "key {key}: {written:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn they_go_together_and_at_once_when_the_backlog_ends() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], TABLES, patient());
    let held = backlog(&setup).await;
    let stream = Signal::new();
    let mut acks = Vec::new();
    for request in 0..50 {
        let rows: Vec<(i64, i32)> = (0..10).map(|row| (request * 10 + row, 1)).collect();
        acks.push(thin(&setup, &stream, &rows, 60).await);
    }
    sink.open();
    let before = Instant::now();
    held.wait().await;
    for ack in acks {
        assert_eq!(ack.wait().await.committed, 10);
    }
    assert!(before.elapsed() < Duration::from_secs(1), "no time passed");
}

#[tokio::test(start_paused = true)]
async fn they_wait_for_a_part_of_the_linger_limit_at_most() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], TABLES, IngestConfig::default());
    let _held = backlog(&setup).await;
    let stream = Signal::new();
    for _ in 0..3 {
        let _waits = thin(&setup, &stream, &[(1, 1)], 60).await;
        let before = Instant::now();
        while setup.ingest.gather.waiting() > 0 {
            assert!(before.elapsed() < IngestConfig::default().linger);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A request whose keys may be NULL, which is refused at the edge.
fn with_nulls(schema: &Arc<FeedSchema>, keys: &[Option<i64>], values: &[i64]) -> Block {
    let mut nulls = vec![0u8; keys.len().div_ceil(8)];
    for (at, key) in keys.iter().enumerate() {
        nulls[at / 8] |= u8::from(key.is_none()) << (at % 8);
    }
    let keys: Vec<i64> = keys.iter().map(|key| key.unwrap_or(0)).collect();
    let input = |name, nulls: Vec<u8>, ints| NamedInput {
        name,
        nulls: nulls.into(),
        input: ColumnInput::Ints(ints),
    };
    ColumnarRequest {
        operation: Operation::Upsert,
        key: input("", nulls, &keys),
        columns: vec![input("a", Vec::new(), values)],
    }
    .build(schema.clone())
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_its_own_answers() {
    let mut sink = MemorySink::closed(0);
    Arc::get_mut(&mut sink).unwrap().poison = 666;
    let setup = Setup::new(&[&sink], TABLES, patient());
    let _held = backlog(&setup).await;
    let stream = Signal::new();
    let bad_key = with_nulls(
        &setup.schema,
        &[Some(1), None, Some(2), Some(3)],
        &[1, 1, 666, 1],
    );
    let bad_key = submit(&setup, &stream, bad_key, 60).await.unwrap();
    let good = thin(&setup, &stream, &[(4, 1), (5, 1)], 60).await;
    let each = stream.for_each_row();
    let rows = with_nulls(&setup.schema, &[None, Some(6), Some(7)], &[1, 666, 1]);
    let mut each = submit(&setup, &each, rows, 60).await.unwrap();
    assert_eq!(setup.ingest.gather.waiting(), 3);
    sink.open();
    assert_eq!(good.wait().await.committed, 2);
    let outcome = bad_key.wait().await;
    let refused: Vec<u32> = outcome.refused.iter().map(|row| row.refusal.row).collect();
    assert_eq!((outcome.committed, refused), (2, vec![1, 2]));
    let mut news = Vec::new();
    while !each.is_done() {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        each.news(|row, refusal| news.push((row, refusal.is_some())));
    }
    news.sort_unstable();
    assert_eq!(
        news,
        [(0, true), (1, true), (2, false)],
        "each is told of once"
    );
    assert_eq!(each.outcome().committed, 1);
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_one_is_not_written_and_its_neighbours_are() {
    let sink = MemorySink::closed(0);
    let setup = Setup::new(&[&sink], TABLES, IngestConfig::default());
    let held = backlog(&setup).await;
    let stream = Signal::new();
    let short = thin(&setup, &stream, &[(1, 1), (2, 1)], 2).await;
    let long = thin(&setup, &stream, &[(1, 2), (3, 2)], 60).await;
    let refused = short.wait().await;
    assert_eq!((refused.committed, refused.refused.len()), (0, 2));
    assert!(
        refused
            .refused
            .iter()
            .all(|row| row.code == Code::Unavailable)
    );
    let queued = setup.ingest.stats()[0].rows;
    // The sweep lets go of its rows, and of no others.
    let before = Instant::now();
    while setup.ingest.stats()[0].rows == queued {
        assert!(before.elapsed() < Duration::from_secs(1), "not swept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(setup.ingest.stats()[0].rows, queued - 2);
    sink.open();
    held.wait().await;
    assert_eq!(long.wait().await.committed, 2);
    let stored = sink.stored.lock();
    assert_eq!(stored.history[&(1, 0)], [2]);
    assert!(!stored.history.contains_key(&(2, 0)));
}

#[tokio::test(start_paused = true)]
async fn they_follow_a_table_that_moves_and_none_is_lost_by_draining() {
    let (old, new) = (MemorySink::closed(0), MemorySink::new(1));
    let setup = Setup::new(&[&old, &new], TABLES, patient());
    setup.route(|_| Owner::One(old.instance()));
    let held = backlog(&setup).await;
    let stream = Signal::new();
    let queued = thin(&setup, &stream, &[(1, 1), (2, 1)], 60).await;
    // Queued with the old owner, then moved.
    setup.ingest.queue_earlier(&stream).await;
    let waits = thin(&setup, &stream, &[(1, 2), (3, 2)], 60).await;
    setup.route(|_| Owner::Held(old.instance()));
    setup.route(|_| Owner::One(new.instance()));
    let ingest = setup.ingest.clone();
    let drained =
        tokio::spawn(async move { ingest.drain(Instant::now() + Duration::from_secs(10)).await });
    assert_eq!(queued.wait().await.committed, 2);
    assert_eq!(waits.wait().await.committed, 2);
    assert_eq!(new.stored.lock().history[&(1, 0)], [1, 2]);
    old.open();
    held.wait().await;
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_an_instance_is_full_each_request_waits_for_it_alone() {
    let sink = MemorySink::closed(0);
    let config = IngestConfig {
        queue_bytes_per_instance: 1000,
        ..IngestConfig::default()
    };
    let setup = Setup::new(&[&sink], TABLES, config);
    let held = backlog(&setup).await;
    let stream = Signal::new();
    // Whether it is full is found out when this one is queued.
    let first = thin(&setup, &stream, &[(1, 1)], 60).await;
    while setup.ingest.gather.waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rows = block(&setup.schema, "a", &[(1, 2)]);
    let second = submit(&setup, &stream, rows, 1).await.unwrap();
    assert_eq!(setup.ingest.gather.waiting(), 0);
    let outcome = second.wait().await;
    assert_eq!(outcome.refused[0].refusal.reason, "QUEUE_FULL");
    sink.open();
    held.wait().await;
    assert_eq!(first.wait().await.committed, 1);
}
