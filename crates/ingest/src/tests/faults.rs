//! Rows that can't be written, and instances that can't.

use std::{sync::Arc, time::Duration};

use super::sink::{Fault, MemorySink, Setup};
use crate::{Code, IngestConfig};

#[tokio::test(start_paused = true)]
async fn bad_rows_are_found_and_the_rest_is_written() {
    let mut sink = MemorySink::new(0);
    Arc::get_mut(&mut sink).unwrap().poison = 666;
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    let mut rows: Vec<(i64, i32)> = (0..1000).map(|key| (key, 1)).collect();
    for bad in [0, 17, 500, 501, 999] {
        rows[bad].1 = 666;
    }
    let outcome = setup.submit("a", &rows, 30).await.wait().await;
    let refused: Vec<u32> = outcome.refused.iter().map(|row| row.refusal.row).collect();
    assert_eq!(refused, [0, 17, 500, 501, 999]);
    assert!(outcome.refused.iter().all(|row| row.code == Code::Invalid));
    assert_eq!(outcome.committed, 995);
    assert_eq!(sink.stored.lock().history.len(), 995);
}

#[tokio::test(start_paused = true)]
async fn of_merged_writes_only_the_bad_one_is_refused() {
    let mut sink = MemorySink::closed(0);
    Arc::get_mut(&mut sink).unwrap().poison = 666;
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    // Both writers are held, so that the writes below meet in one batch.
    let held = [setup.submit("a", &[(1, 1)], 30).await];
    tokio::task::yield_now().await;
    let good = setup.submit("b", &[(7, 70)], 30).await;
    let bad = setup.submit("a", &[(7, 666)], 30).await;
    sink.open();
    for ack in held {
        assert_eq!(ack.wait().await.committed, 1);
    }
    assert_eq!(good.wait().await.committed, 1);
    let bad = bad.wait().await;
    assert_eq!((bad.committed, bad.refused.len()), (0, 1));
    let stored = sink.stored.lock();
    assert_eq!(stored.history[&(7, 1)], [70]);
    assert!(!stored.history.contains_key(&(7, 0)));
}

#[tokio::test(start_paused = true)]
async fn outages_and_conflicts_are_tried_again_in_order() {
    let sink = MemorySink::new(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    sink.stored
        .lock()
        .faults
        .extend([Fault::Outage, Fault::Conflict, Fault::Outage, Fault::Moved]);
    let mut acks = Vec::new();
    for value in 0..20 {
        acks.push(setup.submit("a", &[(1, value)], 30).await);
    }
    for ack in acks {
        assert_eq!(ack.wait().await.committed, 1);
    }
    assert!(
        sink.stored.lock().history[&(1, 0)]
            .iter()
            .copied()
            .eq(0..20)
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_statement_is_settled_before_it_is_sent_again() {
    let sink = MemorySink::new(0);
    let setup = Setup::new(&[&sink], 1, IngestConfig::default());
    sink.stored.lock().faults.push_back(Fault::Lost);
    let first = setup.submit("a", &[(1, 1)], 30).await;
    let second = setup.submit("a", &[(1, 2)], 30).await;
    assert_eq!(first.wait().await.committed, 1);
    assert_eq!(second.wait().await.committed, 1);
    let stored = sink.stored.lock();
    assert_eq!(stored.settled, 1);
    // The lost one, the same again, and only then the newer one.
    assert_eq!(stored.history[&(1, 0)], [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_a_row_is_unavailable_and_others_are_written() {
    let (stopped, free) = (MemorySink::closed(0), MemorySink::new(1));
    let setup = Setup::new(&[&stopped, &free], 2, IngestConfig::default());
    let rows: Vec<(i64, i32)> = (0..100).map(|key| (key, 1)).collect();
    let outcome = setup.submit("a", &rows, 2).await.wait().await;
    assert!(outcome.committed > 20 && outcome.refused.len() > 20);
    assert!(
        outcome
            .refused
            .iter()
            .all(|row| row.code == Code::Unavailable && row.retry_after.is_some())
    );
    assert_eq!(outcome.committed + outcome.refused.len() as u64, 100);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_instance_is_refused_at_once_and_taken_back_when_it_answers() {
    let stopped = MemorySink::closed(0);
    let setup = Setup::new(&[&stopped], 1, IngestConfig::default());
    let waiting = setup.submit("a", &[(1, 1)], 60).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let refused = setup.submit("a", &[(2, 2)], 60).await;
    let before = tokio::time::Instant::now();
    let outcome = refused.wait().await;
    assert!(before.elapsed() < Duration::from_millis(10));
    assert_eq!(outcome.refused[0].refusal.reason, "INSTANCE_UNAVAILABLE");
    stopped.open();
    assert_eq!(waiting.wait().await.committed, 1);
    assert_eq!(
        setup
            .submit("a", &[(2, 2)], 60)
            .await
            .wait()
            .await
            .committed,
        1
    );
}
