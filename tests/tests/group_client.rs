//! The Rust client as a member of groups, and as a subscriber that goes on after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgbraid_client::{
    Client, ClientConfig, ConsumeOptions, Delivery, Event, FileTokenStore, GroupConsumer, Groups,
    Message, Nack, Outcome, RunOptions, Start, StoredSubscriber, SubscribeOptions, proto,
};
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, raised, rows,
    wait::{limited, until},
};

async fn client(routers: &[&Router]) -> Client {
    let mut urls = routers
        .iter()
        .map(|router| format!("http://{}", router.grpc));
    let mut config = ClientConfig::new(urls.next().expect("a router"));
    config.fallbacks = urls.collect();
    Client::connect(config).await.expect("a router answers")
}

/// A fleet whose feed raises an alert for each row with a positive c1.
async fn cluster() -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let router = cluster.router();
    let rules = [("positive", "c1 > 0", "a")];
    cluster.put_rules(&router, "feed", &rules).await;
    (cluster, router)
}

async fn group(groups: &Groups, name: &str, visibility: Duration) {
    let group = proto::Group {
        name: name.into(),
        visibility_timeout: visibility.try_into().ok(),
        ..Default::default()
    };
    let made = groups.put(group, Some(0), &Start::Earliest).await;
    let made = made.expect("the group is made");
    assert!(made.created && made.pending.is_empty(), "{made:?}");
}

/// Rows of new keys, each of which raises an alert.
async fn raise(router: &Router, keys: std::ops::Range<i64>) {
    let keys: Vec<i64> = keys.collect();
    let ones = vec![1; keys.len()];
    let columns = vec![rows::int32s("c1", &ones)];
    let request = rows::columnar("feed", rows::int64s("", &keys), columns);
    let answer = rows::ingest(router).await.write(request).await;
    let answer = answer.expect("the rows are taken").into_inner();
    assert_eq!(answer.rows_committed, keys.len() as u64);
}

/// Sums of the group over its instances: behind, in flight, to be delivered again, dead.
async fn standing(groups: &Groups, name: &str) -> (u64, u64, u64, u64) {
    let state = groups.list(Some(name)).await.expect("the group is there");
    assert!(state.unreachable.is_empty(), "{:?}", state.unreachable);
    let all = &state.groups[0].instances;
    let sum = |of: fn(&proto::GroupInstance) -> u64| all.iter().map(of).sum::<u64>();
    (
        sum(|one| one.lag_alerts),
        sum(|one| one.in_flight),
        sum(|one| one.delayed),
        sum(|one| one.dead),
    )
}

async fn next(consumer: &mut GroupConsumer) -> Delivery {
    let delivery = limited("a delivery", consumer.next_delivery()).await;
    delivery.expect("the group is there")
}

