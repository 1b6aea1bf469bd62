//! Alerts that are not kept any more, and starts from a time.

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use fake::collect::{Manner, already, collect};
use fake::{Fake, Faults};
use pgbraid_alerts::{Event, Filter, Hub, HubConfig, Start, SubscribeOptions, Token};
use proptest::prelude::*;

const CLUSTER: [u8; 16] = [9; 16];

fn hub(fake: &Fake) -> Hub {
    let config = HubConfig {
        heartbeat: Duration::from_secs(1),
        ring_alerts: 5,
        read_batch: 3,
        ..HubConfig::default()
    };
    Hub::new(config, CLUSTER, vec![fake.source()])
}

fn options(start: Start) -> SubscribeOptions {
    SubscribeOptions {
        filter: Filter::default(),
        start,
        heartbeat: Duration::from_millis(700),
    }
}

/// What a subscriber gets until nothing more comes: seqs, and how many alerts it was told to be
/// dropped each time.
async fn read(hub: &Hub, start: Start) -> (Vec<i64>, Vec<u64>, Token) {
    let subscription = hub.subscribe(options(start)).unwrap();
    let before = subscription.token();
    let record = collect(subscription, Manner::default(), already()).await;
    let dropped = |event: &Event| match event {
        Event::Dropped { alerts, .. } => Some(*alerts),
        _ => None,
    };
    let told = record.others.iter().filter_map(dropped).collect();
    let token = record
        .alerts
        .last()
        .map_or(before, |(_, token)| token.clone());
    let seqs = record.ids().into_iter().map(|(_, seq)| seq).collect();
    (seqs, told, token)
}

#[tokio::test(start_paused = true)]
async fn who_was_behind_is_told_once_and_reads_on() {
    let fake = Fake::new(0, 3, Faults::default());
    let hub = hub(&fake);
    (0..10).for_each(|_| {
        fake.raise("a");
    });
    let (seqs, told, token) = read(&hub, Start::Earliest).await;
    assert_eq!((seqs.len(), told.len()), (10, 0));
    (0..20).for_each(|_| {
        fake.raise("a");
    });
    fake.drop_through(10);
    let (seqs, told, _) = read(&hub, Start::Token(token.clone())).await;
    assert_eq!((seqs, told), ((11..=30).collect(), vec![]));
    fake.drop_through(17);
    let (seqs, told, later) = read(&hub, Start::Token(token)).await;
    assert_eq!((seqs, told), ((18..=30).collect(), vec![7]));
    let (seqs, told, _) = read(&hub, Start::Token(later)).await;
    assert_eq!((seqs, told), (vec![], vec![]));
    let (seqs, told, _) = read(&hub, Start::Earliest).await;
    assert_eq!((seqs, told), ((18..=30).collect(), vec![]));
}

/// The hub's own reader was away for so long that it lost some: nobody takes its ring for whole.
#[tokio::test(start_paused = true)]
async fn a_router_that_was_behind_tells_each_of_its_subscribers() {
    let fake = Fake::new(0, 3, Faults::default());
    let hub = hub(&fake);
    (0..3).for_each(|_| {
        fake.raise("a");
    });
    let mut subscription = hub.subscribe(options(Start::Earliest)).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if let Event::Alert(alert) = subscription.next().await {
            seen.push(alert.seq);
        }
    }
    fake.set_down(true);
    (0..6).for_each(|_| {
        fake.raise("a");
    });
    fake.drop_through(7);
    fake.set_down(false);
    let record = collect(subscription, Manner::default(), already()).await;
    assert_eq!(record.ids().len(), 2);
    assert_eq!(
        record.count(|event| matches!(event, Event::Dropped { alerts: 4.., .. })),
        1
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// From a time, in the middle of any transactions and failures: all that was raised since, once.
    #[test]
    fn a_start_from_a_time_misses_nothing(seed in any::<u64>(), part in 0.0..1.0f64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async move {
            let faults = Faults { read: 0.1, ..Faults::default() };
            let fake = Fake::new(0, seed, faults);
            fake.churn(80, seed ^ 7).await;
            let hub = hub(&fake);
            let all = fake.committed_after(0);
            let last = all.iter().map(|(_, seq)| *seq).max().unwrap_or(0);
            let from = (last as f64 * part) as i64;
            // A few transactions go on while the start is looked for.
            let running = fake.begin();
            fake.write(running, "late");
            let subscription = hub.subscribe(options(Start::Time(from * 10))).unwrap();
            let other = fake.clone();
            let churning = async {
                other.churn(40, seed ^ 9).await;
                other.commit(running);
            };
            let (record, ()) = tokio::join!(
                collect(subscription, Manner::default(), already()),
                churning,
            );
            let wanted: BTreeSet<_> = fake.committed_after(from - 1);
            let got = record.distinct();
            assert!(wanted.is_subset(&got), "missing {:?}", wanted.difference(&got));
        });
    }
}
