//! Filters, heartbeats, plain channels, and the set of instances.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fake::collect::{Manner, all_readable, already, collect};
use fake::{Fake, Faults};
use metrics_exporter_prometheus::PrometheusBuilder;
use pgbraid_alerts::{
    Event, Filter, Hub, HubConfig, ReadState, Start, SubscribeError, SubscribeOptions,
    Subscription, TokenError, Wake,
};
use pgbraid_shardmap::InstanceName;
use tokio::time::{Instant, timeout};

const CLUSTER: [u8; 16] = [4; 16];

fn fakes(count: u8) -> Vec<Fake> {
    let fake = |index| Fake::new(index, 5, Faults::default());
    (0..count).map(fake).collect()
}

fn config() -> HubConfig {
    HubConfig {
        heartbeat: Duration::from_secs(1),
        reconnect_max: Duration::from_secs(1),
        ring_alerts: 100,
        channels: vec!["channel_1".into()],
        max_subscribers: 4,
        ..HubConfig::default()
    }
}

fn hub(fakes: &[Fake]) -> Hub {
    Hub::new(config(), CLUSTER, fakes.iter().map(Fake::source).collect())
}

fn options(start: Start) -> SubscribeOptions {
    SubscribeOptions {
        filter: Filter::default(),
        start,
        heartbeat: Duration::from_secs(2),
    }
}

fn filtered(start: Start, change: impl FnOnce(&mut Filter)) -> SubscribeOptions {
    let mut options = options(start);
    change(&mut options.filter);
    options
}

fn message(payload: &str) -> Wake {
    Wake::Notification {
        channel: "channel_1".into(),
        payload: payload.into(),
        pid: 17,
    }
}

async fn next(subscription: &mut Subscription) -> Event {
    timeout(Duration::from_secs(30), subscription.next())
        .await
        .expect("an event")
}