fn key_of(message: &Message) -> i64 {
    message.alert.key.parse().expect("keys are numbers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_settle_holds() {
    let (cluster, router) = cluster().await;
    let other = cluster.router();
    let groups = client(&[&other]).await.groups();
    let client = client(&[&router]).await;
    group(&groups, "g", Duration::from_secs(120)).await;
    raise(&router, 1..6).await;
    let mut consumer = GroupConsumer::join(client.clone(), ConsumeOptions::new("g"))
        .await
        .expect("it joins");
    let mut held = BTreeMap::new();
    while held.len() < 5 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.delivery, 1);
        held.insert(key_of(&delivery), delivery);
    }
    let mut take = |key| held.remove(&key).expect("it was delivered");
    let settled = |outcome| assert_eq!(outcome, Outcome::Settled);
    settled(take(1).ack().await.expect("an answer"));
    let nacked = take(2).nack(Duration::ZERO, "not now").await;
    settled(nacked.expect("an answer"));
    settled(take(3).terminate("never").await.expect("an answer"));
    let mut fourth = take(4);
    let extended = fourth.extend(Some(Duration::from_secs(300))).await;
    settled(extended.expect("an answer"));
    // Settled behind its back, through the other router.
    let id = take(5).message().id.clone();
    let ack = |id: &str| proto::Settlement {
        ids: vec![id.to_owned()],
        how: Some(proto::settlement::How::Ack(proto::Ack {})),
    };
    for outcome in ["Settled", "Stale"] {
        let limit = Duration::from_secs(10);
        let results = groups.settle("g", vec![ack(&id)], limit).await;
        let results = results.expect("an answer");
        assert_eq!(format!("{:?}", results[0].outcome()), outcome);
    }
    let invalid = groups.settle("g", vec![ack("nonsense")], Duration::from_secs(10));
    let invalid = invalid.await.expect("an answer");
    assert_eq!(format!("{:?}", invalid[0].outcome()), "Invalid");

    let again = next(&mut consumer).await;
    assert_eq!((key_of(&again), again.delivery), (2, 2));
    settled(again.ack().await.expect("an answer"));
    let letters = groups.dead_letters("g", "", 10).await.expect("an answer");
    let [letter] = letters.dead_letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert!(letter.reason.contains("never"), "{letter:?}");
    let ids = Some(vec![letter.id.clone()]);
    let requeued = groups.requeue("g", ids).await.expect("an answer");
    assert_eq!(requeued.count, 1);
    let again = next(&mut consumer).await;
    assert_eq!((key_of(&again), again.delivery), (3, 1));

    // Leaving gives back what is held, long before its time is over.
    limited("leaving", consumer.leave())
        .await
        .expect("it leaves");
    let mut back = BTreeSet::new();
    while back.len() < 2 {
        let wait = Duration::from_secs(20);
        let pulled = groups.pull("g", "puller", 10, wait).await;
        let pulled = pulled.expect("an answer");
        assert!(!pulled.is_empty(), "only {back:?} came back");
        let ids = pulled.iter().map(|one| one.id.clone()).collect();
        let how = Some(proto::settlement::How::Ack(proto::Ack {}));
        let settlement = proto::Settlement { ids, how };
        let limit = Duration::from_secs(10);
        groups
            .settle("g", vec![settlement], limit)
            .await
            .expect("an answer");
        back.extend(pulled.into_iter().filter_map(|one| Some(one.alert?.key)));
    }
    assert_eq!(back, BTreeSet::from(["3".to_owned(), "4".to_owned()]));
    // Too late for the one that was held all the time.
    fourth.ack().await.expect_err("the consumer has left");
    assert_eq!(standing(&groups, "g").await, (0, 0, 0, 0));

    let late = ConsumeOptions::new("g");
    let mut consumer = GroupConsumer::join(client, late).await.expect("it joins");
    groups.remove("g", None).await.expect("it is removed");
    let end = limited("the end", consumer.next_delivery()).await;
    let end = end.expect_err("the group has gone").to_string();
    assert!(end.contains("was removed"), "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_at_another_router_and_handles_all() {
    const ALERTS: i64 = 3000;
    let (cluster, first) = cluster().await;
    let second = cluster.router();
    let groups = client(&[&second]).await.groups();
    group(&groups, "g", Duration::from_secs(2)).await;
    // Times that each key was handled, and the most handlers at once.
    type Seen = (BTreeMap<i64, u32>, usize, usize);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut members = Vec::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let start = |routers: Client| {
        let (noted, mut stopped) = (seen.clone(), stopped.clone());
        tokio::spawn(async move {
            let join = ConsumeOptions {
                max_in_flight: 200,
                ..ConsumeOptions::new("g")
            };
            let consumer = GroupConsumer::join(routers, join).await.expect("it joins");
            let options = RunOptions {
                concurrency: 8,
                ..RunOptions::default()
            };
            let stop = async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            let handler = move |message: Arc<Message>| {
                let noted = noted.clone();
                async move {
                    {
                        let mut seen = noted.lock().expect("no panic under this lock");
                        seen.1 += 1;
                        seen.2 = seen.2.max(seen.1);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let mut seen = noted.lock().expect("no panic under this lock");
                    seen.1 -= 1;
                    let times = seen.0.entry(key_of(&message)).or_default();
                    *times += 1;
                    // Some fail the first time.
                    if *times == 1 && key_of(&message) % 100 == 0 {
                        return Err(Nack::new("once").after(Duration::from_millis(50)));
                    }
                    Ok(())
                }
            };
            consumer.run_until(options, stop, handler).await
        })
    };
    members.push(start(client(&[&first, &second]).await));
    members.push(start(client(&[&first]).await));
    for start in (0..ALERTS).step_by(500) {
        raise(&second, start..start + 500).await;
    }
    until("some to be handled", || async {
        (seen.lock().expect("seen").0.len() > 300).then_some(())
    })
    .await;
    first.signal(Signal::SIGKILL);
    until("all to be handled", || async {
        (seen.lock().expect("seen").0.len() == ALERTS as usize).then_some(())
    })
    .await;
    // Whatever was acked when the router died is acked all the same.
    until("all to be acked", || async {
        (standing(&groups, "g").await == (0, 0, 0, 0)).then_some(())
    })
    .await;
    stop.send(true).expect("they run");
    // The second knows no other router: it does not get stuck.
    let mut acked = 0;
    for (member, knows_another) in members.into_iter().zip([true, false]) {
        let handled = limited("the member", member).await.expect("no panic");
        match handled {
            Ok(handled) => acked += handled.acked,
            Err(error) if !knows_another => assert!(error.is_retriable(), "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
    let seen = seen.lock().expect("seen");
    assert!(seen.2 <= 16, "{} handlers at once", seen.2);
    let failed = (0..ALERTS).filter(|key| key % 100 == 0);
    for key in failed {
        assert!(seen.0[&key] >= 2, "{key} failed and did not come again");
    }
    assert!(acked > 0);
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_longer_than_the_visibility_is_extended() {
    let (_cluster, router) = cluster().await;
    let client = client(&[&router]).await;
    let groups = client.groups();
    group(&groups, "g", Duration::from_secs(1)).await;
    raise(&router, 0..6).await;
    let seen = Arc::new(Mutex::new(BTreeMap::<i64, u32>::new()));
    let noted = seen.clone();
    let consumer = GroupConsumer::join(client, ConsumeOptions::new("g")).await;
    let options = RunOptions {
        concurrency: 2,
        limit: Some(6),
        ..RunOptions::default()
    };
    let handler = move |message: Arc<Message>| {
        let noted = noted.clone();
        async move {
            // Three rounds of this: the last two wait for a handler for longer than their time.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let mut seen = noted.lock().expect("no panic under this lock");
            *seen.entry(key_of(&message)).or_default() += 1;
            Ok(())
        }
    };
    let started = Instant::now();
    let run = consumer.expect("it joins").run(options, handler);
    let handled = limited("the run", run).await.expect("it runs");
    assert_eq!((handled.acked, handled.unconfirmed), (6, 0), "{handled:?}");
    assert!(started.elapsed() > Duration::from_secs(3));
    let once = (0..6).map(|key| (key, 1)).collect();
    assert_eq!(*seen.lock().expect("seen"), once);
    assert_eq!(standing(&groups, "g").await, (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_subscriber_loses_nothing_over_restarts() {
    let (cluster, router) = cluster().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("position");
    let mut seen: BTreeMap<(String, i64), u32> = BTreeMap::new();
    for round in 0..4 {
        raise(&router, round * 200..round * 200 + 200).await;
        let options = SubscribeOptions {
            start: Start::Earliest,
            heartbeat: Some(Duration::from_millis(100)),
            ..SubscribeOptions::default()
        };
        let store = FileTokenStore::new(&path);
        let client = client(&[&router]).await;
        let subscriber = StoredSubscriber::start(client, options, store).await;
        let mut subscriber = subscriber
            .expect("it subscribes")
            .save_every(Duration::ZERO);
        // Each time it dies with an event that it has not handled.
        let enough = if round == 3 {
            800
        } else {
            200 * round as usize + 100
        };
        loop {
            let received = limited("an event", subscriber.next())
                .await
                .expect("an event");
            if let Event::Alert(alert) = received.event {
                if round < 3 && seen.len() >= enough {
                    break;
                }
                *seen.entry((alert.instance, alert.seq)).or_default() += 1;
            }
            if seen.len() >= enough && round == 3 {
                break;
            }
        }
    }
    let seen_ids: BTreeSet<_> = seen.keys().cloned().collect();
    assert_eq!(seen_ids, raised(&cluster).await);
    let token = std::fs::read_to_string(&path).expect("it was saved");
    assert!(token.trim().len() > 16, "{token:?}");
    // A file that is no token is told, not started over.
    std::fs::write(&path, "nonsense").expect("written");
    let client = client(&[&router]).await;
    let store = FileTokenStore::new(&path);
    let refused = StoredSubscriber::start(client, SubscribeOptions::default(), store).await;
    let refused = refused.expect_err("that is no token").to_string();
    assert!(refused.contains("token"), "{refused}");
}
