//! Every committed alert reaches every subscriber exactly once, whatever the schedule of
//! transactions, the size of the ring and of a page, the failures, and the subscriber's manner.

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use fake::collect::{Id, Manner, Record, all_readable, already, collect};
use fake::{Fake, Faults};
use pgbraid_alerts::{Event, Filter, Hub, HubConfig, ReadState, Start, SubscribeOptions, Token};
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;

const CLUSTER: [u8; 16] = *b"exactly once ...";

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    instances: u8,
    ring_alerts: usize,
    read_batch: u32,
    faults: Faults,
}

fn cases() -> impl Strategy<Value = Case> {
    let ring = prop::sample::select(vec![1usize, 2, 5, 20, 10_000]);
    let batch = prop::sample::select(vec![1u32, 2, 3, 10, 1000]);
    let part = || prop::sample::select(vec![0.0, 0.02, 0.2]);
    let faults = (part(), part(), part());
    let faults = faults.prop_map(|(read, lost_wake, broken_listen)| Faults {
        read,
        lost_wake,
        broken_listen,
    });
    (any::<u64>(), 1u8..4, ring, batch, faults).prop_map(
        |(seed, instances, ring_alerts, read_batch, faults)| Case {
            seed,
            instances,
            ring_alerts,
            read_batch,
            faults,
        },
    )
}

fn hub(case: &Case, ring_alerts: usize, fakes: &[Fake]) -> Hub {
    let config = HubConfig {
        heartbeat: Duration::from_secs(1),
        ring_alerts,
        read_batch: case.read_batch,
        ..HubConfig::default()
    };
    Hub::new(config, CLUSTER, fakes.iter().map(Fake::source).collect())
}

fn options(start: Start) -> SubscribeOptions {
    SubscribeOptions {
        filter: Filter::default(),
        start,
        heartbeat: Duration::from_millis(700),
    }
}

fn committed(fakes: &[Fake]) -> BTreeSet<Id> {
    fakes
        .iter()
        .flat_map(|fake| fake.committed_after(0))
        .collect()
}

async fn run(case: Case) {
    let faults = case.faults;
    let fakes: Vec<Fake> = (0..case.instances)
        .map(|index| Fake::new(index, case.seed, faults))
        .collect();
    for fake in &fakes {
        fake.churn(60, case.seed ^ 1).await;
    }
    let history = committed(&fakes);
    let hub = hub(&case, case.ring_alerts, &fakes);
    all_readable(&hub).await;

    let (done, is_done) = watch::channel(false);
    let prompt = Manner::default();
    let slow = Manner {
        pause: Duration::from_millis(60),
        ..prompt
    };
    let hasty = Manner {
        patience: Some(Duration::from_millis(2)),
        ..prompt
    };
    let mut subscribers = JoinSet::new();
    for start in [Start::Now, Start::Earliest] {
        for manner in [prompt, slow, hasty] {
            let from_now = matches!(start, Start::Now);
            let subscription = hub.subscribe(options(start.clone())).unwrap();
            let collecting = collect(subscription, manner, is_done.clone());
            subscribers.spawn(async move { (from_now, collecting.await) });
        }
    }
    // A second router with a ring and a schedule of its own, and one who goes to and fro.
    let other = self::hub(&case, 10_000, &fakes);
    all_readable(&other).await;
    let roaming = tokio::spawn(roam(vec![hub.clone(), other], is_done.clone()));
    let mut workload = JoinSet::new();
    for (index, fake) in fakes.iter().cloned().enumerate() {
        let seed = case.seed.wrapping_add(index as u64);
        workload.spawn(async move { fake.churn(400, seed).await });
    }
    workload.join_all().await;
    for fake in &fakes {
        fake.set_faults(Faults::default());
    }
    done.send_replace(true);

    let everything = committed(&fakes);
    let news = &everything - &history;
    assert_eq!(roaming.await.unwrap(), news, "roaming");
    for (from_now, record) in subscribers.join_all().await {
        let expected = if from_now { &news } else { &everything };
        assert_eq!(record.distinct(), *expected, "from now: {from_now}");
        // On the same router, and on one that knows nothing yet.
        let fresh = self::hub(&case, 3, &fakes);
        all_readable(&fresh).await;
        resume(&hub, &record, expected, case.seed as usize).await;
        resume(&fresh, &record, expected, case.seed as usize + 1).await;
    }
}

/// Takes a few events from one router, then resumes on the next, until nothing more comes.
async fn roam(hubs: Vec<Hub>, mut done: watch::Receiver<bool>) -> BTreeSet<Id> {
    let mut start = Start::Now;
    let mut got = BTreeSet::new();
    let mut quiet = 0;
    for (stay, hub) in (1..6).cycle().zip(hubs.iter().cycle()) {
        let mut subscription = hub.subscribe(options(start)).unwrap();
        for _ in 0..stay {
            match subscription.next().await {
                Event::Alert(alert) => {
                    quiet = 0;
                    let id = (alert.instance, alert.seq);
                    assert!(got.insert(id), "{id:?} was delivered twice");
                }
                Event::Heartbeat { progress, .. } => {
                    let live = progress.iter().all(|part| part.state == ReadState::Live);
                    let counts = live && *done.borrow_and_update();
                    quiet = if counts { quiet + 1 } else { 0 };
                }
                _ => {}
            }
        }
        if quiet >= 10 {
            return got;
        }
        start = Start::Token(subscription.token());
    }
    unreachable!("the routers never run out")
}

/// Resumes at some of the tokens of a record; what was delivered before, and what comes after,
/// must be all, and nothing twice.
async fn resume(hub: &Hub, record: &Record, expected: &BTreeSet<Id>, offset: usize) {
    let stride = 61;
    for (index, (_, token)) in record
        .alerts
        .iter()
        .enumerate()
        .skip(offset % stride)
        .step_by(stride)
    {
        let token = Token::decode(&token.encode()).unwrap();
        let subscription = hub.subscribe(options(Start::Token(token))).unwrap();
        let rest = collect(subscription, Manner::default(), already()).await;
        let before: BTreeSet<Id> = record.ids()[..=index].iter().copied().collect();
        assert_eq!(rest.distinct(), expected - &before, "resumed after {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_alert_reaches_every_subscriber_exactly_once(case in cases()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(case));
    }
}