async fn next_but_heartbeats(subscription: &mut Subscription) -> Event {
    loop {
        match next(subscription).await {
            Event::Heartbeat { .. } => {}
            event => return event,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_after_the_catch_up_and_then_at_their_interval() {
    let fakes = fakes(2);
    let seq = fakes[1].raise("late");
    let hub = hub(&fakes);
    let mut subscription = hub.subscribe(options(Start::Earliest)).unwrap();
    assert!(matches!(next(&mut subscription).await, Event::Alert(alert) if alert.seq == seq));
    for beat in 0..4 {
        let since = Instant::now();
        let Event::Heartbeat { progress, .. } = next(&mut subscription).await else {
            panic!("a heartbeat");
        };
        assert!(progress.iter().all(|part| part.state == ReadState::Live));
        // Instances are read each second, also when nothing happens.
        assert!(
            progress
                .iter()
                .all(|part| part.lag.unwrap() < Duration::from_millis(1100))
        );
        if beat > 0 {
            assert_eq!(since.elapsed().as_millis() / 10, 200);
        } else {
            assert!(since.elapsed() < Duration::from_millis(100));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn filters_pass_what_was_asked_for() {
    let fakes = fakes(2);
    for channel in ["late", "refund", "late"] {
        fakes[0].raise(channel);
        fakes[1].raise(channel);
    }
    let hub = hub(&fakes);
    let count = async |change: fn(&mut Filter)| {
        let subscription = hub.subscribe(filtered(Start::Earliest, change)).unwrap();
        let record = collect(subscription, Manner::default(), already()).await;
        record.distinct().len()
    };
    assert_eq!(count(|_| {}).await, 6);
    assert_eq!(
        count(|filter| filter.channels = ["late".into()].into()).await,
        4
    );
    assert_eq!(
        count(|filter| filter.rules = ["refund".into()].into()).await,
        2
    );
    assert_eq!(
        count(|filter| filter.feeds = ["other".into()].into()).await,
        0
    );
    assert_eq!(
        count(|filter| filter.instances = [InstanceName::new(1)].into()).await,
        3
    );
    let both = |filter: &mut Filter| {
        filter.instances = [InstanceName::new(1)].into();
        filter.channels = ["late".into(), "refund".into()].into();
        filter.rules = ["late".into()].into();
    };
    assert_eq!(count(both).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_is_refused() {
    let fakes = fakes(1);
    let hub = hub(&fakes);
    let unknown = filtered(Start::Now, |filter| {
        filter.instances = [InstanceName::new(9)].into()
    });
    let refused = hub.subscribe(unknown).err();
    assert_eq!(
        refused,
        Some(SubscribeError::UnknownInstance(InstanceName::new(9)))
    );
    let mut token = hub.subscribe(options(Start::Now)).unwrap().token();
    token.cluster = [5; 16];
    let refused = hub.subscribe(options(Start::Token(token))).err();
    assert_eq!(
        refused,
        Some(SubscribeError::Token(TokenError::OtherCluster))
    );
    let mut held: Vec<_> = (0..4)
        .map(|_| hub.subscribe(options(Start::Now)).unwrap())
        .collect();
    let refused = hub.subscribe(options(Start::Now)).err();
    assert_eq!(refused, Some(SubscribeError::TooMany { limit: 4 }));
    held.pop();
    assert!(hub.subscribe(options(Start::Now)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn plain_channels_join_and_say_where_messages_may_be_lost() {
    let fakes = fakes(1);
    let hub = hub(&fakes);
    all_readable(&hub).await;
    let mut subscription = hub.subscribe(options(Start::Now)).unwrap();
    let only_rules = filtered(Start::Now, |filter| filter.rules = ["late".into()].into());
    let mut only_rules = hub.subscribe(only_rules).unwrap();
    fakes[0].notify(message("one"));
    let Event::Notification {
        channel,
        payload,
        pid,
        ..
    } = next_but_heartbeats(&mut subscription).await
    else {
        panic!("a notification");
    };
    assert_eq!((&*channel, &*payload, pid), ("channel_1", "one", 17));
    fakes[0].break_connections();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next_but_heartbeats(&mut subscription).await);
    }
    let is = |wanted: fn(&Event) -> bool| seen.iter().filter(|event| wanted(event)).count();
    assert_eq!(is(|event| matches!(event, Event::InstanceDown { .. })), 1);
    assert_eq!(is(|event| matches!(event, Event::InstanceUp { .. })), 1);
    assert_eq!(is(|event| matches!(event, Event::Gap { .. })), 1);
    // Who does not take them is told how many are lost, and gets the rest.
    for number in 0..150 {
        fakes[0].notify(message(&number.to_string()));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let event = next_but_heartbeats(&mut subscription).await;
    assert!(
        matches!(&event, Event::Gap { reason, .. } if reason.starts_with("50 messages")),
        "{event:?}"
    );
    let event = next_but_heartbeats(&mut subscription).await;
    assert!(
        matches!(&event, Event::Notification { payload, .. } if &**payload == "50"),
        "{event:?}"
    );
    fakes[0].raise("late");
    loop {
        match next(&mut only_rules).await {
            Event::Alert(_) => break,
            Event::Gap { .. } | Event::Notification { .. } => panic!("not asked for"),
            _ => {}
        }
    }
    // A resumed one was away, and does not know.
    let mut resumed = hub
        .subscribe(options(Start::Token(subscription.token())))
        .unwrap();
    assert!(matches!(next(&mut resumed).await, Event::Gap { .. }));
}

#[tokio::test(start_paused = true)]
async fn instances_come_and_go_without_disturbing_others() {
    let fakes = fakes(3);
    let sources: Vec<_> = fakes.iter().map(Fake::source).collect();
    let hub = Hub::new(config(), CLUSTER, sources[..2].to_vec());
    all_readable(&hub).await;
    let mut subscription = hub.subscribe(options(Start::Now)).unwrap();
    fakes[1].raise("late");
    assert!(matches!(
        next_but_heartbeats(&mut subscription).await,
        Event::Alert(_)
    ));
    // What a new one raised before the router knew it must not be lost.
    fakes[2].raise("late");
    hub.set_sources(vec![sources[0].clone(), sources[2].clone()]);
    let event = next_but_heartbeats(&mut subscription).await;
    assert!(matches!(event, Event::InstanceDown { instance, .. } if instance.index() == 1));
    let event = next_but_heartbeats(&mut subscription).await;
    assert!(matches!(event, Event::Alert(alert) if alert.instance.index() == 2));
    // The one that left keeps its place, in the subscription and in its tokens.
    let token = subscription.token();
    fakes[1].raise("late");
    hub.set_sources(sources.clone());
    let event = next_but_heartbeats(&mut subscription).await;
    assert!(
        matches!(event, Event::InstanceUp { instance } if instance.index() == 1),
        "{event:?}"
    );
    let event = next_but_heartbeats(&mut subscription).await;
    assert!(matches!(event, Event::Alert(alert) if alert.instance.index() == 1 && alert.seq == 2));
    let resumed = hub.subscribe(options(Start::Token(token.clone()))).unwrap();
    let record = collect(resumed, Manner::default(), already()).await;
    assert_eq!(record.distinct(), [(InstanceName::new(1), 2)].into());
    hub.set_sources(sources[2..].to_vec());
    let resumed = hub.subscribe(options(Start::Token(token))).unwrap();
    let record = collect(resumed, Manner::default(), already()).await;
    assert_eq!(
        record.count(|event| matches!(event, Event::InstanceDown { .. })),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn another_source_of_an_instance_goes_on_from_the_same_cursor() {
    let fakes = fakes(1);
    let hub = hub(&fakes);
    all_readable(&hub).await;
    let subscription = hub.subscribe(options(Start::Now)).unwrap();
    fakes[0].raise("late");
    hub.set_sources(vec![fakes[0].source()]);
    fakes[0].raise("late");
    let record = collect(subscription, Manner::default(), already()).await;
    assert_eq!(record.distinct().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn instances_take_turns() {
    let fakes = fakes(2);
    let hub = hub(&fakes);
    all_readable(&hub).await;
    let mut subscription = hub.subscribe(options(Start::Now)).unwrap();
    for _ in 0..20 {
        fakes[0].raise("late");
        fakes[1].raise("late");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut last = None;
    for _ in 0..40 {
        let Event::Alert(alert) = next_but_heartbeats(&mut subscription).await else {
            panic!("an alert");
        };
        assert_ne!(last.replace(alert.instance), Some(alert.instance));
    }
}

#[tokio::test(start_paused = true)]
async fn ownership_is_told_on_change_and_on_connect() {
    let fakes = fakes(1);
    let hub = hub(&fakes);
    let told = Arc::new(AtomicU32::new(0));
    let counter = told.clone();
    hub.on_ownership(move |instance| {
        assert_eq!(instance.index(), 0);
        counter.fetch_add(1, Ordering::Relaxed);
    });
    all_readable(&hub).await;
    assert_eq!(told.load(Ordering::Relaxed), 1);
    fakes[0].notify(Wake::Ownership);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(told.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_closed_hub_reads_no_more() {
    let fakes = fakes(1);
    let hub = hub(&fakes);
    all_readable(&hub).await;
    hub.run(async {}).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let reads = fakes[0].reads();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fakes[0].reads(), reads);
}

#[tokio::test(start_paused = true)]
async fn metrics_begin_at_zero_and_count() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    pgbraid_alerts::metrics::describe();
    let fakes = fakes(1);
    let hub = hub(&fakes);
    let has = |line: &str| {
        let text = handle.render();
        assert!(text.lines().any(|got| got == line), "no {line} in\n{text}");
    };
    has("pgbraid_subscribers 0");
    has("pgbraid_instance_readable{instance=\"db0\"} 0");
    has("pgbraid_gaps_total{instance=\"db0\"} 0");
    has("pgbraid_alerts_read_total{instance=\"db0\",channel=\"other\"} 0");
    all_readable(&hub).await;
    let mut subscription = hub.subscribe(options(Start::Now)).unwrap();
    for _ in 0..3 {
        fakes[0].raise("late");
        assert!(matches!(
            next_but_heartbeats(&mut subscription).await,
            Event::Alert(_)
        ));
    }
    fakes[0].notify(message("hello"));
    next_but_heartbeats(&mut subscription).await;
    has("pgbraid_subscribers 1");
    has("pgbraid_instance_readable{instance=\"db0\"} 1");
    has("pgbraid_alerts_read_total{instance=\"db0\",channel=\"late\"} 3");
    has("pgbraid_alerts_delivered_total{channel=\"late\"} 3");
    has("pgbraid_notifications_total{instance=\"db0\"} 1");
    has("pgbraid_alert_latency_seconds_count 3");
    hub.set_sources(Vec::new());
    has("pgbraid_instance_readable{instance=\"db0\"} NaN");
}
