//! Instances that fail, stop, or come back as another history.

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use fake::collect::{Manner, Record, all_readable, already, collect};
use fake::{Fake, Faults};
use pgbraid_alerts::{
    Event, Filter, Hub, HubConfig, Identity, ReadState, Start, SubscribeOptions, Subscription,
};
use tokio::time::{Instant, sleep, timeout};

const CLUSTER: [u8; 16] = [3; 16];

fn fakes(count: u8) -> Vec<Fake> {
    let fake = |index| Fake::new(index, 11, Faults::default());
    (0..count).map(fake).collect()
}

fn hub_with(fakes: &[Fake], rewind_xids: u64) -> Hub {
    let config = HubConfig {
        heartbeat: Duration::from_secs(1),
        reconnect_max: Duration::from_secs(1),
        rewind_xids,
        ..HubConfig::default()
    };
    Hub::new(config, CLUSTER, fakes.iter().map(Fake::source).collect())
}

fn subscribe(hub: &Hub, start: Start) -> Subscription {
    let options = SubscribeOptions {
        filter: Filter::default(),
        start,
        heartbeat: Duration::from_millis(500),
    };
    hub.subscribe(options).unwrap()
}

async fn until(subscription: &mut Subscription, wanted: impl Fn(&Event) -> bool) -> Event {
    let search = async {
        loop {
            let event = subscription.next().await;
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(60), search)
        .await
        .expect("the event comes")
}

/// Until a heartbeat that finds every instance live.
async fn settle(subscription: &mut Subscription) {
    until(subscription, |event| match event {
        Event::Heartbeat { progress, .. } => {
            progress.iter().all(|part| part.state == ReadState::Live)
        }
        _ => false,
    })
    .await;
}

async fn rest(subscription: Subscription) -> Record {
    collect(subscription, Manner::default(), already()).await
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_loses_nothing() {
    let fakes = fakes(2);
    let hub = hub_with(&fakes, 0);
    all_readable(&hub).await;
    let mut subscription = subscribe(&hub, Start::Now);
    settle(&mut subscription).await;
    fakes[1].set_down(true);
    let seq = fakes[1].raise("late");
    let down = until(&mut subscription, |event| {
        matches!(event, Event::InstanceDown { .. })
    })
    .await;
    let Event::InstanceDown { instance, reason } = down else {
        unreachable!()
    };
    assert_eq!(instance.index(), 1);
    assert_eq!(&*reason, "connection closed");
    // The other one goes on, and heartbeats say which is down.
    let other = fakes[0].raise("late");
    let alert = until(&mut subscription, |event| matches!(event, Event::Alert(_))).await;
    assert!(
        matches!(alert, Event::Alert(alert) if alert.seq == other && alert.instance.index() == 0)
    );
    let beat = until(&mut subscription, |event| {
        matches!(event, Event::Heartbeat { .. })
    })
    .await;
    let Event::Heartbeat { progress, .. } = beat else {
        unreachable!()
    };
    assert_eq!(progress[0].state, ReadState::Live);
    assert_eq!(progress[1].state, ReadState::Down);
    sleep(Duration::from_secs(30)).await;
    assert!(
        hub.status()[1]
            .reason
            .as_deref()
            .is_some_and(|reason| reason == "connection refused")
    );
    fakes[1].set_down(false);
    let record = rest(subscription).await;
    assert_eq!(record.distinct(), BTreeSet::from([(instance, seq)]));
    assert_eq!(
        record.count(|event| matches!(event, Event::InstanceUp { .. })),
        1
    );
    assert_eq!(
        record.count(|event| matches!(event, Event::InstanceDown { .. })),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_notification_costs_at_most_a_heartbeat() {
    let fakes = fakes(1);
    let hub = hub_with(&fakes, 0);
    all_readable(&hub).await;
    let mut subscription = subscribe(&hub, Start::Now);
    settle(&mut subscription).await;
    fakes[0].set_faults(Faults {
        lost_wake: 1.0,
        ..Faults::default()
    });
    let raised = Instant::now();
    fakes[0].raise("late");
    until(&mut subscription, |event| matches!(event, Event::Alert(_))).await;
    assert!(
        raised.elapsed() <= Duration::from_millis(1020),
        "{:?}",
        raised.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn many_wake_ups_cost_few_reads() {
    let fakes = fakes(1);
    let hub = hub_with(&fakes, 0);
    all_readable(&hub).await;
    sleep(Duration::from_millis(100)).await;
    let before = fakes[0].reads();
    for _ in 0..10_000 {
        fakes[0].raise("late");
    }
    sleep(Duration::from_millis(500)).await;
    // Ten pages of a thousand, one read to the present after the window, one for what came then.
    assert!(
        fakes[0].reads() - before <= 13,
        "{}",
        fakes[0].reads() - before
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_instance_holds_nobody_else_up() {
    let fakes = fakes(3);
    for fake in &fakes {
        for _ in 0..50 {
            fake.raise("late");
        }
    }
    let hub = hub_with(&fakes, 0);
    all_readable(&hub).await;
    // Hangs from here on: the reads of those who catch up get no answer.
    fakes[1].set_hang(true);
    let start = Instant::now();
    let mut subscriptions: Vec<_> = (0..20).map(|_| subscribe(&hub, Start::Earliest)).collect();
    for subscription in &mut subscriptions {
        for _ in 0..100 {
            let event = until(subscription, |event| matches!(event, Event::Alert(_))).await;
            assert!(matches!(event, Event::Alert(alert) if alert.instance.index() != 1));
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    for subscription in &mut subscriptions {
        until(subscription, |event| {
            matches!(event, Event::InstanceDown { .. })
        })
        .await;
    }
    // Calls that were swallowed stay so; new ones are answered.
    fakes[1].set_hang(false);
    for subscription in subscriptions {
        assert_eq!(
            rest(subscription).await.distinct(),
            fakes[1].committed_after(0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_reached_late_is_told() {
    let fakes = fakes(1);
    fakes[0].set_down(true);
    let hub = hub_with(&fakes, 0);
    let mut subscription = subscribe(&hub, Start::Now);
    let from_start = subscribe(&hub, Start::Earliest);
    until(&mut subscription, |event| {
        matches!(event, Event::InstanceDown { .. })
    })
    .await;
    fakes[0].raise("late");
    fakes[0].set_down(false);
    until(&mut subscription, |event| {
        matches!(event, Event::InstanceUp { .. })
    })
    .await;
    until(&mut subscription, |event| {
        matches!(event, Event::Gap { .. })
    })
    .await;
    assert_eq!(rest(from_start).await.distinct().len(), 1);
}

async fn change_of_history(change: impl FnOnce(&mut Identity), repeated_from: i64) {
    let fakes = fakes(1);
    for _ in 0..10 {
        fakes[0].raise("late");
    }
    let hub = hub_with(&fakes, 5);
    all_readable(&hub).await;
    let mut subscription = subscribe(&hub, Start::Now);
    settle(&mut subscription).await;
    let token = subscription.token();
    for _ in 0..10 {
        fakes[0].raise("late");
        until(&mut subscription, |event| matches!(event, Event::Alert(_))).await;
    }
    settle(&mut subscription).await;
    fakes[0].become_identity(change);
    fakes[0].raise("late");
    let record = rest(subscription).await;
    // All again from there, and the new one.
    let expected: Vec<i64> = (repeated_from..=21).collect();
    assert_eq!(
        record.ids().iter().map(|id| id.1).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(
        record.count(|event| matches!(event, Event::Rewound { .. })),
        1
    );
    // A token of the old history, from before it ended.
    let record = rest(subscribe(&hub, Start::Token(token))).await;
    assert_eq!(
        record.count(|event| matches!(event, Event::Rewound { .. })),
        1
    );
    assert!(record.distinct().is_superset(&fakes[0].committed_after(10)));
    // A token of the new one.
    let (_, last) = record.alerts.last().unwrap();
    let record = rest(subscribe(&hub, Start::Token(last.clone()))).await;
    assert!(record.alerts.is_empty() && record.others.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_promoted_standby_is_read_again_from_a_safe_point() {
    change_of_history(|identity| identity.timeline += 1, 16).await;
}

#[tokio::test(start_paused = true)]
async fn another_system_is_read_again_from_its_beginning() {
    change_of_history(|identity| identity.system_id += 1, 1).await;
}

#[tokio::test(start_paused = true)]
async fn transaction_ids_that_go_back_are_noticed() {
    let fakes = fakes(1);
    for _ in 0..20 {
        fakes[0].raise("late");
    }
    let hub = hub_with(&fakes, 5);
    all_readable(&hub).await;
    let mut subscription = subscribe(&hub, Start::Now);
    settle(&mut subscription).await;
    let future = subscription.token();
    fakes[0].lose_xids(3);
    until(&mut subscription, |event| {
        matches!(event, Event::Rewound { .. })
    })
    .await;
    let seq = fakes[0].raise("late");
    let record = rest(subscription).await;
    assert!(record.ids().iter().any(|id| id.1 == seq));
    // On a router that never saw it go back, the token shows it.
    let fresh = hub_with(&fakes, 5);
    all_readable(&fresh).await;
    let record = rest(subscribe(&fresh, Start::Token(future))).await;
    assert_eq!(
        record.count(|event| matches!(event, Event::Rewound { .. })),
        1
    );
    assert!(record.distinct().iter().any(|id| id.1 == seq));
}
